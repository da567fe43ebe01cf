"""Rate limits on Postgres."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
from farthing_core.clock import Clock
from farthing_core.scopes import Scope

from farthing_budget.rate_limits import (
    LIMITS_MAX,
    RateLimit,
    RateLimitDraft,
    RateLimitExists,
    RateLimitNotFound,
    RateLimitsTooMany,
)
from farthing_budget.refusals import RequestIdReused
from farthing_budget.store.connection import reaching

_INSERT = """
    INSERT INTO rate_limits (organization, rate_limit_id, scope, model, requests_per_minute, tokens_per_minute, concurrent_requests,
        burst_s, request_id, body_hash, created_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
    WHERE (SELECT count(*) FROM rate_limits WHERE organization = $1 AND deleted_at IS NULL) < $12
    ON CONFLICT DO NOTHING RETURNING *
"""
_BY_REQUEST = "SELECT * FROM rate_limits WHERE organization = $1 AND request_id = $2"
_BY_PLACE = "SELECT 1 FROM rate_limits WHERE organization = $1 AND scope = $2 AND model = $3 AND deleted_at IS NULL"
_LIST = """
    SELECT * FROM rate_limits WHERE organization = $1 AND deleted_at IS NULL AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND ($3::text IS NULL OR (scope, model) > ($3, $4)) ORDER BY scope, model LIMIT $5
"""
_DELETE = """
    UPDATE rate_limits SET deleted_at = $3 WHERE organization = $1 AND rate_limit_id = $2 AND deleted_at IS NULL
    RETURNING rate_limit_id
"""
# One statement, so that the limits and their epoch are of one moment.
_OF_ORGANIZATION = """
    SELECT coalesce(e.epoch, 0) AS epoch, l.* FROM (SELECT $1::text AS organization) AS asked
    LEFT JOIN rate_limit_epochs e ON e.organization = asked.organization
    LEFT JOIN rate_limits l ON l.organization = asked.organization AND l.deleted_at IS NULL
    LIMIT $2
"""
_LAST = "SELECT coalesce(max(epoch), 0) FROM rate_limit_epochs"
_CHANGED = "SELECT organization, epoch FROM rate_limit_epochs WHERE epoch > $1 ORDER BY epoch LIMIT $2"


class PostgresRateLimits:
    """The RateLimitStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def create(self, draft: RateLimitDraft) -> RateLimit:
        """Makes a rate limit, or finds the one that this request made before."""
        limit = draft.limit
        with reaching():
            row = await self._pool.fetchrow(
                _INSERT,
                limit.organization,
                limit.rate_limit_id,
                limit.scope,
                limit.model,
                limit.requests_per_minute,
                limit.tokens_per_minute,
                limit.concurrent_requests,
                limit.burst_s,
                draft.request_id,
                draft.body_hash,
                draft.created_at,
                LIMITS_MAX,
            )
            if row is None:
                row = await self._pool.fetchrow(_BY_REQUEST, limit.organization, draft.request_id)
            taken = row is None and await self._pool.fetchval(_BY_PLACE, limit.organization, limit.scope, limit.model)
        if row is None:
            if taken:
                raise RateLimitExists(scope=limit.scope, model=limit.model)
            raise RateLimitsTooMany(organization=limit.organization)
        if row["body_hash"] != draft.body_hash:
            raise RequestIdReused(request_id=draft.request_id)
        if row["deleted_at"] is not None:
            raise RateLimitNotFound(rate_limit_id=row["rate_limit_id"])
        return _limit(row)

    async def list_from(self, scope: Scope, *, after: tuple[str, str] | None, count_max: int) -> list[RateLimit]:
        """A page of rate limits."""
        with reaching():
            rows = await self._pool.fetch(_LIST, scope.organization, scope.path, *(after or (None, None)), count_max)
        return [_limit(row) for row in rows]

    async def delete(self, organization: str, rate_limit_id: str) -> None:
        """Ends a rate limit."""
        with reaching():
            deleted = await self._pool.fetchval(_DELETE, organization, rate_limit_id, self._clock.now())
        if deleted is None:
            raise RateLimitNotFound(rate_limit_id=rate_limit_id)

    async def limits_of(self, organization: str) -> tuple[int, Sequence[RateLimit]]:
        """All rate limits of an organisation, and the epoch of its last change."""
        with reaching():
            rows = await self._pool.fetch(_OF_ORGANIZATION, organization, LIMITS_MAX)
        return rows[0]["epoch"], [_limit(row) for row in rows if row["rate_limit_id"] is not None]

    async def last_epoch(self) -> int:
        """The epoch of the last change."""
        with reaching():
            epoch: int = await self._pool.fetchval(_LAST)
        return epoch

    async def changed_since(self, epoch: int, *, count_max: int) -> Sequence[tuple[str, int]]:
        """Organisations whose limits changed, in order."""
        with reaching():
            rows = await self._pool.fetch(_CHANGED, epoch, count_max)
        return [(row["organization"], row["epoch"]) for row in rows]


def _limit(row: asyncpg.Record) -> RateLimit:
    return RateLimit(
        organization=row["organization"],
        rate_limit_id=row["rate_limit_id"],
        scope=row["scope"],
        model=row["model"],
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        concurrent_requests=row["concurrent_requests"],
        burst_s=row["burst_s"],
    )
