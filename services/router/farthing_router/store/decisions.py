"""Decisions and their sums in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from farthing_router.performance.decisions import Decision, DecisionsAsked, DecisionSums, Rating, SummaryAsked
from farthing_router.performance.labels import LABELS, Labelled
from farthing_router.store.connections import connected
from farthing_router.store.forgetting import forget

_ROW = {
    "organization": "text",
    "decided_at": "timestamptz",
    "decision_id": "uuid",
    "request_id": "uuid",
    "shadow_of": "text",
    "workspace": "text",
    "scope": "text",
    "task": "text",
    "requested_model": "text",
    "strategy": "text",
    "reason": "text",
    "rule_id": "text",
    "rule_version": "bigint",
    "calibration_id": "text",
    "experiment_id": "text",
    "arm": "text",
    "complexity": "float8",
    "candidates": "text",
    "served_model": "text",
    "outcome": "text",
    "escalated": "bool",
    "failed": "bool",
    "confidence": "float8",
    "cost_usd_nanos": "bigint",
    "latency_ms": "bigint",
    "attempts": "int",
    "quality": "float8",
    "place": "bytea",
}
_PLACE = {"organization": "text", "place": "bytea", "shadow": "bool", **dict.fromkeys(LABELS, "text")}
_SUMS = (
    "decisions",
    "escalated",
    "failed",
    "attempts",
    "cost_usd_nanos",
    "latency_ms",
    "confidence_sum",
    "confidence_answers",
    "quality_sum",
    "quality_squares",
    "quality_answers",
)
_SCOPE_LEVELS = ("organizations", "workspaces", "projects", "users")


def _unnest(columns: dict[str, str], first: int) -> str:
    return ", ".join(f"${first + number}::{kind}[]" for number, kind in enumerate(columns.values()))


# What a decision adds to the sums is reckoned from the rows that were really new, so that sending them again adds nothing.
_WRITE = f"""
    WITH fresh AS (
        INSERT INTO decisions ({", ".join(_ROW)}) SELECT * FROM unnest({_unnest(_ROW, 1)}) ON CONFLICT DO NOTHING RETURNING *
    ), added AS (
        SELECT organization, date_trunc('hour', decided_at, 'UTC') AS at, place, count(*) AS decisions,
            count(*) FILTER (WHERE escalated) AS escalated, count(*) FILTER (WHERE failed) AS failed, sum(attempts) AS attempts,
            sum(cost_usd_nanos) AS cost_usd_nanos, sum(latency_ms) AS latency_ms, coalesce(sum(confidence), 0) AS confidence_sum,
            count(confidence) AS confidence_answers, coalesce(sum(quality), 0) AS quality_sum,
            coalesce(sum(quality * quality), 0) AS quality_squares, count(quality) AS quality_answers
        FROM fresh GROUP BY 1, 2, 3
    )
    INSERT INTO decision_sums AS kept ({", ".join(("at", *_PLACE, *_SUMS))})
    SELECT at, {", ".join(_PLACE)}, {", ".join(_SUMS)}
    FROM added JOIN unnest({_unnest(_PLACE, len(_ROW) + 1)}) AS places ({", ".join(_PLACE)}) USING (organization, place)
    ORDER BY organization, at, place
    ON CONFLICT (organization, at, place) DO UPDATE SET {", ".join(f"{name} = kept.{name} + excluded.{name}" for name in _SUMS)}
"""
# The rows are locked in one order before they are read, so that of two who rate the same answer the second sees what the first left.
_RATE = """
    WITH given AS (
        SELECT DISTINCT ON (organization, request_id) organization, request_id, quality
        FROM unnest($1::text[], $2::uuid[], $3::float8[]) WITH ORDINALITY AS each (organization, request_id, quality, number)
        ORDER BY organization, request_id, number DESC
    ), found AS (
        SELECT d.organization, d.request_id, d.decided_at, d.decision_id, d.place, d.quality AS before, given.quality
        FROM decisions d JOIN given USING (organization, request_id)
        WHERE d.served_model <> '' AND d.shadow_of = ''
        ORDER BY d.organization, d.decided_at, d.decision_id FOR UPDATE OF d
    ), rated AS (
        UPDATE decisions d SET quality = found.quality FROM found
        WHERE (d.organization, d.decided_at, d.decision_id) = (found.organization, found.decided_at, found.decision_id)
        RETURNING found.*
    ), changed AS (
        SELECT organization, date_trunc('hour', decided_at, 'UTC') AS at, place, sum(quality - coalesce(before, 0)) AS quality_sum,
            sum(quality * quality - coalesce(before * before, 0)) AS quality_squares,
            count(*) FILTER (WHERE before IS NULL) AS quality_answers
        FROM rated GROUP BY 1, 2, 3
    ), locked AS (
        SELECT organization, at, place FROM decision_sums JOIN changed USING (organization, at, place)
        ORDER BY 1, 2, 3 FOR UPDATE OF decision_sums
    ), summed AS (
        UPDATE decision_sums s SET quality_sum = s.quality_sum + c.quality_sum, quality_squares = s.quality_squares + c.quality_squares,
            quality_answers = s.quality_answers + c.quality_answers
        FROM changed c JOIN locked USING (organization, at, place)
        WHERE (s.organization, s.at, s.place) = (c.organization, c.at, c.place)
    )
    SELECT organization, request_id::text FROM rated
"""
_SUMMARIZE = """
    SELECT {step} AS step, {labels} {sums} FROM decision_sums
    WHERE {whose} AND at >= $2 AND at < $3 AND shadow = $4 AND ($5 = '' OR task = $5)
    GROUP BY {groups} ORDER BY step, decisions DESC, {groups} LIMIT $6
"""


class PostgresDecisions:
    """The DecisionStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def write(self, decisions: Sequence[tuple[Decision, Labelled]]) -> None:
        """Writes decisions and adds them up, in one statement."""
        places = {(decision.organization, placed.key): placed for decision, placed in decisions}
        # In one order, so that whoever writes the same rows at the same time waits instead of being in each other's way.
        ordered = sorted(decisions, key=lambda each: (each[0].organization, each[0].decided_at, each[0].decision_id))
        rows = list(zip(*(_values(decision, placed) for decision, placed in ordered), strict=True))
        labels = list(zip(*((name, key, each.shadow, *each.values) for (name, key), each in places.items()), strict=True))
        async with connected(self._pool) as connection:
            await connection.execute(_WRITE, *rows, *labels)

    async def find(self, asked: DecisionsAsked) -> list[Decision]:
        """Decisions, newest first."""
        statement, values = _question(asked)
        async with connected(self._pool) as connection, connection.transaction(readonly=True):
            # Filters differ by far in how much they leave: each question is planned for its own values.
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return [_decision(row) for row in await connection.fetch(statement, *values)]

    async def rate(self, ratings: Sequence[Rating]) -> Sequence[Rating]:
        """Rates answers, in one statement."""
        if not ratings:
            return ()
        columns = zip(*((each.organization, each.request_id, each.quality) for each in ratings), strict=True)
        async with connected(self._pool) as connection:
            found = {tuple(row) for row in await connection.fetch(_RATE, *columns)}
        return [each for each in ratings if (each.organization, each.request_id) not in found]

    async def summarize(self, asked: SummaryAsked) -> list[DecisionSums]:
        """Sums of decisions."""
        unknown = set(asked.group_by) - set(LABELS)
        if unknown:
            raise ValueError(f"no labels: {unknown}")
        step = "0" if asked.step is None else f"floor(extract(epoch FROM at - $2) / {int(asked.step.total_seconds())})::int"
        sums = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
        labels = "".join(f"{name}, " for name in asked.group_by)
        groups = ", ".join(str(number + 1) for number in range(len(asked.group_by) + 1))
        whose = "organization = $1" if asked.organization else "$1 = ''"
        statement = _SUMMARIZE.format(whose=whose, step=step, labels=labels, sums=sums, groups=groups)
        given = (asked.organization, asked.start, asked.end, asked.shadows, asked.task, asked.count_max)
        async with connected(self._pool) as connection:
            return [_sums(row, asked.group_by) for row in await connection.fetch(statement, *given)]

    async def forget(self, *, before: datetime, count_max: int) -> int:
        """Deletes the oldest rows."""
        async with connected(self._pool) as connection:
            decisions = await forget(connection, "decisions", "decided_at", before=before, count_max=count_max)
            sums = await forget(connection, "decision_sums", "at", before=before, count_max=count_max)
        return max(decisions, sums)


def _values(decision: Decision, placed: Labelled) -> tuple[object, ...]:
    own = {
        "workspace": _workspace(decision.scope),
        "candidates": "\n".join(decision.candidates),
        "place": placed.key,
    }
    return tuple(own[name] if name in own else getattr(decision, name) for name in _ROW)


def _workspace(scope: str) -> str:
    return "/".join(scope.split("/")[:4])


def _question(asked: DecisionsAsked) -> tuple[str, list[object]]:
    """A statement that walks an index from the newest row, whatever is asked."""
    values: list[object] = []

    def given(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    where = [f"organization = {given(asked.organization)}", *_scope_conditions(asked.scope, given)]
    where += [f"{name} = {given(value)}" for name in ("task", "strategy", "experiment_id") if (value := getattr(asked, name))]
    if asked.start is not None:
        where.append(f"decided_at >= {given(asked.start)}")
    if asked.end is not None:
        where.append(f"decided_at < {given(asked.end)}")
    if asked.before is not None:
        where.append(f"(decided_at, decision_id) < ({given(asked.before[0])}, {given(asked.before[1])}::uuid)")
    either: list[list[str]] = [[]]
    if asked.model:
        either = [[f"{name} = {given(asked.model)}"] for name in ("served_model", "requested_model")]
    if asked.request_id:
        # As text: whatever is asked for that is no UUID is simply not there.
        own = [f"request_id = {given(asked.request_id)}::uuid"] if _is_uuid(asked.request_id) else ["false"]
        shadows = [f"shadow_of = {given(asked.request_id)}", "shadow_of <> ''"]
        either = [[*one, *two] for one in either for two in (own, shadows)]
    if asked.experiment_id:
        where.append("experiment_id <> ''")
    newest = f"ORDER BY decided_at DESC, decision_id DESC LIMIT {given(asked.count_max)}"
    parts = [f"(SELECT * FROM decisions WHERE {' AND '.join([*where, *more])} {newest})" for more in either]
    return f"SELECT * FROM ({' UNION '.join(parts)}) AS found {newest}", values


def _scope_conditions(scope: str, given: Any) -> list[str]:
    levels = scope.count("/") // 2
    if levels == 0:
        return []
    conditions = [f"workspace = {given(_workspace(scope))}"] if levels < len(_SCOPE_LEVELS) - 1 else []
    if levels == len(_SCOPE_LEVELS) - 1:
        conditions.append(f"scope = {given(scope)}")
    elif levels > 1:
        conditions.append(f"(scope = {given(scope)} OR (scope > {given(scope + '/')} AND scope < {given(scope + '0')}))")
    return conditions


def _is_uuid(text: str) -> bool:
    try:
        return bool(UUID(text))
    except ValueError:
        return False


def _decision(row: asyncpg.Record) -> Decision:
    own: dict[str, Any] = {"decision_id": str(row["decision_id"]), "request_id": str(row["request_id"])}
    own["candidates"] = tuple(row["candidates"].split("\n")) if row["candidates"] else ()
    return Decision(**{name: own.get(name, row[name]) for name in Decision._fields})


def _sums(row: asyncpg.Record, labels: tuple[str, ...]) -> DecisionSums:
    return DecisionSums(
        step=row["step"],
        labels={name: row[name] for name in labels},
        **{name: _plain(row[name]) for name in _SUMS},
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, float) else int(value)
