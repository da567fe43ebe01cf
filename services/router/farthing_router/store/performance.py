"""Sums of performance in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import asyncpg
import numpy as np

from farthing_router.performance.cells import ADDED, EVERYBODY, HISTOGRAMS, KINDS_MAX, Cell, Flush, Place, level_of, rolled_up
from farthing_router.performance.histograms import BUCKETS
from farthing_router.performance.speeds import HALF_LIFE_H, HOURS, Line
from farthing_router.performance.sums import DIMENSIONS, OutageMinutes, Sums, SumsAsked, pieces
from farthing_router.store import StoreUnavailable
from farthing_router.store.connections import connected
from farthing_router.store.forgetting import forget

_KEY = Place._fields
_FLOATS = frozenset({"line_tokens", "line_squares", "line_ms", "line_products"})
_COUNTED = ("attempts", "failures", "cancelled", "down", "answers", "cost_usd_nanos", "input_tokens", "output_tokens")
_COLUMNS = (*_KEY, *ADDED, "input_tokens_max", *HISTOGRAMS)
_PLACES = {"latency": BUCKETS, "first_token": BUCKETS, "pace": BUCKETS, "kinds": KINDS_MAX}
_MINUTES = 60


def _kind(name: str) -> str:
    if name in (*DIMENSIONS, "organization", "level", *HISTOGRAMS):
        return "text"
    return "timestamptz" if name == "at" else "float8" if name in _FLOATS else "bigint"


def _added(name: str) -> str:
    if name == "input_tokens_max":
        return f"{name} = greatest(kept.{name}, excluded.{name})"
    if name in HISTOGRAMS:
        both = f"(kept.{name}::vector + excluded.{name}::vector)::sparsevec"
        return f"{name} = coalesce({both}, kept.{name}, excluded.{name})"
    return f"{name} = kept.{name} + excluded.{name}"


def _summed(name: str) -> str:
    if name in HISTOGRAMS:
        return f"sum({name}::vector)::sparsevec AS {name}"
    return f"{'max' if name == 'input_tokens_max' else 'sum'}({name}) AS {name}"


def _upsert(table: str, source: str) -> str:
    return f"""
        INSERT INTO {table} AS kept ({", ".join(_COLUMNS)}) {source} ORDER BY {", ".join(_KEY)}
        ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET {", ".join(_added(name) for name in _COLUMNS if name not in _KEY)}
    """


def _arrays(kinds: Iterable[str], first: int) -> str:
    return ", ".join(f"${first + number}::{kind}[]" for number, kind in enumerate(kinds))


_FIRST = 4
_GIVEN = _arrays(map(_kind, _COLUMNS), _FIRST)
_MINUTE_COLUMNS = 5
_GIVEN_MINUTES = _arrays(("text", "timestamptz", "text", "text", "text"), _FIRST + len(_COLUMNS))
_NAMES = ", ".join(_COLUMNS)
_READ = ", ".join(f"{name}::sparsevec AS {name}" if name in HISTOGRAMS else name for name in _COLUMNS)
_BY_DAY = ", ".join(
    _summed(name) if name not in _KEY else "date_trunc('day', at, 'UTC') AS at" if name == "at" else name for name in _COLUMNS
)
_HOURS = _upsert("performance_hours", f"SELECT {_NAMES} FROM given")
_DAYS = _upsert(
    "performance_days", f"SELECT {_BY_DAY} FROM given GROUP BY {', '.join(str(number + 1) for number in range(len(_KEY)))}"
)
# A flush whose number the organisation has seen adds nothing. Rows are written in one order, so that replicas wait for one another.
_ADD = f"""
    WITH fresh AS (
        INSERT INTO performance_flushes AS kept (organization, replica, sequence, flushed_at)
        SELECT DISTINCT organization, $1::text::uuid, $2::bigint, $3::timestamptz FROM unnest($4::text[]) AS organization ORDER BY 1
        ON CONFLICT (organization, replica) DO UPDATE SET sequence = excluded.sequence, flushed_at = excluded.flushed_at
        WHERE kept.sequence < excluded.sequence RETURNING organization
    ), given AS MATERIALIZED (
        SELECT {_READ} FROM unnest({_GIVEN}) AS each ({_NAMES}) WHERE organization IN (SELECT organization FROM fresh)
    ), days AS ({_DAYS}), minutes AS (
        INSERT INTO provider_minutes AS kept (organization, at, provider, attempts, down)
        SELECT organization, at, provider, attempts::sparsevec::vector, down::sparsevec::vector
        FROM unnest({_GIVEN_MINUTES}) AS each (organization, at, provider, attempts, down)
        WHERE organization IN (SELECT organization FROM fresh) ORDER BY organization, at, provider
        ON CONFLICT (organization, at, provider)
        DO UPDATE SET attempts = kept.attempts + excluded.attempts, down = kept.down + excluded.down
    )
    {_HOURS}
"""
_FADED = ", ".join(f"sum({name} * weight)::float8 AS {name}" for name in Line.__slots__)
_LINES = f"""
    SELECT model, task, {_FADED}
    FROM (
        SELECT *, 0.5 ^ (greatest(0, extract(epoch FROM $1 - at)) / {HALF_LIFE_H * 3600})::float8 AS weight FROM performance_hours
        WHERE organization = '{EVERYBODY}' AND level = 'all' AND at > $1::timestamptz - interval '{HOURS} hours'
    ) AS recent GROUP BY model, task
"""
_OUTAGES = """
    SELECT provider, vector_send(attempts) AS attempts, vector_send(down) AS down FROM provider_minutes
    WHERE organization = $1 AND at >= $2 AND at < $3 ORDER BY provider
"""
_TASKS = """
    SELECT organization, task FROM performance_days WHERE level = 'task' AND at >= date_trunc('day', $1::timestamptz, 'UTC')
    GROUP BY organization, task ORDER BY organization, sum(attempts) DESC LIMIT $2
"""


class PostgresPerformance:
    """The PerformanceStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, flush: Flush) -> None:
        """Adds what a replica counted, in one statement."""
        given = await asyncio.to_thread(_columns, flush)
        async with connected(self._pool) as connection:
            try:
                await connection.execute(_ADD, flush.replica, flush.sequence, flush.flushed_at, *given)
            except asyncpg.DeadlockDetectedError as error:
                raise StoreUnavailable(problem=type(error).__name__) from error

    async def sums(self, asked: SumsAsked) -> list[Sums]:
        """Calls added up."""
        statement, values = _question(asked)
        async with connected(self._pool) as connection, connection.transaction(readonly=True):
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return [_sums(row, asked) for row in await connection.fetch(statement, *values)]

    async def lines(self, *, now: datetime) -> dict[tuple[str, str], Line]:
        """Everybody's calls of the last hours."""
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_LINES, now)
        return {(row["model"], row["task"]): Line(**{name: row[name] for name in Line.__slots__}) for row in rows}

    async def outages(self, organization: str, *, start: datetime, end: datetime) -> list[OutageMinutes]:
        """When providers were away."""
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_OUTAGES, organization, start, end)
        found: dict[str, list[int]] = {}
        for row in rows:
            attempts, down = numbers(row["attempts"]), numbers(row["down"])
            counts = found.setdefault(row["provider"], [0, 0])
            counts[0] += int((attempts > 0).sum())
            counts[1] += int((down * 2 > attempts).sum())
        return [OutageMinutes(provider, *counts) for provider, counts in found.items()]

    async def tasks(self, *, since: datetime, count_max: int) -> list[tuple[str, str]]:
        """The tasks that were seen."""
        async with connected(self._pool) as connection:
            return [(row["organization"], row["task"]) for row in await connection.fetch(_TASKS, since, count_max)]

    async def forget(self, *, hours_before: datetime, days_before: datetime, count_max: int) -> int:
        """Deletes the oldest rows."""
        of_old = {
            "performance_hours": ("at", hours_before),
            "performance_days": ("at", days_before),
            "provider_minutes": ("at", days_before),
            "performance_flushes": ("flushed_at", hours_before),
        }
        async with connected(self._pool) as connection:
            done = [
                await forget(connection, table, column, before=before, count_max=count_max)
                for table, (column, before) in of_old.items()
            ]
        return max(done)


def numbers(stored: bytes) -> Any:
    """The numbers of a vector as the database sends it."""
    return np.frombuffer(stored, dtype=">f4", offset=4)


def _columns(flush: Flush) -> list[list[object]]:
    """The statement's arrays: cells by every level, then minutes, each in the order in which they are written."""
    columns = zip(*(_row(place, cell) for place, cell in rolled_up(flush.cells)), strict=True)
    ordered = sorted(flush.minutes, key=lambda each: each[0])
    minutes = zip(
        *((*place, _sparse(each.attempts, _MINUTES), _sparse(each.down, _MINUTES)) for place, each in ordered), strict=True
    )
    return [*map(list, columns), *(map(list, minutes) if ordered else ([] for _ in range(_MINUTE_COLUMNS)))]


def _row(key: Place, cell: Cell) -> Iterable[object]:
    counts = (getattr(cell, name) for name in (*ADDED, "input_tokens_max"))
    histograms = (_sparse(getattr(cell, name), _PLACES[name]) if getattr(cell, name) else None for name in HISTOGRAMS)
    return (*(getattr(key, name) for name in _KEY), *counts, *histograms)


def _sparse(counts: Mapping[int, int], places: int) -> str:
    return "{" + ",".join(f"{number + 1}:{count}" for number, count in sorted(counts.items())) + "}/" + str(places)


def _question(asked: SumsAsked) -> tuple[str, list[object]]:
    values: list[object] = [asked.organization, asked.count_max, level_of((*asked.group_by, *asked.only))]

    def given(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    only = "".join(f" AND {name} = {given(value)}" for name, value in asked.only.items() if name in DIMENSIONS)
    names = (*_COUNTED, "input_tokens_max", *(HISTOGRAMS if asked.histograms else ()))
    columns = ", ".join(("at", *asked.group_by, *names))
    if asked.among is not None and asked.group_by:
        arrays = ", ".join(f"{given(list(column))}::text[]" for column in zip(*asked.among, strict=True))
        only += f" AND ({', '.join(asked.group_by)}) IN (SELECT * FROM unnest({arrays}))"
    whose = "organization = $1 AND level = $3"
    parts = [
        f"SELECT {columns} FROM performance_{unit} WHERE {whose} AND at >= {given(start)} AND at < {given(end)}{only}"
        for unit, start, end in pieces(asked.range)
    ]
    step = "0"
    if asked.range.step is not None:
        step = f"floor(extract(epoch FROM at - {given(asked.range.start)}) / {int(asked.range.step.total_seconds())})::int"
    labels = "".join(f"{name}, " for name in asked.group_by if name in DIMENSIONS)
    groups = ", ".join(str(number + 1) for number in range(len(asked.group_by) + 1))
    sums = ", ".join(f"vector_send(sum({name}::vector)) AS {name}" if name in HISTOGRAMS else _summed(name) for name in names)
    order = f"step, cost_usd_nanos DESC, attempts DESC, {groups}"
    return (
        f"SELECT {step} AS step, {labels}{sums} FROM ({' UNION ALL '.join(parts)}) AS parts GROUP BY {groups} ORDER BY {order} LIMIT $2",
        values,
    )


def _sums(row: asyncpg.Record, asked: SumsAsked) -> Sums:
    counts: dict[str, Any] = {name: int(row[name]) for name in (*_COUNTED, "input_tokens_max")}
    if asked.histograms:
        counts |= {name: row[name] or b"" for name in HISTOGRAMS}
    return Sums(step=row["step"], labels={name: row[name] for name in asked.group_by}, **counts)
