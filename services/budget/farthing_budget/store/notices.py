"""Notices as the ledger's batches write them: in the transaction of what they are about."""

from __future__ import annotations

from typing import Any

import asyncpg

from farthing_budget.alerts import AlertKind
from farthing_budget.events import Notice

# How often a budget was reset is counted under the locks of its balances, which a reset takes too.
_WRITE = """
    INSERT INTO alert_notices (organization, kind, at, scope, detail, amount, incidents, budget_id, period_start, window_s, unit,
        limit_amount, percent_before, percent, resets)
    SELECT n.*, CASE WHEN n.budget_id = '' THEN 0 ELSE (
        SELECT count(*) FROM journal j JOIN charge_sets c USING (organization, charges_number)
        WHERE j.organization = n.organization AND j.kind = 10
            AND strpos(E'\\n' || c.charges, E'\\n' || n.budget_id || '@') > 0) END
    FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
        $9::timestamptz[], $10::bigint[], $11::smallint[], $12::bigint[], $13::smallint[], $14::smallint[])
        AS n (organization, kind, at, scope, detail, amount, incidents, budget_id, period_start, window_s, unit, limit_amount,
            percent_before, percent)
"""


async def write_notices(connection: asyncpg.Connection, notices: list[Notice]) -> None:
    """Writes what may call for an alert."""
    rows = [
        (
            each.organization,
            int(each.kind),
            each.at,
            each.scope,
            each.detail,
            each.amount,
            each.incidents,
            each.budget_id,
            each.period_start,
            each.window_s,
            each.unit,
            each.limit,
            each.percent_before,
            each.percent,
        )
        for each in notices
    ]
    await connection.execute(_WRITE, *map(list, zip(*rows, strict=True)))


def notice_of(row: Any) -> Notice:
    """A notice as its row has it."""
    return Notice(
        kind=AlertKind(row["kind"]),
        organization=row["organization"],
        scope=row["scope"],
        at=row["at"],
        detail=row["detail"],
        amount=row["amount"],
        incidents=row["incidents"],
        budget_id=row["budget_id"],
        period_start=row["period_start"],
        window_s=row["window_s"],
        resets=row["resets"],
        unit=row["unit"],
        limit=row["limit_amount"],
        percent_before=row["percent_before"],
        percent=row["percent"],
    )
