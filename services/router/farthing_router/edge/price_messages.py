"""Between the contract's messages about prices and the price book's words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.errors import FieldInvalid
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_router.pricing.price_lists import InForce
from farthing_router.pricing.prices import Price, Rated
from farthing_router.pricing.rates import TOKEN_KINDS, Part, RateCard, Rates, Schedule, check_schedule
from farthing_router.store import NewPrice, PriceRow

_FIELDS = {kind: f"{kind}_usd_nanos_per_million_tokens" for kind in TOKEN_KINDS} | {
    "request": "request_usd_nanos",
    "image": "image_usd_nanos",
}


def moment(message: Any, field: str) -> datetime | None:
    """A moment; None when it is not set."""
    return getattr(message, field).ToDatetime(UTC) if message.HasField(field) else None


def new_price(given: Any, price_id: str, now: datetime) -> NewPrice:
    """A price to be written down. Raises FieldInvalid, naming the field."""
    terms = given.WhichOneof("terms")
    effective_at, expires_at = moment(given, "effective_time"), moment(given, "expire_time")
    if terms is None or (terms == "withdrawn" and not given.withdrawn):
        raise FieldInvalid(field="price.terms", problem="set rates, discount_bps or withdrawn")
    if effective_at is None:
        raise FieldInvalid(field="price.effective_time", problem="must be set")
    if expires_at is not None and expires_at <= effective_at:
        raise FieldInvalid(field="price.expire_time", problem="must be after effective_time")
    if not given.source:
        raise FieldInvalid(field="price.source", problem="must say who or what says so")
    if terms == "discount_bps" and not given.scope:
        raise FieldInvalid(field="price.scope", problem="a discount is an organisation's: name it")
    if not given.model and (terms == "rates" or not given.scope):
        raise FieldInvalid(
            field="price.model", problem="must be set, unless an organisation gets a discount on a whole provider"
        )
    return NewPrice(
        price_id=price_id,
        organization=given.scope.removeprefix("organizations/"),
        provider=given.provider,
        model=given.model,
        effective_at=effective_at,
        expires_at=expires_at,
        card=_card(given.rates) if terms == "rates" else None,
        discount_bps=given.discount_bps if terms == "discount_bps" else None,
        source=given.source,
        recorded_at=now,
    )


def _card(given: Any) -> RateCard:
    usual, steps = _rates(given.rates), _steps(given)
    check_schedule(usual, steps, field="price.rates")
    tiers: dict[str, Schedule] = {}
    for number, each in enumerate(given.service_tiers):
        field = f"price.rates.service_tiers[{number}]"
        if each.service_tier in tiers:
            raise FieldInvalid(field=f"{field}.service_tier", problem=f"{each.service_tier} is there twice")
        check_schedule(_rates(each.rates), _steps(each), field=field, like=usual)
        tiers[each.service_tier] = Schedule(_rates(each.rates), _steps(each))
    return RateCard(Schedule(usual, steps), tiers)


def _steps(given: Any) -> list[tuple[int, Rates]]:
    return [(each.input_tokens_over, _rates(each.rates)) for each in given.long_context]


def _rates(given: Any) -> Rates:
    return {kind: getattr(given, field) for kind, field in _FIELDS.items() if given.HasField(field)}


def row(given: PriceRow) -> Any:
    """A row of the book."""
    price = given.price
    message = router_pb2.Price(
        price_id=price.price_id,
        scope=f"organizations/{price.organization}" if price.organization else "",
        provider=price.provider,
        model=price.model,
        effective_time=_timestamp(price.effective_at),
        expire_time=None if price.expires_at is None else _timestamp(price.expires_at),
        source=price.source,
        record_time=_timestamp(price.recorded_at),
    )
    if price.card is not None:
        message.rates.CopyFrom(_card_message(price.card))
    elif price.discount_bps is not None:
        message.discount_bps = price.discount_bps
    else:
        message.withdrawn = True
    return message


def used(price: Price, *, provider: str, model: str) -> Any:
    """The price that holds for a model: its row, and whatever its terms, the rates before any discount."""
    message = row(price.row) if price.row is not None else router_pb2.Price(source=price.source)
    message.provider, message.model, message.unknown = provider, model, price.unknown
    if not price.discount_bps:
        message.rates.CopyFrom(_card_message(price.card))
    return message


def listed(given: InForce) -> Any:
    """A price in a list of those in force."""
    return used(given.price, provider=given.provider, model=given.model)


def rated(given: Rated, price: Price, parts: list[Part], *, provider: str, model: str) -> Any:
    """What usage costs."""
    return router_pb2.RateUsageResponse(
        cost_usd_nanos=given.cost_usd_nanos,
        price_source=price.source,
        parts=[
            router_pb2.RatedPart(
                kind=each.kind,
                quantity=each.quantity,
                rate_usd_nanos=each.rate_usd_nanos,
                cost_usd_nanos=each.cost_usd_nanos,
                rate_unknown=each.unknown,
            )
            for each in parts
        ],
        price=used(price, provider=provider, model=model),
        price_unknown=given.unknown,
        rated_service_tier=given.service_tier,
        input_tokens_over=given.input_tokens_over,
        distinct_kinds=price.card.distinct_kinds,
    )


def _card_message(card: RateCard) -> Any:
    tiers = [
        router_pb2.ServiceTierRates(
            service_tier=name, rates=_rates_message(schedule.rates), long_context=_steps_message(schedule)
        )
        for name, schedule in card.tiers.items()
    ]
    return router_pb2.RateCard(
        rates=_rates_message(card.usual.rates), long_context=_steps_message(card.usual), service_tiers=tiers
    )


def _steps_message(schedule: Schedule) -> list[Any]:
    return [
        router_pb2.LongContextRates(input_tokens_over=over, rates=_rates_message(rates))
        for over, rates in schedule.long_context
    ]


def _rates_message(rates: Rates) -> Any:
    return router_pb2.Rates(**{_FIELDS[kind]: rate for kind, rate in rates.items()})


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
