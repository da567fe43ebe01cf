"""Budgets on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg
from farthing_core.clock import Clock
from farthing_core.scopes import Scope

from farthing_budget.budgets import Budget, Change, Draft, LimitTerms, Terms, total
from farthing_budget.refusals import BudgetExists, BudgetNotFound, RequestIdReused, VersionMismatch
from farthing_budget.store.connection import SHORT_OF_PATIENCE, reaching
from farthing_budget.store.rows import Bounds, bounds_of, lock_balances, read_balances, terms_of
from farthing_budget.store.statements import TERMS

_INSERT = """
    INSERT INTO budgets (organization, budget_id, scope, display_name, period, time_zone, limit_usd_nanos, limit_tokens, limit_requests,
        selector_kind, selector_name, start_month, start_day, window_s, soft_percent, critical_percent, on_exhaustion, measure,
        hold_worst_case, version, request_id, created_at, body_hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 1, $20, $21, $22)
    ON CONFLICT DO NOTHING RETURNING *
"""
_BY_REQUEST = "SELECT * FROM budgets WHERE organization = $1 AND request_id = $2"
_BY_ID = "SELECT * FROM budgets WHERE organization = $1 AND budget_id = $2 AND deleted_at IS NULL"
_LIST = """
    SELECT * FROM budgets WHERE organization = $1 AND deleted_at IS NULL AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND ($3::text IS NULL OR (scope, period, budget_id) > ($3, $4, $5)) ORDER BY scope, period, budget_id LIMIT $6
"""
_ON_PATH = """
    SELECT * FROM budgets WHERE organization = $1 AND scope = ANY($2::text[]) AND deleted_at IS NULL
    ORDER BY scope, period, budget_id LIMIT 1000
"""
_UPDATE = """
    UPDATE budgets SET display_name = $3, limit_usd_nanos = $4, limit_tokens = $5, limit_requests = $6, soft_percent = $7,
        critical_percent = $8, on_exhaustion = $9, measure = $10, hold_worst_case = $11, version = version + 1
    WHERE organization = $1 AND budget_id = $2 RETURNING *
"""
_DELETE = (
    "UPDATE budgets SET deleted_at = $3 WHERE organization = $1 AND budget_id = $2 AND deleted_at IS NULL RETURNING budget_id"
)
_CLOCKS_DIFFER = timedelta(seconds=2)


class PostgresBudgets:
    """The BudgetStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def create(self, draft: Draft) -> Budget:
        """Makes a budget, or finds the one that this request made before."""
        terms, period = draft.terms, draft.terms.period_terms
        with reaching():
            row = await self._pool.fetchrow(
                _INSERT,
                terms.organization,
                terms.budget_id,
                terms.scope,
                terms.display_name,
                int(period.period),
                period.time_zone,
                terms.limits.usd_nanos,
                terms.limits.tokens,
                terms.limits.requests,
                terms.selector.kind if terms.selector else "",
                terms.selector.name if terms.selector else "",
                period.start_month,
                period.start_day,
                period.window_s,
                *_limit_terms(terms.limit_terms),
                draft.request_id,
                draft.created_at,
                draft.body_hash,
            )
            if row is None:
                row = await self._pool.fetchrow(_BY_REQUEST, terms.organization, draft.request_id)
        if row is None:
            raise BudgetExists(scope=terms.scope, period=period.period.name.lower())
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

    async def list_from(self, scope: Scope, *, after: tuple[str, int, str] | None, count_max: int) -> list[Budget]:
        """A page of budgets."""
        with reaching():
            rows = await self._pool.fetch(_LIST, scope.organization, scope.path, *(after or (None, None, None)), count_max)
        return await self._with_balances(rows)

    async def on_path(self, scope: Scope) -> list[Budget]:
        """The budgets of a scope and its ancestors."""
        with reaching():
            rows = await self._pool.fetch(_ON_PATH, scope.organization, list(scope.ancestors))
        return await self._with_balances(rows)

    async def terms_of(self, organization: str, scopes: Sequence[str]) -> list[Terms]:
        """The terms of every budget on these very scopes."""
        with reaching():
            return [terms_of(row) for row in await self._pool.fetch(TERMS, [organization], list(scopes))]

    async def update(self, organization: str, budget_id: str, change: Change) -> Budget:
        """Changes a budget under the locks that batches take: none of them still reckons with the old limits afterwards."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                await connection.execute(SHORT_OF_PATIENCE)
                row = await connection.fetchrow(_BY_ID, organization, budget_id)
                if row is None:
                    raise BudgetNotFound(budget_id=budget_id)
                await lock_balances(connection, _around(terms_of(row), self._clock.now()))
                row = await connection.fetchrow(_BY_ID + " FOR UPDATE", organization, budget_id)
                if row is None:
                    raise BudgetNotFound(budget_id=budget_id)
                if change.version and row["version"] != change.version:
                    raise VersionMismatch(budget_id=budget_id, version=row["version"], asked=change.version)
                name, limits, limit_terms = change.of(terms_of(row))
                changed = await connection.fetchrow(
                    _UPDATE,
                    organization,
                    budget_id,
                    name,
                    limits.usd_nanos,
                    limits.tokens,
                    limits.requests,
                    *_limit_terms(limit_terms),
                )
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
        bounds = bounds_of({("", ""): terms}, (), now)
        with reaching():
            balances = await read_balances(self._pool, bounds)
        found = []
        for row, each in zip(rows, terms, strict=True):
            counted = [balances[key] for key in each.counted_keys(now) if key in balances]
            start = each.counted_keys(now)[0][2] if each.rolling else each.bounds(now)[0]
            found.append(Budget(each, row["version"], row["created_at"], start, total(counted), counted))
        return found


def _around(terms: Terms, now: datetime) -> Bounds:
    """The balances of a budget that anybody may be charged to at this moment: where a period ends, clocks do not agree on which it is."""
    moments = (now - _CLOCKS_DIFFER, now, now + _CLOCKS_DIFFER)
    return {key: end for moment in moments for key, end in bounds_of({("", ""): [terms]}, (), moment).items()}


def _limit_terms(terms: LimitTerms) -> tuple[int, int, int, int, bool]:
    return terms.soft_percent, terms.critical_percent, int(terms.on_exhaustion), int(terms.measure), terms.hold_worst_case
