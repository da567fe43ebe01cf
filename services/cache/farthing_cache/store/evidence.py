"""What is known of hits, on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from farthing_runtime.postgres import unreachable_errors

from farthing_cache.answers.asking import Certificate
from farthing_cache.certifying.hits import (
    SUMS,
    Block,
    Hit,
    HitsWanted,
    HitUnknown,
    Place,
    Report,
    RequestIdReused,
    Source,
    SumRow,
    Sums,
    Verdict,
)
from farthing_cache.store import StoreUnavailable

_HIT_COLUMNS = """
    organization, hit_id, hit_at, scope, asked, cached, entry_key, similarity, probability, probability_min, error_budget_ppm,
    wrong_upper_ppm, evidence, verifier_id, category, period, bucket, chance_ppm, chosen, adapted
"""
_ADD_HIT = f"""
    INSERT INTO hits ({_HIT_COLUMNS}) VALUES ({", ".join(f"${number}" for number in range(1, 21))})
    ON CONFLICT (organization, hit_id) DO NOTHING
"""
_HIT = f"SELECT {_HIT_COLUMNS}, verdict, source, agreement FROM hits"
_PLACE = "organization, verifier_id, category, period, bucket, chance_ppm"
_ADD_SUMS = f"""
    INSERT INTO evidence AS e ({_PLACE}, {", ".join(SUMS)}, number)
    VALUES ({", ".join(f"${number}" for number in range(1, 16))}, nextval('evidence_changes'))
    ON CONFLICT ({_PLACE}) DO UPDATE SET {", ".join(f"{name} = e.{name} + excluded.{name}" for name in SUMS)}, number = excluded.number
"""
_LIST = f"""
    {_HIT} WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/')) AND ($3::int IS NULL OR verdict = $3)
        AND ($4::timestamptz IS NULL OR (hit_at, hit_id) < ($4, $5)) ORDER BY hit_at DESC, hit_id DESC LIMIT $6
"""
_ADD_REPORT = """
    INSERT INTO hit_reports (organization, request_id, fingerprint, hit_id, verdict, source, agreement, evicted, reason, reported_at)
    VALUES ($1, $2::text::uuid, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (organization, request_id) DO NOTHING
"""
_JUDGE = """
    UPDATE hits SET verdict = $3, source = $4, agreement = coalesce($5, agreement) WHERE organization = $1 AND hit_id = $2
"""
_BLOCK = """
    INSERT INTO blocks (organization, asked_hash, cached_hash, entry_key, vector, created_at, number)
    VALUES ($1, $2, $3, $4, $5, $6, nextval('evidence_changes')) ON CONFLICT (organization, asked_hash, cached_hash) DO NOTHING
"""
_SWEEPS = (
    "DELETE FROM hits WHERE (organization, hit_id) IN (SELECT organization, hit_id FROM hits WHERE hit_at < $1 LIMIT $2)",
    """
    DELETE FROM hit_reports WHERE (organization, request_id) IN (
        SELECT organization, request_id FROM hit_reports WHERE reported_at < $1 LIMIT $2)
    """,
)
_SWEEP_MANY = """
    DELETE FROM hits h USING (
        SELECT organization, hit_id FROM (
            SELECT organization, hit_id, row_number() OVER (PARTITION BY organization ORDER BY hit_at DESC, hit_id DESC) AS place
            FROM hits WHERE organization IN (SELECT organization FROM hits GROUP BY organization HAVING count(*) > $1)
        ) ranked WHERE place > $1 LIMIT $2
    ) surplus WHERE h.organization = surplus.organization AND h.hit_id = surplus.hit_id
"""


class PostgresEvidence:
    """The EvidenceStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, hits: Sequence[Hit], sums: Mapping[Place, Sums]) -> None:
        """Keeps hits and adds sums in one transaction."""
        async with self._writing("evidence") as connection:
            await connection.executemany(_ADD_HIT, [_hit_values(hit) for hit in hits])
            await connection.executemany(
                _ADD_SUMS, [(*_place_values(place), *_sums_values(added)) for place, added in sums.items()]
            )

    async def hit(self, organization: str, hit_id: str) -> Hit:
        """One hit."""
        async with _reaching():
            row = await self._pool.fetchrow(f"{_HIT} WHERE organization = $1 AND hit_id = $2", organization, hit_id)
        if row is None:
            raise HitUnknown(hit_id=hit_id)
        return _hit(row)

    async def hits(self, wanted: HitsWanted, *, rows_max: int) -> list[Hit]:
        """A page of hits."""
        at, name = wanted.before if wanted.before is not None else (None, "")
        async with _reaching():
            rows = await self._pool.fetch(_LIST, wanted.organization, wanted.scope, wanted.verdict, at, name, rows_max)
        return [_hit(row) for row in rows]

    async def reported(self, organization: str, request_id: str) -> Report | None:
        """A report."""
        sql = "SELECT * FROM hit_reports WHERE organization = $1 AND request_id = $2::text::uuid"
        async with _reaching():
            row = await self._pool.fetchrow(sql, organization, request_id)
        if row is None:
            return None
        return Report(
            request_id=str(row["request_id"]),
            organization=row["organization"],
            fingerprint=row["fingerprint"],
            hit_id=row["hit_id"],
            verdict=Verdict(row["verdict"]),
            source=Source(row["source"]),
            agreement=row["agreement"],
            evicted=row["evicted"],
            reason=row["reason"],
            at=row["reported_at"],
        )

    async def report(self, report: Report, *, change: Sums, place: Place | None) -> None:
        """The report, its hit and its sums in one transaction; whoever came first with the same report has done it all."""
        values = (
            report.organization,
            report.request_id,
            report.fingerprint,
            report.hit_id,
            report.verdict,
            report.source,
            report.agreement,
            report.evicted,
            report.reason,
            report.at,
        )
        async with self._writing("evidence") as connection:
            if (await connection.execute(_ADD_REPORT, *values)).endswith(" 0"):
                sql = "SELECT fingerprint FROM hit_reports WHERE organization = $1 AND request_id = $2::text::uuid"
                if await connection.fetchval(sql, report.organization, report.request_id) != report.fingerprint:
                    raise RequestIdReused(request_id=report.request_id)
                return
            if report.hit_id and report.verdict:
                await connection.execute(
                    _JUDGE, report.organization, report.hit_id, report.verdict, report.source, report.agreement
                )
            if place is not None and change != Sums():
                await connection.execute(_ADD_SUMS, *_place_values(place), *_sums_values(change))

    async def block(self, block: Block, *, at: datetime) -> None:
        """Keeps a block."""
        values = block.organization, block.asked_hash, block.cached_hash, block.entry_key, block.vector, at
        async with self._writing("blocks") as connection:
            await connection.execute(_BLOCK, *values)

    async def sums_after(self, number: int, *, rows_max: int) -> Sequence[SumRow]:
        """Changed sums."""
        sql = f"SELECT {_PLACE}, {', '.join(SUMS)}, number FROM evidence WHERE number > $1 ORDER BY number LIMIT $2"
        async with _reaching():
            rows = await self._pool.fetch(sql, number, rows_max)
        return [SumRow(row["number"], _place(row), Sums(*(row[name] for name in SUMS))) for row in rows]

    async def blocks_after(self, number: int, *, rows_max: int) -> Sequence[Block]:
        """New blocks."""
        sql = "SELECT * FROM blocks WHERE number > $1 ORDER BY number LIMIT $2"
        names = ("number", "organization", "asked_hash", "cached_hash", "entry_key", "vector")
        async with _reaching():
            rows = await self._pool.fetch(sql, number, rows_max)
        return [Block(*(row[name] for name in names)) for row in rows]

    async def sweep(self, *, before: datetime, period_min: int, hits_max: int, count_max: int) -> int:
        """Forgets what is old, and what is too much."""
        async with _reaching():
            done = [await self._pool.execute(sql, before, count_max) for sql in _SWEEPS]
            done.append(await self._pool.execute(_SWEEP_MANY, hits_max, count_max))
            done.append(await self._pool.execute("DELETE FROM evidence WHERE period < $1", period_min))
        return sum(int(each.split()[-1]) for each in done)

    @asynccontextmanager
    async def _writing(self, table: str) -> AsyncIterator[Any]:
        """A transaction that has the table's turn, so that numbers become visible in their order. `table` is a name in the code."""
        async with _reaching(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            yield connection


def _place_values(place: Place) -> tuple[Any, ...]:
    return place.organization, place.verifier_id, place.category, place.period, place.bucket, place.chance_ppm


def _sums_values(sums: Sums) -> tuple[Any, ...]:
    return tuple(getattr(sums, name) for name in SUMS)


def _hit_values(hit: Hit) -> tuple[Any, ...]:
    certificate, place = hit.certificate, hit.place
    return (
        hit.organization,
        hit.hit_id,
        hit.hit_at,
        hit.scope,
        hit.asked,
        hit.cached,
        hit.entry_key,
        hit.similarity,
        certificate.probability,
        certificate.probability_min,
        certificate.error_budget_ppm,
        certificate.wrong_upper_ppm,
        certificate.evidence,
        certificate.verifier_id,
        place.category,
        place.period,
        place.bucket,
        place.chance_ppm,
        hit.chosen,
        hit.adapted,
    )


def _place(row: Any) -> Place:
    return Place(row["organization"], row["verifier_id"], row["category"], row["period"], row["bucket"], row["chance_ppm"])


def _hit(row: Any) -> Hit:
    certificate = Certificate(
        probability=row["probability"],
        probability_min=row["probability_min"],
        error_budget_ppm=row["error_budget_ppm"],
        wrong_upper_ppm=row["wrong_upper_ppm"],
        evidence=row["evidence"],
        category=row["category"],
        verifier_id=row["verifier_id"],
    )
    return Hit(
        hit_id=row["hit_id"],
        organization=row["organization"],
        hit_at=row["hit_at"],
        scope=row["scope"],
        asked=row["asked"],
        cached=row["cached"],
        entry_key=row["entry_key"],
        similarity=row["similarity"],
        certificate=certificate,
        place=_place(row),
        chosen=row["chosen"],
        adapted=row["adapted"],
        verdict=Verdict(row["verdict"]),
        source=None if row["source"] is None else Source(row["source"]),
        agreement=row["agreement"],
    )


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    try:
        yield
    except unreachable_errors() as error:
        raise StoreUnavailable from error
