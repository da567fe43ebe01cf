"""Deliveries of alerts on Postgres: an outbox. A claim is a lease, so that what a process leaves behind is due again."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg
from farthing_core.clock import Clock

from farthing_budget.alerts import Channel
from farthing_budget.delivering import Due
from farthing_budget.store.alerts import DELIVERED, GIVEN_UP, PENDING, alert_of
from farthing_budget.store.connection import reaching

_CLAIM = """
    WITH due AS (
        SELECT organization, alert_id, channel_id FROM alert_deliveries WHERE state = 1 AND next_at <= $1
        ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE alert_deliveries d SET attempts = attempts + 1, next_at = $3 FROM due
        WHERE d.organization = due.organization AND d.alert_id = due.alert_id AND d.channel_id = due.channel_id
        RETURNING d.organization, d.alert_id, d.channel_id, d.attempts
    )
    SELECT a.*, claimed.channel_id, claimed.attempts, c.kind AS channel_kind, c.target, c.secret
    FROM claimed JOIN alerts a USING (organization, alert_id)
    LEFT JOIN alert_channels c ON c.organization = a.organization AND c.rule_id = a.rule_id AND c.channel_id = claimed.channel_id
"""
_END = """
    UPDATE alert_deliveries SET state = $4, error = $5, next_at = coalesce($6, next_at)
    WHERE organization = $1 AND alert_id = $2 AND channel_id = $3 AND state <> 2
"""
_ERROR_CHARACTERS_MAX = 200


class PostgresDeliveries:
    """The DeliveryStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def claim(self, *, count_max: int, lease_s: float) -> list[Due]:
        """What is due."""
        now = self._clock.now()
        with reaching():
            rows = await self._pool.fetch(_CLAIM, now, count_max, now + timedelta(seconds=lease_s))
        return [
            Due(
                alert=alert_of(row),
                channel_id=row["channel_id"],
                channel=Channel(row["channel_kind"], row["target"], row["secret"]) if row["channel_kind"] else None,
                attempts=row["attempts"],
            )
            for row in rows
        ]

    async def delivered(self, due: Due) -> None:
        """It arrived, whatever another attempt came to."""
        await self._end(due, DELIVERED, "", None)

    async def failed(self, due: Due, error: str, *, next_at: datetime | None) -> None:
        """It did not arrive."""
        await self._end(due, PENDING if next_at else GIVEN_UP, error[:_ERROR_CHARACTERS_MAX], next_at)

    async def _end(self, due: Due, state: int, error: str, next_at: datetime | None) -> None:
        place = due.alert.organization, due.alert.alert_id, due.channel_id
        with reaching():
            await self._pool.execute(_END, *place, state, error, next_at)
