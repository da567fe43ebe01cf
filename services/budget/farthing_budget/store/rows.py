"""Rows of the ledger, as the ledger's words."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from farthing_budget.budgets import (
    Balance,
    BalanceKey,
    Exhaustion,
    Limits,
    LimitTerms,
    Measure,
    Selector,
    Terms,
)
from farthing_budget.operations import Entry, Hold, Kind, Sized, Sizing, State
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.sizing.pool import NO_RISK, Risk
from farthing_budget.store.charges import charges_of
from farthing_budget.store.statements import CREATE_BALANCES, LOCK_BALANCES, READ_BALANCES
from farthing_budget.usage import UsageOrigin, serves

Bounds = dict[BalanceKey, datetime | None]
"""Balances that may count, with the end of their periods; None for those that need not be made where they are missing."""
_FIGURES = (
    "held_usd_nanos",
    "spent_usd_nanos",
    "suspense_usd_nanos",
    "held_tokens",
    "spent_tokens",
    "suspense_tokens",
    "held_requests",
    "spent_requests",
)


def terms_of(row: asyncpg.Record) -> Terms:
    """A budget's terms as its row has them."""
    return Terms(
        organization=row["organization"],
        budget_id=row["budget_id"],
        scope=row["scope"],
        display_name=row["display_name"],
        period_terms=PeriodTerms(
            Period(row["period"]), row["time_zone"], row["start_month"], row["start_day"], row["window_s"]
        ),
        limits=Limits(row["limit_usd_nanos"], row["limit_tokens"], row["limit_requests"]),
        limit_terms=LimitTerms(
            row["soft_percent"],
            row["critical_percent"],
            Exhaustion(row["on_exhaustion"]),
            Measure(row["measure"]),
            row["hold_worst_case"],
        ),
        selector=Selector(row["selector_kind"], row["selector_name"]) if row["selector_kind"] else None,
    )


def terms_by_scope(found: Iterable[asyncpg.Record]) -> dict[tuple[str, str], list[Terms]]:
    """Terms by (organisation, scope)."""
    terms: dict[tuple[str, str], list[Terms]] = {}
    for row in found:
        terms.setdefault((row["organization"], row["scope"]), []).append(terms_of(row))
    return terms


def hold_of(row: asyncpg.Record) -> Hold:
    """A hold as its row has it."""
    charges = charges_of(row["organization"], row["charges"])
    sized = None
    if row["sized"] is not None:
        held, *sizing = json.loads(row["sized"])
        sized = Sized(Sizing(*sizing), held, risk_of(row["risk"]))
    return Hold(
        organization=row["organization"],
        request_id=str(row["request_id"]),
        scope=row["scope"],
        body_hash=row["body_hash"],
        state=State(row["state"]),
        amount_usd_nanos=row["amount_usd_nanos"],
        tokens=row["tokens"],
        authorized_usd_nanos=row["authorized_usd_nanos"],
        charges=charges,
        keys=tuple(charge.key for charge in charges),
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        expires_at=row["expires_at"],
        settled_usd_nanos=row["settled_usd_nanos"],
        settled_tokens=row["settled_tokens"],
        settle_hash=row["settle_hash"],
        critical=row["critical"],
        sized=sized,
    )


def holds_by_id(found: Iterable[asyncpg.Record]) -> dict[tuple[str, str], Hold]:
    """Holds by (organisation, request)."""
    holds = (hold_of(row) for row in found)
    return {(hold.organization, hold.request_id): hold for hold in holds}


def origins_by_id(found: Iterable[asyncpg.Record]) -> dict[tuple[str, str], UsageOrigin]:
    """What requests were, by (organisation, request): as the line says whose answer was delivered, or the last."""
    origins: dict[tuple[str, str], UsageOrigin] = {}
    served: set[tuple[str, str]] = set()
    for row in found:
        key = row["organization"], str(row["request_id"])
        if key in served:
            continue
        names = (row[name] for name in ("model", "provider", "deployment"))
        origins[key] = UsageOrigin(row["task"], row["service"], row["domain"], row["key_id"], tuple(row["tags"]), *names)
        if serves(row["outcome"]):
            served.add(key)
    return origins


def entry_of(row: asyncpg.Record) -> Entry:
    """An entry of the journal as its row has it."""
    figures = {name: row[name] for name in _FIGURES}
    return Entry(
        kind=Kind(row["kind"]),
        at=row["at"],
        organization=row["organization"],
        request_id=str(row["request_id"]),
        scope=row["scope"],
        keys=tuple(charge.key for charge in charges_of(row["organization"], row["charges"])),
        **figures,
        note=row["note"],
        corrects=None if row["corrects"] is None else str(row["corrects"]),
        entry_id=row["entry_id"],
    )


def risk_of(packed: bytes | None) -> Risk:
    """A risk as it is kept."""
    return struct.unpack(f"<{len(packed) // 8}q", packed) if packed else NO_RISK


def bounds_of(terms: Mapping[tuple[str, str], Sequence[Terms]], holds: Iterable[Hold], now: datetime) -> Bounds:
    """Every balance that a batch may touch."""
    bounds: Bounds = {}
    for on_scope in terms.values():
        for each in on_scope:
            bounds.update(dict.fromkeys(each.counted_keys(now)))
            bounds.update(each.kept_keys(now))
    for hold in holds:
        for key in hold.keys:
            bounds.setdefault(key, None)  # its row exists
    return bounds


def kept_keys(terms: Mapping[tuple[str, str], Sequence[Terms]], now: datetime) -> set[BalanceKey]:
    """The balances without which nothing may be decided."""
    return {key for on_scope in terms.values() for each in on_scope for key in each.kept_keys(now)}


async def read_balances(connection: Any, bounds: Bounds) -> dict[BalanceKey, Balance]:
    """Balances as they are now; one that was never touched is zero."""
    found = await _select(connection, READ_BALANCES, bounds)
    return found | {key: Balance(end) for key, end in bounds.items() if end is not None and key not in found}


async def lock_balances(connection: Any, bounds: Bounds) -> dict[BalanceKey, Balance]:
    """Balances, made where they are missing, and locked in one order by everybody until the transaction ends."""
    found = await _select(connection, LOCK_BALANCES, bounds)
    missing = sorted(key for key, end in bounds.items() if end is not None and key not in found)
    if missing:
        columns = [list(column) for column in zip(*missing, strict=True)]
        await connection.execute(CREATE_BALANCES, *columns, [bounds[key] for key in missing])
        found = await _select(connection, LOCK_BALANCES, bounds)
    return found


async def _select(connection: Any, statement: str, keys: Iterable[BalanceKey]) -> dict[BalanceKey, Balance]:
    columns = [list(column) for column in zip(*sorted(keys), strict=True)]
    if not columns:
        return {}
    return {
        (row["organization"], row["budget_id"], row["period_start"]): Balance(
            period_end=row["period_end"],
            spent_usd_nanos=row["spent_usd_nanos"],
            held_usd_nanos=row["held_usd_nanos"],
            suspense_usd_nanos=row["suspense_usd_nanos"],
            spent_tokens=row["spent_tokens"],
            held_tokens=row["held_tokens"],
            suspense_tokens=row["suspense_tokens"],
            spent_requests=row["spent_requests"],
            held_requests=row["held_requests"],
            burn_usd_nanos=row["burn_usd_nanos"],
            burn_at=row["burn_at"],
            risk=risk_of(row["risk"]),
        )
        for row in await connection.fetch(statement, *columns)
    }
