"""Budgets on Postgres."""

from __future__ import annotations

import asyncpg
from farthing_core.clock import Clock
from farthing_core.scopes import Scope

from farthing_budget.budgets import Budget, Change, Draft, must_limit
from farthing_budget.refusals import BudgetExists, BudgetNotFound, RequestIdReused, VersionMismatch
from farthing_budget.store.connection import reaching
from farthing_budget.store.rows import lock_balances, read_balances, terms_of

_INSERT = """
    INSERT INTO budgets (organization, budget_id, scope, display_name, period, time_zone, limit_usd_nanos, limit_tokens, version,
        request_id, created_at, body_hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING *
"""
_BY_REQUEST = "SELECT * FROM budgets WHERE organization = $1 AND request_id = $2"
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
_CHANGING = ("display_name", "limit_usd_nanos", "limit_tokens")


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
        with reaching():
            row = await self._pool.fetchrow(_INSERT, *values, *limits, draft.request_id, draft.created_at, draft.body_hash)
            if row is None:
                row = await self._pool.fetchrow(_BY_REQUEST, terms.organization, draft.request_id)
        if row is None:
            raise BudgetExists(scope=terms.scope, period=terms.period.name.lower())
        if row["body_hash"] is not None and row["body_hash"] != draft.body_hash:
            raise RequestIdReused(request_id=draft.request_id)
        if row["deleted_at"] is not None:
            raise BudgetNotFound(budget_id=row["budget_id"])
        return (await self._with_balances([row]))[0]

    async def get(self, organization: str, budget_id: str) -> Budget:
        """A budget of this organisation."""
        with reaching():
            row = await self._pool.fetchrow(_BY_ID, organization, budget_id)
        if row is None:
            raise BudgetNotFound(budget_id=budget_id)
        return (await self._with_balances([row]))[0]

    async def list_from(self, scope: Scope, *, after: tuple[str, int] | None, count_max: int) -> list[Budget]:
        """A page of budgets."""
        from_scope, from_period = after or (None, None)
        with reaching():
            rows = await self._pool.fetch(_LIST, scope.organization, scope.path, from_scope, from_period, count_max)
        return await self._with_balances(rows)

    async def update(self, organization: str, budget_id: str, change: Change) -> Budget:
        """Changes a budget under the locks that batches take: none of them still reckons with the old limits afterwards."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                row = await connection.fetchrow(_BY_ID, organization, budget_id)
                if row is None:
                    raise BudgetNotFound(budget_id=budget_id)
                start, end = terms_of(row).bounds(self._clock.now())
                await lock_balances(connection, {(organization, budget_id, start): end})
                row = await connection.fetchrow(_BY_ID + " FOR UPDATE", organization, budget_id)
                if row is None:
                    raise BudgetNotFound(budget_id=budget_id)
                if change.version and row["version"] != change.version:
                    raise VersionMismatch(budget_id=budget_id, version=row["version"], asked=change.version)
                values = {name: getattr(change, name) if name in change.fields else row[name] for name in _CHANGING}
                must_limit(values["limit_usd_nanos"], values["limit_tokens"])
                changed = await connection.fetchrow(_UPDATE, organization, budget_id, *values.values())
        return (await self._with_balances([changed]))[0]

    async def delete(self, organization: str, budget_id: str) -> None:
        """Ends a budget; its balances stay for holds that settle later."""
        with reaching():
            deleted = await self._pool.fetchval(_DELETE, organization, budget_id, self._clock.now())
        if deleted is None:
            raise BudgetNotFound(budget_id=budget_id)

    async def _with_balances(self, rows: list[asyncpg.Record]) -> list[Budget]:
        now = self._clock.now()
        terms = [terms_of(row) for row in rows]
        bounds = {each.balance_key(now): each.bounds(now)[1] for each in terms}
        with reaching():
            balances = await read_balances(self._pool, bounds)
        return [
            Budget(each, row["version"], row["created_at"], each.bounds(now)[0], balances[each.balance_key(now)])
            for row, each in zip(rows, terms, strict=True)
        ]
