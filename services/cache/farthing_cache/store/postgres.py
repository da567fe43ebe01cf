"""Entries on Postgres with pgvector."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import numpy as np
from farthing_core.clock import Clock
from farthing_runtime.postgres import unreachable_errors

from farthing_cache.store import Counts, Filter, Hot, Neighbour, Seen, Stored, StoreUnavailable, Wanted
from farthing_cache.store.models import ModelIndexes, literal

_ANALYZE_ROWS = 300
CHANNEL = "farthing_cache"
"""Where invalidations are announced: the payload is the organisation."""
_FIND = """
    SELECT w.number, e.payload, e.expires_at,
        w.partition IS NOT NULL AND EXISTS (
            SELECT 1 FROM entries p WHERE p.organization = w.organization AND p.partition = w.partition AND p.embedding IS NOT NULL
        ) AS comparable
    FROM unnest($1::int[], $2::text[], $3::bytea[], $4::bytea[]) AS w (number, organization, key, partition)
    LEFT JOIN entries e ON e.organization = w.organization AND e.key = w.key AND e.expires_at > $5
"""
_NEAR = """
    SELECT key, question, halfvec_send(embedding) AS embedding, payload, reading FROM entries
    WHERE organization = $1 AND partition = $2 AND embedder = {embedder} AND embedding IS NOT NULL AND expires_at > $3
    ORDER BY embedding::halfvec({dimensions}) <=> $4::real[]::halfvec({dimensions}) LIMIT $5
"""
_PUT = """
    WITH n AS MATERIALIZED (
        SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::text[],
            $10::timestamptz[], $11::timestamptz[], $12::bytea[], $13::text[], $14::timestamptz[], $15::bigint[], $16::float8[],
            $17::float8[])
        AS n (organization, key, partition, scope, model, tags, payload, question, embedding, created_at, expires_at, reading, embedder,
            stale_at, cost_usd_nanos, density, rank)
    ), put AS (
        INSERT INTO entries (organization, key, partition, scope, model, tags, payload, question, embedding, created_at, expires_at,
            reading, embedder, stale_at, cost_usd_nanos, payload_bytes)
        SELECT organization, key, partition, scope, model, string_to_array(tags, chr(31)), payload, question, embedding::halfvec,
            created_at, expires_at, reading, embedder, stale_at, cost_usd_nanos, length(payload) FROM n
        ON CONFLICT (organization, key) DO UPDATE SET scope = excluded.scope, model = excluded.model, tags = excluded.tags,
            payload = excluded.payload, question = excluded.question, embedding = excluded.embedding, created_at = excluded.created_at,
            expires_at = excluded.expires_at, reading = excluded.reading, embedder = excluded.embedder, stale_at = excluded.stale_at,
            cost_usd_nanos = excluded.cost_usd_nanos, payload_bytes = excluded.payload_bytes
        RETURNING organization, key, payload_bytes
    )
    INSERT INTO uses AS u (organization, key, payload_bytes, density, rank)
    SELECT put.organization, put.key, put.payload_bytes, n.density, n.rank FROM put JOIN n USING (organization, key)
    ON CONFLICT (organization, key) DO UPDATE SET payload_bytes = excluded.payload_bytes, density = excluded.density,
        rank = greatest(u.rank, excluded.rank)
"""
_CHOSEN = """
    FROM entries WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND (cardinality($3::bytea[]) = 0 OR key = ANY($3)) AND (cardinality($4::text[]) = 0 OR tags && $4) AND ($5 = '' OR model = $5)
"""
_ADD_COUNTS = """
    INSERT INTO lookups AS l (organization, scope, hits_exact, hits_semantic, misses, avoided_usd_nanos)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
    ON CONFLICT (organization, scope) DO UPDATE SET hits_exact = l.hits_exact + excluded.hits_exact,
        hits_semantic = l.hits_semantic + excluded.hits_semantic, misses = l.misses + excluded.misses,
        avoided_usd_nanos = l.avoided_usd_nanos + excluded.avoided_usd_nanos
"""
_COUNTS = """
    SELECT coalesce(sum(hits_exact), 0)::bigint, coalesce(sum(hits_semantic), 0)::bigint, coalesce(sum(misses), 0)::bigint,
        coalesce(sum(avoided_usd_nanos), 0)::bigint
    FROM lookups WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/'))
"""
_SWEEP = """
    DELETE FROM entries WHERE (organization, key) IN (
        SELECT organization, key FROM entries WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


_ORGANIZATIONS = """
    WITH RECURSIVE found (name, number) AS (
        (SELECT organization, 1 FROM entries WHERE organization > $1 ORDER BY organization LIMIT 1)
        UNION ALL
        SELECT (SELECT organization FROM entries WHERE organization > found.name ORDER BY organization LIMIT 1), found.number + 1
        FROM found WHERE found.name IS NOT NULL AND found.number < $2
    )
    SELECT name FROM found WHERE name IS NOT NULL
"""
_DROP_UNREADABLE = """
    DELETE FROM entries WHERE (organization, key) IN (
        SELECT organization, key FROM entries WHERE organization = $1 AND substring(payload FROM 1 FOR 5) <> ALL ($2::bytea[])
        LIMIT $3 FOR UPDATE SKIP LOCKED)
"""


class PostgresEntries:
    """The EntryStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._indexes = ModelIndexes(pool)
        self._added = 0
        self._analyzed = 0

    async def find(self, wanted: Sequence[Wanted]) -> list[Seen]:
        """Exact look-ups, many in one query."""
        numbers = list(range(len(wanted)))
        columns = [each.organization for each in wanted], [each.key for each in wanted], [each.partition for each in wanted]
        async with reaching():
            rows = await self._pool.fetch(_FIND, numbers, *columns, self._clock.now())
        seen = [Seen(None, False)] * len(wanted)
        for row in rows:
            hot = None if row["payload"] is None else Hot(row["payload"], row["expires_at"])
            seen[row["number"]] = Seen(hot, row["comparable"])
        return seen

    async def near(self, organization: str, partition: bytes, vector: Any, *, embedder: str, count_max: int) -> list[Neighbour]:
        """The nearest entries of a partition; the planner chooses between the partition's own index and the model's graph."""
        sql = _NEAR.format(embedder=literal(embedder), dimensions=len(vector))
        async with reaching(), self._pool.acquire() as connection, connection.transaction(readonly=True):
            await connection.execute("SET LOCAL hnsw.iterative_scan = relaxed_order")
            rows = await connection.fetch(sql, organization, partition, self._clock.now(), vector.tolist(), count_max)
        return [
            Neighbour(row["key"], row["question"], vector_of(row["embedding"]), row["payload"], row["reading"]) for row in rows
        ]

    async def put(self, entries: Sequence[Stored]) -> None:
        """Keeps entries in one statement; of several under one key the last one stays."""
        distinct = {(each.organization, each.key): each for each in entries}
        rows = [
            (
                each.organization,
                each.key,
                each.partition,
                each.scope,
                each.model,
                "\x1f".join(each.tags),
                each.payload,
                each.question,
                None if each.vector is None else vector_text(each.vector),
                each.created_at,
                each.expires_at,
                each.reading,
                each.embedder,
                each.stale_at,
                each.cost_usd_nanos,
                each.density,
                each.rank,
            )
            for _, each in sorted(distinct.items())
        ]
        async with reaching():
            for embedder, dimensions in {
                each.embedder: len(each.vector) for each in entries if each.vector is not None
            }.items():
                await self._indexes.ensure(embedder, dimensions)
            await self._pool.execute(_PUT, *[list(column) for column in zip(*rows, strict=True)])
            await self._keep_statistics(len(rows))

    async def _keep_statistics(self, added: int) -> None:
        """A table that grows fast is planned by what it was: a partition would be read whole where the graph of neighbours is at hand."""
        self._added += added
        if self._added >= max(_ANALYZE_ROWS, self._analyzed // 5):
            self._analyzed, self._added = self._analyzed + self._added, 0
            await self._pool.execute("ANALYZE entries")

    async def invalidate(self, chosen: Filter, *, dry_run: bool) -> int:
        """Forgets entries and announces it with the same commit."""
        values = (chosen.organization, chosen.scope, list(chosen.keys), list(chosen.tags), chosen.model)
        async with reaching(), self._pool.acquire() as connection, connection.transaction():
            if dry_run:
                return int(await connection.fetchval("SELECT count(*) " + _CHOSEN, *values))
            done = await connection.execute("DELETE " + _CHOSEN, *values)
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, chosen.organization)
        return int(done.split()[-1])

    async def size(self, organization: str, scope: str) -> tuple[int, int]:
        """(entries, bytes) at and below a scope."""
        sql = (
            "SELECT count(*), coalesce(sum(payload_bytes), 0)::bigint FROM entries "
            "WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/')) AND expires_at > $3"
        )
        async with reaching():
            row = await self._pool.fetchrow(sql, organization, scope, self._clock.now())
        return row[0], row[1]

    async def add_counts(self, counts: dict[tuple[str, str], Counts]) -> None:
        """Adds to what look-ups came to."""
        rows = [
            (*where, each.hits_exact, each.hits_semantic, each.misses, each.avoided_usd_nanos)
            for where, each in sorted(counts.items())
        ]
        async with reaching():
            await self._pool.execute(_ADD_COUNTS, *[list(column) for column in zip(*rows, strict=True)])

    async def counts(self, organization: str, scope: str) -> Counts:
        """What look-ups at and below a scope came to."""
        async with reaching():
            row = await self._pool.fetchrow(_COUNTS, organization, scope)
        return Counts(*row)

    async def sweep(self, *, count_max: int) -> int:
        """Forgets expired entries; replicas that sweep at once take different ones."""
        async with reaching():
            done = await self._pool.execute(_SWEEP, self._clock.now(), count_max)
        return int(done.split()[-1])

    async def drop(self, organization: str, key: bytes, payload: bytes) -> None:
        """Forgets an entry that is still what it was."""
        sql = "DELETE FROM entries WHERE organization = $1 AND key = $2 AND payload = $3"
        async with reaching():
            await self._pool.execute(sql, organization, key, payload)

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """Organisations, each found by one step through the key's index."""
        async with reaching():
            return [row["name"] for row in await self._pool.fetch(_ORGANIZATIONS, after, count_max)]

    async def drop_unreadable(self, organization: str, headers: Sequence[bytes], *, count_max: int) -> int:
        """Forgets entries under keys that are gone."""
        async with reaching():
            done = await self._pool.execute(_DROP_UNREADABLE, organization, list(headers), count_max)
        return int(done.split()[-1])


def vector_text(vector: Any) -> str:
    """A vector as pgvector writes it."""
    return "[" + ",".join(f"{value:.5f}" for value in vector.tolist()) + "]"


def vector_of(raw: bytes) -> Any:
    """A vector from pgvector's wire form: two numbers of 16 bits, then big-endian halves."""
    return np.frombuffer(raw, dtype=">f2", offset=4).astype(np.float32)


@asynccontextmanager
async def reaching() -> AsyncIterator[None]:
    """A block of statements. Raises StoreUnavailable where the database is out of reach."""
    try:
        yield
    except unreachable_errors() as error:
        raise StoreUnavailable from error
