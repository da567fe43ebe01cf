"""Compared invoices on Postgres, and what comparing them takes."""

from __future__ import annotations

from datetime import datetime

import asyncpg
from farthing_core.scopes import parse_scope

from farthing_budget.causes import Cause
from farthing_budget.invoices import Invoice, Moments, Suspended
from farthing_budget.questions import UsageFilter, UsageQuestion
from farthing_budget.reconciling import Comparison, Difference, ImportKey
from farthing_budget.refusals import RequestIdReused
from farthing_budget.rollups import ROLLUPS, Grain, Piece
from farthing_budget.store.connection import reaching
from farthing_budget.store.usage import PLACES, Bound, facts_of

_FIND = "SELECT * FROM invoices WHERE organization = $1 AND request_id = $2"
_DIFFERENCES = "SELECT * FROM invoice_differences WHERE organization = $1 AND request_id = $2 ORDER BY number"
_KEEP = """
    INSERT INTO invoices (organization, request_id, scope, provider, body_hash, imported_at, billed_usd_nanos, tracked_usd_nanos,
        explained_usd_nanos)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING request_id
"""
_COLUMNS = (
    "organization request_id number model day billed_usd_nanos tracked_usd_nanos estimated_usd_nanos cause explanation explained_usd_nanos"
).split()
# The entry that moved a hold into suspense says what model it was for.
_SUSPENDED = """
    SELECT j.note AS model, (r.created_at AT TIME ZONE 'UTC')::date AS day, sum(r.amount_usd_nanos)::bigint AS amount_usd_nanos
    FROM reservations r JOIN journal j ON j.organization = r.organization AND j.at = r.changed_at AND j.request_id = r.request_id
    WHERE r.organization = $1 AND r.state = 4 AND j.kind = 7 AND (r.scope = $2 OR starts_with(r.scope, $2 || '/'))
        AND r.created_at >= $3 AND r.created_at < $4
    GROUP BY 1, 2 ORDER BY 2, 1
"""
_PARTS = {
    "u": "(input_tokens - cached_input_tokens)::numeric",
    "c": "cached_input_tokens::numeric",
    "o": "output_tokens::numeric",
}
_PARTS |= {"y": "cost_usd_nanos::numeric"}
_FINEST_DAYS = next(each for each in ROLLUPS if each.grain is Grain.DAY and "key_id" in each.dimensions)


class PostgresInvoices:
    """The InvoiceStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find(self, key: ImportKey) -> Comparison | None:
        """What this request found before."""
        with reaching():
            row = await self._pool.fetchrow(_FIND, key.organization, key.request_id)
            if row is None:
                return None
            if row["body_hash"] != key.body_hash:
                raise RequestIdReused(request_id=key.request_id)
            found = await self._pool.fetch(_DIFFERENCES, key.organization, key.request_id)
        differences = tuple(
            Difference(
                each["model"],
                each["day"],
                each["billed_usd_nanos"],
                each["tracked_usd_nanos"],
                each["estimated_usd_nanos"],
                Cause(each["cause"]),
                each["explanation"],
                each["explained_usd_nanos"],
            )
            for each in found
        )
        return Comparison(differences, row["billed_usd_nanos"], row["tracked_usd_nanos"], row["explained_usd_nanos"])

    async def keep(self, key: ImportKey, invoice: Invoice, comparison: Comparison, *, now: datetime) -> Comparison:
        """Keeps a comparison, or finds the one that this request made in the meantime."""
        place = key.organization, key.request_id
        totals = comparison.billed_usd_nanos, comparison.tracked_usd_nanos, comparison.explained_usd_nanos
        records = [
            (
                *place,
                number,
                each.model,
                each.day,
                each.billed_usd_nanos,
                each.tracked_usd_nanos,
                each.estimated_usd_nanos,
                each.cause.value,
                each.explanation,
                each.explained_usd_nanos,
            )
            for number, each in enumerate(comparison.differences)
        ]
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                about = invoice.scope, invoice.provider, key.body_hash, now
                if await connection.fetchval(_KEEP, *place, *about, *totals) is not None:
                    await connection.copy_records_to_table("invoice_differences", records=records, columns=_COLUMNS)
                    return comparison
        return await self.find(key) or comparison

    async def suspended(self, invoice: Invoice) -> list[Suspended]:
        """What is in suspense of calls in the days of an invoice."""
        scope = parse_scope(invoice.scope)
        with reaching():
            found = await self._pool.fetch(_SUSPENDED, scope.organization, scope.path, *invoice.hours)
        return [Suspended(row["model"], row["day"], row["amount_usd_nanos"]) for row in found]

    async def moments(self, invoice: Invoice) -> dict[str, Moments]:
        """What rates are worked out from, by model: of what was priced and reported, a day of a place at a time."""
        bound = Bound(parse_scope(invoice.scope).organization)
        start, end = invoice.hours
        question = UsageQuestion(invoice.scope, start, end, (), 1, only=UsageFilter(provider=invoice.provider))
        facts = facts_of(bound, Piece(_FINEST_DAYS, start, end), question.places, ", at")
        names = Moments.__slots__
        products = ", ".join(f"sum({_PARTS[name[0]]} * {_PARTS[name[1]]}) AS {name}" for name in names)
        sql = (
            f"SELECT model, {products} FROM ({facts}) AS facts{PLACES}"
            " WHERE estimated_usd_nanos = 0 AND attempts > 0 AND cost_usd_nanos > 0 GROUP BY model"
        )
        with reaching():
            found = await self._pool.fetch(sql, *bound.values)
        return {row["model"]: Moments(*(int(row[name]) for name in names)) for row in found}
