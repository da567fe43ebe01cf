"""Leases on flights in Postgres, for replicas without a Redis. What is asked at the same time shares a statement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from farthing_runtime.batching import Batcher, QueueFull
from farthing_runtime.postgres import unreachable_errors

from farthing_cache.answers.leases import Place, Standing
from farthing_cache.store import StoreUnavailable

_BATCH_MAX = 256
_QUEUE_MAX = 10_000
_LANDED_S = 5.0
"""How long those who wait can learn of an answer: many times as long as they take to ask."""
# A lease and, for some seconds, an answer are all there is: the tables are not logged, so that leading waits for no disk.
_LEAD = """
    WITH wanted AS (
        SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::float8[]) AS w (organization, key, flight_id, lease_s)
    ), led AS (
        INSERT INTO flights AS f (organization, key, flight_id, expires_at)
        SELECT organization, key, flight_id, clock_timestamp() + make_interval(secs => lease_s) FROM wanted ORDER BY organization, key
        ON CONFLICT (organization, key) DO UPDATE SET flight_id = excluded.flight_id, expires_at = excluded.expires_at
            WHERE f.expires_at <= clock_timestamp() OR f.flight_id = excluded.flight_id
        RETURNING organization, key, flight_id
    )
    SELECT organization, key, flight_id FROM led
"""
_LEADERS = """
    SELECT f.organization, f.key, f.flight_id, extract(epoch FROM f.expires_at - clock_timestamp())::float8 AS left_s
    FROM unnest($1::text[], $2::bytea[]) AS w (organization, key) JOIN flights f USING (organization, key)
"""
_LANDED = """
    SELECT l.organization, l.flight_id, l.answer
    FROM unnest($1::text[], $2::text[]) AS w (organization, flight_id) JOIN landings l USING (organization, flight_id)
    WHERE l.expires_at > clock_timestamp()
"""
_KEEP = """
    UPDATE flights SET expires_at = clock_timestamp() + make_interval(secs => $4)
    WHERE organization = $1 AND key = $2 AND flight_id = $3
"""
_LAND = """
    WITH told AS (
        INSERT INTO landings (organization, flight_id, answer, expires_at)
        SELECT organization, flight_id, answer, clock_timestamp() + make_interval(secs => $5)
        FROM unnest($1::text[], $3::text[], $4::bytea[]) AS n (organization, flight_id, answer) WHERE answer IS NOT NULL
        ON CONFLICT (organization, flight_id) DO NOTHING
    ), ended AS (
        SELECT organization, key FROM flights
        WHERE (organization, key, flight_id) IN (SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[]))
        ORDER BY organization, key FOR UPDATE
    )
    DELETE FROM flights f USING ended e WHERE (f.organization, f.key) = (e.organization, e.key)
"""
_SWEEP = (
    "DELETE FROM flights WHERE expires_at <= clock_timestamp() - interval '1 minute'",
    "DELETE FROM landings WHERE expires_at <= clock_timestamp()",
)


@dataclass(frozen=True, slots=True)
class _Wish:
    place: Place
    flight_id: str
    behind: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class _Landing:
    place: Place
    flight_id: str
    answer: bytes | None


class PostgresLeases:
    """The Leases of replicas that share nothing but a database. Its clock is the database's."""

    shared = True

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._wishes: Batcher[_Wish, Standing] = Batcher(self._lead, batch_size_max=_BATCH_MAX, queue_size_max=_QUEUE_MAX)
        self._landings: Batcher[_Landing, None] = Batcher(self._land, batch_size_max=_BATCH_MAX, queue_size_max=_QUEUE_MAX)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PostgresLeases]:
        """Until the block ends; what waits then is done first."""
        async with self._wishes.running(), self._landings.running():
            yield self

    async def lead(self, place: Place, flight_id: str, *, behind: str, lease_s: float) -> Standing:
        """Leads where nobody does."""
        try:
            return await self._wishes.submit(_Wish(place, flight_id, behind, lease_s))
        except QueueFull as error:
            raise StoreUnavailable from error

    async def keep(self, place: Place, flight_id: str, *, lease_s: float) -> bool:
        """Renews a lease."""
        async with _reaching():
            done = await self._pool.execute(_KEEP, *place, flight_id, lease_s)
        return bool(done == "UPDATE 1")

    async def land(self, place: Place, flight_id: str, answer: bytes | None) -> None:
        """Ends a flight."""
        try:
            await self._landings.submit(_Landing(place, flight_id, answer))
        except QueueFull as error:
            raise StoreUnavailable from error

    async def sweep(self) -> None:
        """Forgets leases and answers that have expired. Raises StoreUnavailable."""
        async with _reaching():
            for statement in _SWEEP:
                await self._pool.execute(statement)

    async def _lead(self, wishes: Sequence[_Wish]) -> list[Standing]:
        async with _reaching(), self._pool.acquire() as connection:
            landed = await self._landed(connection, [wish for wish in wishes if wish.behind])
            first = {wish.place: wish for wish in wishes if (wish.place[0], wish.behind) not in landed}
            columns = zip(*[(*wish.place, wish.flight_id, wish.lease_s) for wish in first.values()], strict=True)
            rows = await connection.fetch(_LEAD, *map(list, columns)) if first else []
            standing = {
                (row["organization"], row["key"]): Standing(row["flight_id"], first[row["organization"], row["key"]].lease_s)
                for row in rows
            }
            others = [place for place in first if place not in standing]
            if others:
                rows = await connection.fetch(_LEADERS, [place[0] for place in others], [place[1] for place in others])
                standing |= {
                    (row["organization"], row["key"]): Standing(row["flight_id"], max(0.0, row["left_s"])) for row in rows
                }
        return [
            landed.get((wish.place[0], wish.behind)) or standing.get(wish.place) or Standing(wish.behind, 0.0)
            for wish in wishes
        ]

    async def _landed(self, connection: asyncpg.Connection, waiting: list[_Wish]) -> dict[tuple[str, str], Standing]:
        if not waiting:
            return {}
        rows = await connection.fetch(_LANDED, [wish.place[0] for wish in waiting], [wish.behind for wish in waiting])
        return {(row["organization"], row["flight_id"]): Standing(row["flight_id"], 0.0, row["answer"]) for row in rows}

    async def _land(self, landings: Sequence[_Landing]) -> list[None]:
        distinct = {(each.place, each.flight_id): each for each in landings}.values()
        columns = zip(*[(*each.place, each.flight_id, each.answer) for each in distinct], strict=True)
        async with _reaching():
            await self._pool.execute(_LAND, *map(list, columns), _LANDED_S)
        return [None] * len(landings)


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    try:
        yield
    except unreachable_errors() as error:
        raise StoreUnavailable from error
