"""`farthing prices`: the price book, and rating history again at what it says now."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import MOMENT, ask, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

prices_app = typer.Typer(no_args_is_help=True)
Model = Annotated[str, typer.Option(help="A model, as users name it.")]
Provider = Annotated[str, typer.Option(help="A provider, as farthing.yaml names it.")]
Usd = Annotated[str, typer.Option(help="Dollars per million tokens, as a decimal number.")]


@prices_app.command("list")
def list_prices(
    scope: Annotated[str, typer.Option(help="Whose prices: organizations/acme. Everybody's when empty.")] = "",
    model: Model = "",
    provider: Provider = "",
    at: Annotated[str, typer.Option(help=f"In force then; now when empty. {MOMENT}")] = "",
    history: Annotated[bool, typer.Option("--history", help="All that the price book has written down, newest first.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Lists prices: those in force, or all that were written down."""
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    names = ("model", "provider", "input", "cached", "output", "more", "from", "until", "source")
    table, token = Table(*names, caption="dollars per million tokens"), ""
    while True:
        request = router_pb2.ListPricesRequest(
            scope=scope, model=model, provider=provider, at=moment_of(at), history=history, page_token=token
        )
        page = _ask(address, "ListPrices", request)
        for price in page.prices:
            table.add_row(*_cells(price))
        token = page.next_page_token
        if not token:
            break
    show(table, nothing="No price is known here: farthing prices set --help says how to write one down.")


@prices_app.command("set")
def set_price(
    source: Annotated[str, typer.Option(help="Who or what says so: a price list and its date, the number of a contract.")],
    model: Model = "",
    provider: Provider = "",
    scope: Annotated[str, typer.Option(help="organizations/NAME for its contract. Everybody's price when empty.")] = "",
    input_usd: Usd = "",
    cached_input_usd: Usd = "",
    output_usd: Usd = "",
    file: Annotated[
        Path | None, typer.Option(help="All rates, written as models.….price in farthing.yaml.", exists=True, dir_okay=False)
    ] = None,
    discount_pct: Annotated[str, typer.Option(help="Percent off what the price would be, up to two decimals.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Say that the book has no price for the time.")] = False,
    start: Annotated[str, typer.Option("--from", help=f"From when; now when empty. {MOMENT}")] = "",
    end: Annotated[str, typer.Option("--until", help=f"Until before when; without end when empty. {MOMENT}")] = "",
    request_id: Annotated[str, typer.Option(help="A UUID that makes the call safe to repeat; a new one when empty.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Writes a price into the price book. Rates come from the options, or all of them from a file."""
    from farthing.router.v1 import router_pb2

    from farthing_runtime.settings import SettingsInvalid

    given = {"input": input_usd, "cached_input": cached_input_usd, "output": output_usd}
    rates = {f"{kind}_usd_per_million_tokens": usd for kind, usd in given.items() if usd}
    if [bool(rates), file is not None, bool(discount_pct), withdraw].count(True) != 1:
        raise SettingsInvalid(field="prices set", problem="give rates, --file, --discount-pct or --withdraw: one of them")
    price = router_pb2.Price(
        scope=scope,
        provider=provider,
        model=model,
        effective_time=moment_of(start) or moment_of(datetime.now(UTC).isoformat()),
        expire_time=moment_of(end),
        source=source,
    )
    if discount_pct:
        price.discount_bps = _bps(discount_pct)
    elif withdraw:
        price.withdrawn = True
    else:
        price.rates.CopyFrom(_card(rates if file is None else _read(file)))
    request = router_pb2.UpsertPriceRequest(request_id=request_id or str(uuid.uuid4()), price=price)
    made = _ask(address, "UpsertPrice", request)
    typer.echo(made.price.price_id)
    if made.superseded_price_ids:
        typer.secho(f"takes precedence over {', '.join(made.superseded_price_ids)}", err=True, fg="yellow")


@prices_app.command("rerate")
def rerate_history(
    scope: Annotated[str, typer.Option(help="Whose usage, with everything below it.")],
    start: Annotated[str, typer.Option("--from", help=f"From when. {MOMENT}")],
    end: Annotated[str, typer.Option("--to", help=f"Until before when; now when empty. {MOMENT}")] = "",
    model: Model = "",
    provider: Provider = "",
    apply: Annotated[bool, typer.Option("--apply", help="Book each difference.")] = False,
    address: Address = DEFAULT_ADDRESS,
    router_address: Annotated[str, typer.Option(help="Where the router is, when it is not at --address.")] = "",
) -> None:
    """Rates usage again at the prices now known for its moments; prints what differs, and books it with --apply."""
    from farthing_runtime.cli.rerate import print_report, run

    begins, ends = moment_of(start), moment_of(end)
    report = asyncio.run(
        run(
            address,
            router_address or address,
            asked={"scope": scope, "filter": {"model": model, "provider": provider}},
            between=(begins, ends),
            apply=apply,
        )
    )
    print_report(report, apply=apply)
    if report.failed:
        raise typer.Exit(1)


def _ask(address: str, method: str, request: Any) -> Any:
    from farthing.router.v1 import router_pb2_grpc

    return ask(router_pb2_grpc.RouterServiceStub, method, request, address=address)


def _bps(percent: str) -> int:
    from decimal import Decimal, InvalidOperation

    from farthing_runtime.settings import SettingsInvalid

    try:
        bps = Decimal(percent) * 100
    except InvalidOperation as error:
        raise SettingsInvalid(field="--discount-pct", problem=f"{percent!r} is no number") from error
    if bps != bps.to_integral_value() or not 0 <= bps <= 10_000:
        raise SettingsInvalid(field="--discount-pct", problem="must be from 0 to 100, with two decimals at most")
    return int(bps)


def _read(file: Path) -> Any:
    import yaml

    return yaml.safe_load(file.read_text())


def _card(entry: Any) -> Any:
    """The rate card of a price as farthing.yaml writes it. Raises SettingsInvalid for a field that is none."""
    from farthing.router.v1 import router_pb2

    tiers = entry.get("service_tiers") or {}
    return router_pb2.RateCard(
        rates=_rates(entry),
        long_context=_steps(entry),
        service_tiers=[
            router_pb2.ServiceTierRates(service_tier=name, rates=_rates(each), long_context=_steps(each))
            for name, each in tiers.items()
        ],
    )


def _steps(entry: Any) -> list[Any]:
    from farthing.router.v1 import router_pb2

    return [
        router_pb2.LongContextRates(input_tokens_over=each["input_tokens_over"], rates=_rates(each))
        for each in entry.get("long_context") or ()
    ]


def _rates(entry: Any) -> Any:
    from farthing.router.v1 import router_pb2
    from farthing_core.money import nanos_from_usd

    from farthing_runtime.settings import SettingsInvalid

    rates = router_pb2.Rates()
    for name, usd in entry.items():
        if name in ("long_context", "service_tiers", "input_tokens_over"):
            continue
        field = name.replace("_usd", "_usd_nanos", 1)
        if field not in rates.DESCRIPTOR.fields_by_name:
            raise SettingsInvalid(field=name, problem="is no rate")
        setattr(rates, field, nanos_from_usd(usd))
    return rates


def _cells(price: Any) -> list[str]:
    card = price.rates
    more = [each.service_tier for each in card.service_tiers]
    more += [f"over {each.input_tokens_over}" for each in card.long_context]
    if price.unknown:
        more.append("upper bound")
    rates = [_usd(card.rates, f"{kind}_usd_nanos_per_million_tokens") for kind in ("input", "cached_input", "output")]
    if price.WhichOneof("terms") == "discount_bps":
        rates = [f"−{price.discount_bps / 100:g} %", "", ""]
    elif price.withdrawn:
        rates = ["withdrawn", "", ""]
    times = [_day(price, "effective_time"), _day(price, "expire_time")]
    where = f"{price.source} ({price.price_id[:8]})" if price.price_id else price.source
    return [price.model or "(all)", price.provider, *rates, ", ".join(more), *times, f"{price.scope} {where}".strip()]


def _usd(rates: Any, field: str) -> str:
    from decimal import Decimal

    return f"{(Decimal(getattr(rates, field)) / 10**9).normalize():f}" if rates.HasField(field) else ""


def _day(price: Any, field: str) -> str:
    return getattr(price, field).ToDatetime().strftime("%Y-%m-%d %H:%M") if price.HasField(field) else ""
