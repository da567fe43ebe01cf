"""Budgets on Postgres."""

from __future__ import annotations

from datetime import datetime

import asyncpg
from farthing_core.clock import Clock
from farthing_core.scopes import Scope
from farthing_runtime.postgres import unreachable_errors

from farthing_budget.budgets import (
    Budget,
    BudgetExists,
    BudgetNotFound,
    Change,
    Draft,
    StoreUnavailable,
    VersionMismatch,
    must_limit,
)
from farthing_budget.ledger import Balance
from farthing_budget.periods import period_bounds
from farthing_budget.store.postgres import terms_of

_INSERT = """
    INSERT INTO budgets (organization, budget_id, scope, display_name, period, time_zone, limit_usd_nanos, limit_tokens, version,
        request_id, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $10) ON CONFLICT DO NOTHING RETURNING *
"""
_BY_REQUEST = "SELECT * FROM budgets WHERE organization = $1 AND request_id = $2 AND deleted_at IS NULL"
_BY_ID = "SELECT * FROM budgets WHERE organization = $1 AND budget_id = $2 AND deleted_at IS NULL"
_LIST = """
    SELECT * FROM budgets WHERE organization = $1 AND deleted_at IS NULL AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND ($3::text IS NULL OR (scope, period) > ($3, $4)) ORDER BY scope, period LIMIT $5
"""
_UPDATE = """
    UPDATE budgets SET display_name = $3, limit_usd_nanos = $4, limit_tokens = $5, version = version + 1
    WHERE organization = $1 AND budget_id = $2 RETURNING *
"""
_DELETE = (
    "UPDATE budgets SET deleted_at = $3 WHERE organization = $1 AND budget_id = $2 AND deleted_at IS NULL RETURNING budget_id"
)
_BALANCES = """
    SELECT b.* FROM balances b JOIN unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (organization, budget_id, period_start)
        USING (organization, budget_id, period_start)
"""


class PostgresBudgets:
    """The BudgetStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def create(self, draft: Draft) -> Budget:
        """Makes a budget, or finds the one that this request made before."""
        terms = draft.terms
        values = (terms.organization, terms.budget_id, terms.scope, terms.display_name, int(terms.period), terms.time_zone)
        limits = (terms.limit_usd_nanos, terms.limit_tokens)
        try:
            row = await self._pool.fetchrow(_INSERT, *values, *limits, draft.request_id, draft.created_at)
            if row is None:
                row = await self._pool.fetchrow(_BY_REQUEST, terms.organization, draft.request_id)
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        if row is None or (row["scope"], row["period"]) != (terms.scope, int(terms.period)):
            raise BudgetExists(scope=terms.scope, period=terms.period)
        return (await self._with_balances([row]))[0]

    async def get(self, organization: str, budget_id: str) -> Budget:
        """A budget of this organisation."""
        try:
            row = await self._pool.fetchrow(_BY_ID, organization, budget_id)
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        if row is None:
            raise BudgetNotFound(budget_id=budget_id)
        return (await self._with_balances([row]))[0]

    async def list_from(self, scope: Scope, *, after: tuple[str, int] | None, count_max: int) -> list[Budget]:
        """A page of budgets."""
        from_scope, from_period = after or (None, None)
        try:
            rows = await self._pool.fetch(_LIST, scope.organization, scope.path, from_scope, from_period, count_max)
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        return await self._with_balances(rows)

    async def update(self, organization: str, budget_id: str, change: Change) -> Budget:
        """Changes a budget under a lock, so that a version is never skipped."""
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(_BY_ID + " FOR UPDATE", organization, budget_id)
                if row is None:
                    raise BudgetNotFound(budget_id=budget_id)
                if change.version and row["version"] != change.version:
                    raise VersionMismatch(budget_id=budget_id, version=row["version"], asked=change.version)
                values = {name: getattr(change, name) if name in change.fields else row[name] for name in _CHANGING}
                must_limit(values["limit_usd_nanos"], values["limit_tokens"])
                changed = await connection.fetchrow(_UPDATE, organization, budget_id, *values.values())
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        return (await self._with_balances([changed]))[0]

    async def delete(self, organization: str, budget_id: str) -> None:
        """Ends a budget; its balances stay for holds that settle later."""
        try:
            if await self._pool.fetchval(_DELETE, organization, budget_id, self._clock.now()) is None:
                raise BudgetNotFound(budget_id=budget_id)
        except unreachable_errors() as error:
            raise StoreUnavailable from error

    async def _with_balances(self, rows: list[asyncpg.Record]) -> list[Budget]:
        now = self._clock.now()
        terms = [terms_of(row) for row in rows]
        bounds = [period_bounds(each.period, each.time_zone, now) for each in terms]
        columns = [each.organization for each in terms], [each.budget_id for each in terms], [start for start, _ in bounds]
        try:
            found = {row["budget_id"]: row for row in await self._pool.fetch(_BALANCES, *columns)}
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        return [
            Budget(each, row["version"], row["created_at"], start, _balance(found.get(each.budget_id), end))
            for row, each, (start, end) in zip(rows, terms, bounds, strict=True)
        ]


_CHANGING = ("display_name", "limit_usd_nanos", "limit_tokens")


def _balance(row: asyncpg.Record | None, period_end: datetime) -> Balance:
    if row is None:
        return Balance(period_end)
    return Balance(period_end, row["spent_usd_nanos"], row["held_usd_nanos"], row["spent_tokens"], row["held_tokens"])
