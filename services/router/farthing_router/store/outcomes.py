"""Outcomes in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import numpy as np
from farthing_core.scopes import parse_scope

from farthing_router.calibration.forest import Floats
from farthing_router.learning.evidence import Context, Evidence
from farthing_router.learning.outcomes import (
    Arm,
    Day,
    DecisionUnknown,
    Judged,
    Labelled,
    Opinion,
    Opinions,
    Outcome,
    Part,
)
from farthing_router.store import RequestIdReused
from farthing_router.store.connections import connected
from farthing_router.store.outcome_sums import add_sums, merged, sums_of, tally

_ADD = """
    INSERT INTO outcomes (organization, request_id, scope, task, model, created_at, shadow, automatic, features, context, fingerprint)
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bool[], $8::float8[], $9::bytea[], $10::bytea[],
        $11::bytea[])
    ON CONFLICT DO NOTHING RETURNING organization, request_id
"""
_FIND = "SELECT * FROM outcomes WHERE organization = $1 AND request_id = $2"
_STORED = "SELECT fingerprint FROM opinions WHERE organization = $1 AND request_id = $2"
_OPINION = """
    INSERT INTO opinions (organization, request_id, answered_request_id, source, value, fingerprint, recorded_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING 1
"""
_JUDGED = """
    UPDATE outcomes SET opinion_counts = $3, opinion_sums = $4, quality = $5 WHERE organization = $1 AND request_id = $2
"""
# Whoever changes evidence has the table's turn until it commits, so that changes become visible in the order of their numbers.
_TURN = "LOCK TABLE arms IN SHARE ROW EXCLUSIVE MODE"
_LEARN = """
    INSERT INTO arms AS known (organization, task, model, number, evidence) VALUES ($1, $2, $3, nextval('arm_changes'), $4)
    ON CONFLICT (organization, task, model) DO UPDATE
    SET number = excluded.number, evidence = added(known.evidence, excluded.evidence) RETURNING *
"""
_ARM = "SELECT * FROM arms WHERE organization = $1 AND task = $2 AND model = $3"
_ARMS = "SELECT * FROM arms WHERE number > $1 ORDER BY number LIMIT $2"
_LABELLED = """
    SELECT task, model, automatic, quality, features, created_at FROM outcomes
    WHERE organization = $1 AND quality IS NOT NULL AND created_at >= $4 AND created_at < $5
        AND (scope = $2 OR scope LIKE replace(replace(replace($2, '\\', '\\\\'), '_', '\\_'), '%', '\\%') || '/%')
        AND ($3 = '' OR task = $3)
    ORDER BY created_at DESC LIMIT $6
"""
_FORGET = {
    "outcomes": "created_at",
    "opinions": "recorded_at",
}


class PostgresOutcomes:
    """The OutcomeStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, outcomes: Sequence[Outcome]) -> None:
        """Writes answers down."""
        kept = {(each.organization, each.request_id): each for each in outcomes if each.part is not Part.PASSED_OVER}
        async with connected(self._pool) as connection, connection.transaction():
            new = await connection.fetch(_ADD, *_columns([kept[key] for key in sorted(kept)])) if kept else []
            counted = [kept[row["organization"], row["request_id"]] for row in new]
            counted += [each for each in outcomes if each.part is Part.PASSED_OVER]
            await add_sums(connection, merged(counted))
            learned: dict[tuple[str, str, str], Evidence] = {}
            for each in counted:
                if each.automatic is not None:
                    key = (each.organization, each.task, each.model)
                    fresh = Evidence.automatic(each.automatic, moment=each.created_at)
                    learned[key] = learned.get(key, Evidence.none()) + fresh
            if learned:
                await connection.execute(_TURN)
                for key, evidence in sorted(learned.items(), key=lambda item: item[0]):
                    await connection.fetchrow(_LEARN, *key, evidence.sums.tolist())

    async def find(self, organization: str, request_id: str) -> Outcome | None:
        """The answer to a request."""
        async with connected(self._pool) as connection:
            row = await connection.fetchrow(_FIND, organization, request_id)
        return None if row is None else _outcome(row)

    async def judge(self, opinion: Opinion) -> Judged:
        """Takes in an opinion."""
        async with connected(self._pool) as connection, connection.transaction():
            row = await connection.fetchrow(f"{_FIND} FOR UPDATE", opinion.organization, opinion.answered_request_id)
            if row is None:
                raise DecisionUnknown(answered_request_id=opinion.answered_request_id)
            outcome = _outcome(row)
            if not await self._is_new(connection, opinion):
                arm = await connection.fetchrow(_ARM, outcome.organization, outcome.task, outcome.model)
                return Judged(outcome, row["quality"], _arm(arm), repeated=True)
            opinions = Opinions(tuple(row["opinion_counts"]), tuple(row["opinion_sums"])).with_one(
                opinion.source, opinion.value
            )
            quality = opinions.quality or 0.0
            key = (outcome.organization, outcome.request_id)
            await connection.execute(_JUDGED, *key, list(opinions.counts), list(opinions.sums), quality)
            await add_sums(connection, tally(outcome, quality, before=row["quality"]))
            evidence = Evidence.opinion(quality, outcome.context, moment=outcome.created_at, before=row["quality"])
            await connection.execute(_TURN)
            arm = await connection.fetchrow(_LEARN, outcome.organization, outcome.task, outcome.model, evidence.sums.tolist())
        return Judged(outcome, quality, _arm(arm), repeated=False)

    async def _is_new(self, connection: Any, opinion: Opinion) -> bool:
        """Writes the opinion itself; False where it was there. Raises RequestIdReused where another one was."""
        values = (opinion.answered_request_id, int(opinion.source), opinion.value, opinion.fingerprint, opinion.recorded_at)
        if await connection.fetchval(_OPINION, opinion.organization, opinion.request_id, *values):
            return True
        stored = await connection.fetchval(_STORED, opinion.organization, opinion.request_id)
        if stored != opinion.fingerprint:
            raise RequestIdReused(request_id=opinion.request_id)
        return False

    async def arms(self, number: int, *, rows_max: int) -> list[Arm]:
        """The evidence with larger numbers."""
        async with connected(self._pool) as connection:
            return [_arm(row) for row in await connection.fetch(_ARMS, number, rows_max)]

    async def days(self, scope: str, *, model: str, task: str, start: datetime, end: datetime) -> list[Day]:
        """The sums of a scope."""
        async with connected(self._pool) as connection:
            rows = await sums_of(connection, scope, only=(model, task), between=(start, end))
        return [Day(day, name, task_name, sums) for day, name, task_name, sums in rows]

    async def labelled(self, scope: str, *, task: str, start: datetime, end: datetime, rows_max: int) -> list[Labelled]:
        """Answers that somebody judged."""
        organization = parse_scope(scope).organization
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_LABELLED, organization, scope, task, start, end, rows_max)
        return [
            Labelled(row["task"], row["model"], row["automatic"], row["quality"], _halves(row["features"]), row["created_at"])
            for row in rows
        ]

    async def forget(self, *, before: datetime, rows_max: int) -> int:
        """Deletes what is old."""
        gone = 0
        async with connected(self._pool) as connection:
            for table, column in _FORGET.items():
                chosen = f"SELECT ctid FROM {table} WHERE {column} < $1 LIMIT $2"
                deleted = await connection.execute(f"DELETE FROM {table} WHERE ctid IN ({chosen})", before, rows_max)
                gone += int(deleted.split()[-1])
        return gone


def _columns(outcomes: Sequence[Outcome]) -> list[list[Any]]:
    rows = [
        (
            each.organization,
            each.request_id,
            each.scope,
            each.task,
            each.model,
            each.created_at,
            each.part is Part.SHADOW,
            each.automatic,
            each.features.astype("<f2").tobytes(),
            each.context.astype("<f4").tobytes(),
            each.fingerprint,
        )
        for each in outcomes
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _outcome(row: Mapping[str, Any]) -> Outcome:
    context: Context = np.frombuffer(row["context"], dtype="<f4").astype(np.float64)
    return Outcome(
        request_id=row["request_id"],
        scope=row["scope"],
        task=row["task"],
        model=row["model"],
        created_at=row["created_at"],
        part=Part.SHADOW if row["shadow"] else Part.SERVED,
        automatic=row["automatic"],
        features=_halves(row["features"]),
        context=context,
        fingerprint=row["fingerprint"],
        cost_usd_nanos=0,
        input_tokens=0,
        output_tokens=0,
    )


def _arm(row: Mapping[str, Any]) -> Arm:
    evidence = Evidence(np.asarray(row["evidence"], dtype=np.float64))
    return Arm(row["number"], row["organization"], row["task"], row["model"], evidence)


def _halves(data: bytes) -> Floats:
    return np.frombuffer(data, dtype="<f2").astype(np.float64)
