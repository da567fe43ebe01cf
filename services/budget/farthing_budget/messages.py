"""Between the contract's messages and the ledger's words."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.errors import FieldInvalid
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_budget.budgets import Budget
from farthing_budget.operations import Adjust, Entry, Hold, Left, State
from farthing_budget.periods import Period, period_bounds
from farthing_budget.usage import Saving, Source, UsageLine, UsageRecord

_STATES = {
    State.RESERVED: budget_pb2.RESERVATION_STATE_RESERVED,
    State.SETTLED: budget_pb2.RESERVATION_STATE_SETTLED,
    State.RELEASED: budget_pb2.RESERVATION_STATE_RELEASED,
    State.SUSPENDED: budget_pb2.RESERVATION_STATE_SUSPENDED,
    State.DISPATCHED: budget_pb2.RESERVATION_STATE_DISPATCHED,
    State.LAPSED: budget_pb2.RESERVATION_STATE_LAPSED,
}
_YEAR_MIN, _YEAR_MAX = 1970, 9000
_NOT_OURS = "is not one of ours"


def body_hash(request: Any) -> bytes:
    """What tells two bodies under one request_id apart."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


@lru_cache(maxsize=1024)
def timestamp(moment: datetime) -> Timestamp:
    """A moment as the contracts write it; not to be changed, since whoever asks for the same moment gets the same message."""
    # Timestamp.FromDatetime goes by way of the calendar, which takes five times as long.
    return Timestamp(seconds=math.floor(moment.timestamp()), nanos=moment.microsecond * 1_000)


def budget(given: Budget) -> Any:
    """A budget with its balance."""
    terms, balance, limits = given.terms, given.balance, given.terms.limits
    period = terms.period_terms
    message = budget_pb2.Budget(
        budget_id=terms.budget_id,
        scope=terms.scope,
        display_name=terms.display_name,
        period=int(period.period),  # type: ignore[arg-type]
        time_zone=period.time_zone,
        limit_usd_nanos=limits.usd_nanos,
        limit_tokens=limits.tokens,
        limit_requests=limits.requests,
        spent_usd_nanos=balance.spent_usd_nanos,
        held_usd_nanos=balance.held_usd_nanos,
        suspense_usd_nanos=balance.suspense_usd_nanos,
        spent_tokens=balance.spent_tokens,
        held_tokens=balance.held_tokens,
        suspense_tokens=balance.suspense_tokens,
        spent_requests=balance.spent_requests,
        held_requests=balance.held_requests,
        period_start_time=timestamp(given.period_start),
        period_end_time=timestamp(balance.period_end),
        version=given.version,
        create_time=timestamp(given.created_at),
        period_terms=budget_pb2.PeriodTerms(
            fiscal_start_month=period.start_month, start_day=period.start_day, window_s=period.window_s
        ),
        limit_terms=budget_pb2.LimitTerms(
            soft_limit_percent=terms.limit_terms.soft_percent,
            critical_limit_percent=terms.limit_terms.critical_percent,
            on_exhaustion=int(terms.limit_terms.on_exhaustion),  # type: ignore[arg-type]
            velocity_measure=int(terms.limit_terms.measure),  # type: ignore[arg-type]
            hold_worst_case=terms.limit_terms.hold_worst_case,
        ),
    )
    if terms.selector is not None:
        message.selector.CopyFrom(budget_pb2.BudgetSelector(**{terms.selector.kind: terms.selector.name}))
    return message


def reservation(hold: Hold) -> Any:
    """A hold."""
    message = budget_pb2.Reservation()
    put_reservation(message, hold)
    return message


def put_reservation(message: Any, hold: Hold) -> None:
    """Writes a hold into a message, in place: streams answer with very many, and copies cost as much as making them."""
    message.request_id = hold.request_id
    message.scope = hold.scope
    message.state = _STATES[hold.state]
    message.amount_usd_nanos = hold.amount_usd_nanos
    message.tokens = hold.tokens
    message.authorized_usd_nanos = hold.authorized_usd_nanos
    message.create_time.CopyFrom(timestamp(hold.created_at))
    message.expire_time.CopyFrom(timestamp(hold.expires_at))
    if hold.settled_usd_nanos or hold.settled_tokens:
        message.settled_usd_nanos = hold.settled_usd_nanos
        message.settled_tokens = hold.settled_tokens
    if hold.sized is not None:
        message.output_tokens_held = hold.sized.output_tokens_held


def entry(given: Entry) -> Any:
    """An entry of the journal."""
    return budget_pb2.Entry(
        entry_id=given.entry_id,
        create_time=timestamp(given.at),
        kind=given.kind.name,
        request_id=given.request_id,
        scope=given.scope,
        held_usd_nanos=given.held_usd_nanos,
        spent_usd_nanos=given.spent_usd_nanos,
        held_tokens=given.held_tokens,
        spent_tokens=given.spent_tokens,
        charges=[f"{budget_id}@{start.isoformat()}" for _, budget_id, start in given.keys],
        note=given.note,
        corrects=given.corrects or "",
    )


def entry_of_correction(hold: Hold, operation: Adjust) -> Any:
    """The entry of a correction that was made before."""
    return budget_pb2.Entry(
        create_time=timestamp(hold.created_at),
        kind="ADJUST",
        request_id=hold.request_id,
        scope=hold.scope,
        spent_usd_nanos=operation.amount_usd_nanos,
        spent_tokens=operation.tokens,
        charges=[f"{budget_id}@{start.isoformat()}" for _, budget_id, start in hold.keys],
        note=operation.reason,
        corrects=operation.reservation_id,
    )


def left(given: Left) -> Any:
    """What is left on the tightest budget."""
    said = budget_pb2.BudgetLeft(
        budget_id=given.budget_id,
        scope=given.scope,
        free_usd_nanos=given.free_usd_nanos,
        free_tokens=given.free_tokens,
        limit_usd_nanos=given.limit_usd_nanos,
    )
    terms, start = given.period_terms, given.period_start
    if terms is not None and start is not None and terms.period is not Period.ROLLING:
        said.period_start_time.FromDatetime(start)
        said.period_end_time.FromDatetime(period_bounds(terms, start)[1])
    return said


def usage_record(given: Any) -> UsageRecord:
    """What a request used. Raises FieldInvalid for what the ledger cannot keep."""
    return UsageRecord(
        task=text(given.task, field="usage.task"),
        lines=tuple(_usage_line(line, number) for number, line in enumerate(given.lines)),
        baseline_usd_nanos=given.baseline_usd_nanos,
        saving=Saving(given.saving.cache_usd_nanos, given.saving.prompt_usd_nanos, given.saving.route_usd_nanos),
        service=text(given.service, field="usage.service"),
        domain=text(given.domain, field="usage.domain"),
        key_id=text(given.key_id, field="usage.key_id"),
        tags=tuple(text(tag, field="usage.tags") for tag in given.tags),
    ).checked()


def _usage_line(line: Any, number: int) -> UsageLine:
    where = f"usage.lines[{number}]"
    return UsageLine(
        model=text(line.model, field=f"{where}.model"),
        provider=text(line.provider, field=f"{where}.provider"),
        deployment=text(line.deployment, field=f"{where}.deployment"),
        input_tokens=line.input_tokens,
        cached_input_tokens=line.cached_input_tokens,
        output_tokens=line.output_tokens,
        cost_usd_nanos=line.cost_usd_nanos,
        outcome=text(line.outcome, field=f"{where}.outcome"),
        estimated=line.estimated,
        cache_write_5m_tokens=line.cache_write_5m_tokens,
        cache_write_1h_tokens=line.cache_write_1h_tokens,
        reasoning_tokens=line.reasoning_tokens,
        audio_input_tokens=line.audio_input_tokens,
        audio_output_tokens=line.audio_output_tokens,
        tokens_source=Source(line.tokens_source or Source.REPORTED),
        price_source=text(line.price_source, field=f"{where}.price_source"),
        service_tier=text(line.service_tier, field=f"{where}.service_tier"),
        price_unknown=line.price_unknown,
    )


def text(value: str, *, field: str) -> str:
    """A text that Postgres can keep; raises FieldInvalid, naming `field`, for one with a NUL in it."""
    if "\x00" in value:
        raise FieldInvalid(field=field, problem="must not contain the NUL character")
    return value


def moment(request: Any, field: str) -> datetime | None:
    """A moment that a request may give. Raises FieldInvalid for one that no calendar here holds."""
    if not request.HasField(field):
        return None
    try:
        found: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldInvalid(field=field, problem="is no moment") from error
    if not _YEAR_MIN <= found.year <= _YEAR_MAX:
        raise FieldInvalid(field=field, problem=f"must lie between the years {_YEAR_MIN} and {_YEAR_MAX}")
    return found


def page_token(keys: tuple[str, ...]) -> str:
    """Where the next page starts."""
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode()


def page_keys(token: str) -> tuple[str, ...] | None:
    """What a page token says; None for the first page. Raises FieldInvalid for a token that is not ours."""
    if not token:
        return None
    try:
        keys = json.loads(base64.urlsafe_b64decode(token.encode()))
        json.dumps(keys, ensure_ascii=False).encode()  # half a character is no text
    except (ValueError, RecursionError) as error:
        raise FieldInvalid(field="page_token", problem=_NOT_OURS) from error
    if not isinstance(keys, list) or not all(isinstance(key, str) and "\x00" not in key for key in keys):
        raise FieldInvalid(field="page_token", problem=_NOT_OURS)
    return tuple(keys)


def last_budget(token: str) -> tuple[str, int, str] | None:
    """Scope, period and id of the last budget of the previous page. Raises FieldInvalid for a token that is not ours."""
    keys = page_keys(token)
    if keys is None:
        return None
    if len(keys) != 3 or keys[1] not in {str(int(period)) for period in Period}:
        raise FieldInvalid(field="page_token", problem=_NOT_OURS)
    return keys[0], int(keys[1]), keys[2]
