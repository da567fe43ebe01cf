"""Batches in Postgres: written down before they are sent, looked after under a lease, kept for a season when they have ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from farthing_router.store.connections import connected
from farthing_router.upstreams.batch_calls import Ended, WrittenBatch, WrittenCall

_KEPT = timedelta(days=90)
_FORGOTTEN_MAX = 1000

_OPEN = """
    INSERT INTO batches (organization, batch_id, model, deployment, provider_batch_id, created_at, expires_at, lease_until)
    VALUES ($1, $2::text::uuid, $3, $4, $5, $6, $7, $8)
"""
_OPEN_CALLS = """
    INSERT INTO batch_calls (organization, batch_id, custom_id, request_id, request_bytes)
    SELECT $1, $2::text::uuid, * FROM unnest($3::text[], $4::text[], $5::bigint[])
"""
_SUBMITTED = "UPDATE batches SET provider_batch_id = $3 WHERE organization = $1 AND batch_id = $2::text::uuid"
_RENEW = "UPDATE batches SET lease_until = $3 WHERE organization = $1 AND batch_id = $2::text::uuid AND ended_at IS NULL"
# Skipping what another replica is taking up at this moment.
_TAKE_UP = """
    UPDATE batches SET lease_until = $2
    WHERE (organization, batch_id) IN (
        SELECT organization, batch_id FROM batches WHERE ended_at IS NULL AND lease_until < $1
        ORDER BY lease_until LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    RETURNING *
"""
_CALLS = """
    SELECT custom_id, request_id, request_bytes FROM batch_calls
    WHERE organization = $1 AND batch_id = $2 AND outcome = 'waiting' ORDER BY custom_id
"""
_CLOSE_CALLS = """
    UPDATE batch_calls AS calls
    SET outcome = ended.outcome, reason = ended.reason, input_tokens = ended.input_tokens, output_tokens = ended.output_tokens,
        cost_usd_nanos = ended.cost_usd_nanos, ended_at = $9
    FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])
        AS ended (custom_id, outcome, reason, input_tokens, output_tokens, cost_usd_nanos)
    WHERE calls.organization = $1 AND calls.batch_id = $2::text::uuid AND calls.custom_id = ended.custom_id AND calls.outcome = 'waiting'
"""
_LOSE_CALLS = """
    UPDATE batch_calls SET outcome = 'lost', ended_at = $3
    WHERE organization = $1 AND batch_id = $2::text::uuid AND outcome = 'waiting'
"""
_CLOSE = "UPDATE batches SET ended_at = $3 WHERE organization = $1 AND batch_id = $2::text::uuid AND ended_at IS NULL"
_FORGET = """
    DELETE FROM batches WHERE (organization, batch_id) IN (
        SELECT organization, batch_id FROM batches WHERE ended_at < $1 ORDER BY ended_at LIMIT $2
    )
"""


class PostgresBatches:
    """The BatchStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def open(self, batch: WrittenBatch, *, lease_until: datetime) -> None:
        """Writes a batch down."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute(
                _OPEN,
                batch.organization,
                batch.batch_id,
                batch.model,
                batch.deployment,
                batch.provider_batch_id,
                batch.created_at,
                batch.expires_at,
                lease_until,
            )
            await connection.execute(
                _OPEN_CALLS,
                batch.organization,
                batch.batch_id,
                [call.custom_id for call in batch.calls],
                [call.request_id for call in batch.calls],
                [call.request_bytes for call in batch.calls],
            )

    async def submitted(self, batch: WrittenBatch, *, provider_batch_id: str) -> None:
        """Writes down how the provider calls it."""
        async with connected(self._pool) as connection:
            await connection.execute(_SUBMITTED, batch.organization, batch.batch_id, provider_batch_id)

    async def renew(self, batch: WrittenBatch, *, lease_until: datetime) -> None:
        """Says that somebody still looks after it."""
        async with connected(self._pool) as connection:
            await connection.execute(_RENEW, batch.organization, batch.batch_id, lease_until)

    async def take_up(self, *, now: datetime, lease_until: datetime, batches_max: int) -> list[WrittenBatch]:
        """Batches that nobody looks after; those that ended long ago are forgotten on the way."""
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute(_FORGET, now - _KEPT, _FORGOTTEN_MAX)
            rows = await connection.fetch(_TAKE_UP, now, lease_until, batches_max)
            return [_batch(row, await connection.fetch(_CALLS, row["organization"], row["batch_id"])) for row in rows]

    async def close(self, batch: WrittenBatch, ended: Sequence[Ended], *, now: datetime) -> None:
        """Writes down what became of its calls; of those that are not named, nobody will ever know."""
        async with connected(self._pool) as connection, connection.transaction():
            key = (batch.organization, batch.batch_id)
            await connection.execute(
                _CLOSE_CALLS,
                *key,
                [each.custom_id for each in ended],
                [_outcome(each) for each in ended],
                [each.reason for each in ended],
                [each.input_tokens for each in ended],
                [each.output_tokens for each in ended],
                [each.cost_usd_nanos for each in ended],
                now,
            )
            await connection.execute(_LOSE_CALLS, *key, now)
            await connection.execute(_CLOSE, *key, now)


def _outcome(ended: Ended) -> str:
    if ended.reason:
        return "failed"
    return "delivered" if ended.awaited else "recorded"


def _batch(row: asyncpg.Record, calls: Sequence[asyncpg.Record]) -> WrittenBatch:
    return WrittenBatch(
        organization=row["organization"],
        batch_id=str(row["batch_id"]),
        model=row["model"],
        deployment=row["deployment"],
        provider_batch_id=row["provider_batch_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        calls=tuple(WrittenCall(call["custom_id"], call["request_id"], call["request_bytes"]) for call in calls),
    )
