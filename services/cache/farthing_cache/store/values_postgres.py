"""How entries are used and what they take, on Postgres. Sums are added up in the background from what every change left behind."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from farthing_cache.answers.rooms import Room
from farthing_cache.answers.valuing import Evicted, RoomFigures, Use
from farthing_cache.store.postgres import reaching

_CHANGES_MAX = 10_000
_LATELY_S = 60
_ADD_USES = """
    UPDATE uses u SET hits = u.hits + n.hits, saved_usd_nanos = u.saved_usd_nanos + n.saved_usd_nanos,
        hit_at = greatest(u.hit_at, n.hit_at),
        rank = greatest(u.rank, u.density + n.gain)
            + ln(1 + power(2::float8, -least(abs(u.rank - u.density - n.gain), 1000))) / ln(2::float8)
    FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::float8[])
        AS n (organization, key, hits, saved_usd_nanos, hit_at, gain)
    WHERE (u.organization, u.key) = (n.organization, n.key) AND (u.organization, u.key) IN (
        SELECT h.organization, h.key FROM uses h JOIN unnest($1::text[], $2::bytea[]) AS w (organization, key) USING (organization, key)
        FOR UPDATE OF h SKIP LOCKED)
"""
_ADD_UP = """
    WITH taken AS (
        DELETE FROM room_changes WHERE (organization, number) IN (
            SELECT organization, number FROM room_changes WHERE $2 = '' OR organization = $2 ORDER BY number LIMIT $1
            FOR UPDATE SKIP LOCKED)
        RETURNING organization, entries, payload_bytes
    )
    INSERT INTO rooms AS r (organization, entries, payload_bytes)
    SELECT organization, sum(entries), sum(payload_bytes) FROM taken GROUP BY organization ORDER BY organization
    ON CONFLICT (organization) DO UPDATE SET entries = r.entries + excluded.entries,
        payload_bytes = r.payload_bytes + excluded.payload_bytes, changed_at = now()
"""
_LATELY = "SELECT organization, entries, payload_bytes FROM rooms WHERE changed_at > now() - make_interval(secs => $1)"
_EVICT = """
    WITH lowest AS (
        SELECT key, rank, row_number() OVER upwards AS number, sum(payload_bytes) OVER upwards - payload_bytes AS before
        FROM (SELECT key, rank, payload_bytes FROM uses WHERE organization = $1 ORDER BY rank LIMIT $4) AS l
        WINDOW upwards AS (ORDER BY rank, key ROWS UNBOUNDED PRECEDING)
    ), held AS (
        SELECT e.key, l.rank FROM entries e JOIN lowest l ON e.key = l.key
        WHERE e.organization = $1 AND (l.number <= $2 OR l.before < $3) FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
        DELETE FROM entries e USING held h WHERE e.organization = $1 AND e.key = h.key RETURNING h.rank
    )
    UPDATE rooms SET evicted = evicted + (SELECT count(*) FROM gone) WHERE organization = $1
    RETURNING (SELECT count(*) FROM gone), (SELECT max(rank) FROM gone)
"""
_NOT_ADMITTED = """
    INSERT INTO rooms AS r (organization, not_admitted) SELECT * FROM unnest($1::text[], $2::bigint[])
    ON CONFLICT (organization) DO UPDATE SET not_admitted = r.not_admitted + excluded.not_admitted
"""


class PostgresValues:
    """The Values."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add_uses(self, uses: Sequence[Use]) -> int:
        """Adds to the uses of entries that nobody changes at this moment."""
        rows = [(use.organization, use.key, use.hits, use.saved_usd_nanos, use.hit_at, use.gain) for use in uses]
        async with reaching():
            done = await self._pool.execute(_ADD_USES, *[list(column) for column in zip(*rows, strict=True)])
        return int(done.split()[-1])

    async def changed_rooms(self) -> dict[str, Room]:
        """Adds up what has changed, as far as no other replica is at it."""
        async with reaching():
            await self._pool.execute(_ADD_UP, _CHANGES_MAX, "")
            rows = await self._pool.fetch(_LATELY, _LATELY_S)
        return {row["organization"]: Room(row["entries"], row["payload_bytes"]) for row in rows}

    async def evict(self, organization: str, *, down_to: Room, count_max: int) -> Evicted | None:
        """Forgets the lowest ranked entries; one replica at a time, by what is left then."""
        async with reaching(), self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(
                "SELECT pg_try_advisory_xact_lock(hashtext('cache room'), hashtext($1))", organization
            ):
                return None
            await connection.execute(_ADD_UP, _CHANGES_MAX, organization)
            room = await connection.fetchrow("SELECT entries, payload_bytes FROM rooms WHERE organization = $1", organization)
            if room is None or (room["entries"] <= down_to.entries and room["payload_bytes"] <= down_to.payload_bytes):
                return Evicted(0, 0.0)
            excess = room["entries"] - down_to.entries, room["payload_bytes"] - down_to.payload_bytes
            count, rank_max = await connection.fetchrow(_EVICT, organization, *excess, count_max)
        return Evicted(count, rank_max or 0.0)

    async def add_not_admitted(self, counts: dict[str, int]) -> None:
        """Adds to the answers that were not worth keeping."""
        names = sorted(counts)
        async with reaching():
            await self._pool.execute(_NOT_ADMITTED, names, [counts[name] for name in names])

    async def figures(self, organization: str) -> RoomFigures:
        """How an organisation's room stands, as last added up."""
        async with reaching():
            row = await self._pool.fetchrow(
                "SELECT entries, payload_bytes, evicted, not_admitted FROM rooms WHERE organization = $1", organization
            )
        return RoomFigures(Room(row[0], row[1]), row[2], row[3]) if row else RoomFigures(Room(0, 0), 0, 0)
