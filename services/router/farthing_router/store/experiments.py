"""Experiments and their sums in Postgres."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from farthing_router.experiments.ports import KeptTally, Key, Page
from farthing_router.experiments.tallies import SUMS, Tally
from farthing_router.experiments.terms import (
    Arm,
    Experiment,
    ExperimentOverlaps,
    ExperimentsFull,
    Kind,
    Metric,
    Standing,
    State,
)
from farthing_router.store import RequestIdReused
from farthing_router.store.connections import connected, writing
from farthing_router.store.rules import action_of

RUNNING_MAX = 100
"""Experiments that may run at once in one organisation."""
EVERYBODYS_RUNNING_MAX = 2_000
"""The same in all organisations together: every replica has them in memory."""
_STORED = "SELECT * FROM experiments WHERE organization = $1 AND request_id = $2::text::uuid"
_OVERLAPPING = """
    SELECT experiment_id, scope, task FROM experiments
    WHERE organization = $1 AND state = 1 AND (task = '' OR $3 = '' OR task = $3)
        AND (starts_with(scope || '/', $2::text || '/') OR starts_with($2::text || '/', scope || '/'))
    ORDER BY serial LIMIT 1
"""
_COUNTS = "SELECT count(*) FILTER (WHERE organization = $1) AS own, count(*) AS everybodys FROM experiments WHERE state = 1"
_INSERT = """
    INSERT INTO experiments (organization, experiment_id, serial, request_id, fingerprint, scope, task, terms, created_at, end_at,
        version, state, state_reason, step, winner)
    VALUES ($1, $2::text::uuid, 0, $3::text::uuid, $4, $5, $6, $7::text::jsonb, $8, $9, 1, 1, '', 0, '')
"""
_NUMBERED = "UPDATE experiments SET serial = number WHERE organization = $1 AND experiment_id = $2::text::uuid RETURNING *"
_FIND = "SELECT * FROM experiments WHERE organization = $1 AND experiment_id = $2"
_LISTED = """
    SELECT * FROM experiments
    WHERE organization = $1 AND starts_with(scope || '/', $2::text || '/') AND ($3::smallint IS NULL OR state = $3)
        AND ($4::bigint IS NULL OR serial < $4)
    ORDER BY serial DESC LIMIT $5
"""
_AFTER = "SELECT * FROM experiments WHERE number > $1 AND ($1 > 0 OR state = 1) ORDER BY number LIMIT $2"
_CHANGE = """
    UPDATE experiments SET number = DEFAULT, version = version + 1, state = $4, state_reason = $5, step = $6, winner = $7, stopped_at = $8
    WHERE organization = $1 AND experiment_id = $2::text::uuid AND version = $3 AND state = 1 RETURNING *
"""
_PLACE = ("organization", "experiment_id", "step", "arm", "replica_id")
_KEEP = f"""
    INSERT INTO experiment_results ({", ".join((*_PLACE, *SUMS))})
    VALUES ($1, $2::text::uuid, $3, $4, $5::text::uuid, {", ".join(f"${number + 6}" for number in range(len(SUMS)))})
    ON CONFLICT ({", ".join(_PLACE)}) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in SUMS)}
"""
_TALLIES = f"""
    SELECT r.organization, r.experiment_id, r.step, r.arm, {", ".join(f"sum(r.{name}) AS {name}" for name in SUMS)}
    FROM experiment_results r
    JOIN unnest($1::text[], $2::text[]::uuid[]) AS asked (organization, experiment_id) USING (organization, experiment_id)
    GROUP BY r.organization, r.experiment_id, r.step, r.arm
"""
_FORGET = """
    DELETE FROM experiments WHERE (organization, experiment_id) IN (
        SELECT organization, experiment_id FROM experiments WHERE stopped_at < $1 LIMIT $2
    )
"""
_ARMS = """
    SELECT DISTINCT ON (request_id) request_id, experiment_id, arm FROM decisions
    WHERE organization = $1 AND request_id = ANY($2::text[]::uuid[]) AND experiment_id <> '' AND shadow_of = ''
"""


class PostgresExperiments:
    """The ExperimentStore, and who was in which arm as the decisions have it."""

    def __init__(self, pool: asyncpg.Pool, *, running_max: int = RUNNING_MAX) -> None:
        self._pool = pool
        self._running_max = running_max

    async def create(self, experiment: Experiment, *, request_id: str, fingerprint: bytes) -> Experiment:
        """Writes an experiment down, or gives the stored one."""
        organization = experiment.organization
        async with writing(self._pool, "experiments") as connection:
            stored = await connection.fetchrow(_STORED, organization, request_id)
            if stored is not None:
                if stored["fingerprint"] != fingerprint:
                    raise RequestIdReused(request_id=request_id)
                return _experiment(stored)
            other = await connection.fetchrow(_OVERLAPPING, organization, experiment.scope, experiment.task)
            if other is not None:
                raise ExperimentOverlaps(experiment_id=str(other["experiment_id"]), scope=other["scope"], task=other["task"])
            await self._make_sure_of_room(connection, organization)
            await connection.execute(
                _INSERT,
                organization,
                experiment.experiment_id,
                request_id,
                fingerprint,
                experiment.scope,
                experiment.task,
                _terms(experiment),
                experiment.created_at,
                experiment.end_at,
            )
            return _experiment(await connection.fetchrow(_NUMBERED, organization, experiment.experiment_id))

    async def find(self, organization: str, experiment_id: str) -> Experiment | None:
        """One experiment."""
        try:
            name = UUID(experiment_id)
        except ValueError:
            return None
        async with connected(self._pool) as connection:
            row = await connection.fetchrow(_FIND, organization, name)
        return _experiment(row) if row is not None else None

    async def listed(self, page: Page) -> list[Experiment]:
        """Experiments, newest first."""
        organization = page.scope.split("/", 2)[1]
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_LISTED, organization, page.scope, page.state, page.before, page.rows_max)
        return [_experiment(row) for row in rows]

    async def after(self, number: int, *, rows_max: int) -> list[Experiment]:
        """Experiments that changed after a number."""
        async with connected(self._pool) as connection:
            return [_experiment(row) for row in await connection.fetch(_AFTER, number, rows_max)]

    async def change(self, key: Key, standing: Standing, *, version: int) -> Experiment | None:
        """Lets a running experiment stand otherwise, if it still has that version."""
        async with writing(self._pool, "experiments") as connection:
            row = await connection.fetchrow(
                _CHANGE,
                *key,
                version,
                int(standing.state),
                standing.reason,
                standing.step,
                standing.winner,
                standing.stopped_at,
            )
        return _experiment(row) if row is not None else None

    async def keep(self, replica_id: str, tallies: Sequence[KeptTally]) -> None:
        """Keeps what a replica has seen in all."""
        if not tallies:
            return
        rows = [
            (
                each.organization,
                each.experiment_id,
                each.step,
                each.arm,
                replica_id,
                *(getattr(each.tally, name) for name in SUMS),
            )
            for each in tallies
        ]
        async with connected(self._pool) as connection:
            await connection.executemany(_KEEP, rows)

    async def tallies(self, keys: Collection[Key]) -> dict[Key, dict[tuple[int, str], Tally]]:
        """What all replicas together have seen."""
        asked = sorted(keys)
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_TALLIES, [key[0] for key in asked], [key[1] for key in asked])
        found: dict[Key, dict[tuple[int, str], Tally]] = {}
        for row in rows:
            tally = Tally(**{name: int(row[name]) for name in SUMS})
            found.setdefault((row["organization"], str(row["experiment_id"])), {})[row["step"], row["arm"]] = tally
        return found

    async def forget(self, *, before: datetime, rows_max: int) -> int:
        """Deletes old experiments."""
        async with connected(self._pool) as connection:
            return int((await connection.execute(_FORGET, before, rows_max)).rsplit(" ", 1)[1])

    async def arms_of(self, organization: str, request_ids: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Experiment and arm by request."""
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_ARMS, organization, request_ids)
        return {str(row["request_id"]): (row["experiment_id"], row["arm"]) for row in rows}

    async def _make_sure_of_room(self, connection: Any, organization: str) -> None:
        counts = await connection.fetchrow(_COUNTS, organization)
        if counts["own"] >= self._running_max:
            raise ExperimentsFull(where="in this organisation", running_max=self._running_max)
        if counts["everybodys"] >= EVERYBODYS_RUNNING_MAX:
            raise ExperimentsFull(where="in all organisations", running_max=EVERYBODYS_RUNNING_MAX)


def _terms(experiment: Experiment) -> str:
    names = ("display_name", "kind", "metric", "harm_max", "confidence", "requests_max", "sticky", "canary_shares")
    said = {name: getattr(experiment, name) for name in names}
    return orjson.dumps({**said, "arms": [asdict(arm) for arm in experiment.arms]}).decode()


def _arm(given: dict[str, Any]) -> Arm:
    action = action_of(given["action"]) if given["action"] is not None else None
    return Arm(given["name"], given["model"], given["calibration_id"], action, given["share"])


def _experiment(row: asyncpg.Record) -> Experiment:
    terms, stopped_at, end_at = orjson.loads(row["terms"]), row["stopped_at"], row["end_at"]
    return Experiment(
        experiment_id=str(row["experiment_id"]),
        scope=row["scope"],
        task=row["task"],
        display_name=terms["display_name"],
        kind=Kind(terms["kind"]),
        arms=tuple(_arm(each) for each in terms["arms"]),
        metric=Metric(terms["metric"]),
        harm_max=terms["harm_max"],
        confidence=terms["confidence"],
        requests_max=terms["requests_max"],
        end_at=end_at.astimezone(UTC) if end_at is not None else None,
        sticky=terms["sticky"],
        canary_shares=tuple(terms["canary_shares"]),
        created_at=row["created_at"].astimezone(UTC),
        standing=Standing(
            state=State(row["state"]),
            reason=row["state_reason"],
            step=row["step"],
            winner=row["winner"],
            stopped_at=stopped_at.astimezone(UTC) if stopped_at is not None else None,
            version=row["version"],
        ),
        number=row["number"],
        serial=row["serial"],
    )
