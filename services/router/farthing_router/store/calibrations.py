"""Calibrations in Postgres."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import asyncpg
import orjson
from farthing_core.scopes import parse_scope

from farthing_router.calibration.kept import (
    Activation,
    Calibration,
    CalibrationsFull,
    CalibrationUnknown,
    NewCalibration,
    Point,
    Report,
    State,
    Wanted,
)
from farthing_router.store import RequestIdReused
from farthing_router.store.connections import connected, writing

_COLUMNS = """
    organization, number, created_number, calibration_id, scope, task, version, state, report, created_at, activated_at, retired_at
"""
_BY_REQUEST = (
    f"SELECT {_COLUMNS}, fingerprint, policy FROM calibrations WHERE organization = $1 AND request_id = $2::text::uuid"
)
_COUNT = "SELECT count(*) FROM calibrations WHERE organization = $1"
_INSERT = f"""
    INSERT INTO calibrations (organization, calibration_id, request_id, fingerprint, scope, task, version, report, policy, created_at)
    SELECT $1, $2::text::uuid, $3::text::uuid, $4, $5, $6, coalesce(max(version), 0) + 1, $7::text::jsonb, $8, $9
    FROM calibrations WHERE organization = $1 AND scope = $5 AND task = $6
    RETURNING {_COLUMNS}, policy
"""
_GET = f"SELECT {_COLUMNS}, policy FROM calibrations WHERE organization = $1 AND calibration_id::text = $2"
_LIST = f"""
    SELECT {_COLUMNS}, NULL::bytea AS policy FROM calibrations
    WHERE organization = $1 AND (scope = ANY($2) OR ($3 AND scope LIKE $4)) AND ($5 = '' OR task = $5)
      AND ($6::bigint IS NULL OR created_number < $6) ORDER BY created_number DESC LIMIT $7
"""
_RETIRE = """
    UPDATE calibrations SET state = 3, retired_at = $4, number = nextval('calibration_changes')
    WHERE organization = $1 AND scope = $2 AND task = $3 AND state = 2 RETURNING calibration_id::text
"""
_ACTIVATE = f"""
    UPDATE calibrations SET state = 2, activated_at = $3, retired_at = NULL, number = nextval('calibration_changes')
    WHERE organization = $1 AND calibration_id::text = $2 RETURNING {_COLUMNS}, policy
"""
_FORGET = """
    UPDATE calibration_drift SET evidence = '', number = nextval('calibration_changes')
    WHERE organization = $1 AND calibration_id::text = $2
"""
_ACTIVATED = "SELECT * FROM calibration_activations WHERE organization = $1 AND request_id = $2::text::uuid"
_NOTE = """
    INSERT INTO calibration_activations (organization, request_id, fingerprint, calibration_id, retired_calibration_id, activated_at)
    VALUES ($1, $2::text::uuid, $3, $4, $5, $6)
"""
_AFTER = f"""
    SELECT {_COLUMNS}, CASE WHEN state = 2 THEN policy END AS policy FROM calibrations WHERE number > $1 ORDER BY number LIMIT $2
"""


class PostgresCalibrations:
    """The CalibrationStore."""

    def __init__(self, pool: asyncpg.Pool, *, calibrations_max: int) -> None:
        self._pool = pool
        self._calibrations_max = calibrations_max

    async def find_request(self, organization: str, request_id: str) -> tuple[Calibration, bytes] | None:
        """What was made under a request_id."""
        async with connected(self._pool) as connection:
            row = await connection.fetchrow(_BY_REQUEST, organization, request_id)
            return (_row(row), row["fingerprint"]) if row is not None else None

    async def add(
        self, new: NewCalibration, *, request_id: str, fingerprint: bytes, activate: bool
    ) -> tuple[Calibration, bool]:
        """Keeps a calibration, or gives the stored one."""
        async with writing(self._pool, "calibrations") as connection:
            stored = await connection.fetchrow(_BY_REQUEST, new.organization, request_id)
            if stored is not None:
                if stored["fingerprint"] != fingerprint:
                    raise RequestIdReused(request_id=request_id)
                return _row(stored), True
            if await connection.fetchval(_COUNT, new.organization) >= self._calibrations_max:
                raise CalibrationsFull(calibrations_max=self._calibrations_max)
            row = await connection.fetchrow(
                _INSERT,
                new.organization,
                new.calibration_id,
                request_id,
                fingerprint,
                new.scope,
                new.task,
                orjson.dumps(asdict(new.report)).decode(),
                zlib.compress(new.policy, 6),
                new.created_at,
            )
            if not activate:
                return _row(row), False
            await connection.fetch(_RETIRE, new.organization, new.scope, new.task, new.created_at)
            return _row(await connection.fetchrow(_ACTIVATE, new.organization, new.calibration_id, new.created_at)), False

    async def get(self, organization: str, calibration_id: str) -> Calibration:
        """One, with its policy."""
        async with connected(self._pool) as connection:
            return await _known(connection, organization, calibration_id)

    async def list_from(self, wanted: Wanted, *, rows_max: int) -> list[Calibration]:
        """Calibrations, newest first."""
        scope = parse_scope(wanted.scope)
        below = scope.path.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "/%"
        values = (wanted.organization, list(scope.ancestors), wanted.descendants, below, wanted.task, wanted.before, rows_max)
        async with connected(self._pool) as connection:
            return [_row(row) for row in await connection.fetch(_LIST, *values)]

    async def activate(
        self, scope: str, task: str, calibration_id: str, *, request_id: str, fingerprint: bytes, at: datetime
    ) -> Activation:
        """Puts a calibration in force, or none."""
        organization = parse_scope(scope).organization
        async with writing(self._pool, "calibrations") as connection:
            noted = await connection.fetchrow(_ACTIVATED, organization, request_id)
            if noted is not None:
                if noted["fingerprint"] != fingerprint:
                    raise RequestIdReused(request_id=request_id)
                named = noted["calibration_id"]
                now = await _known(connection, organization, named) if named else None
                return Activation(now, noted["retired_calibration_id"])
            if calibration_id:
                made = (await _known(connection, organization, calibration_id)).made
                scope, task = made.scope, made.task
            retired = await connection.fetchval(_RETIRE, organization, scope, task, at) or ""
            row = await connection.fetchrow(_ACTIVATE, organization, calibration_id, at) if calibration_id else None
            await connection.execute(_FORGET, organization, calibration_id)
            was = "" if retired == calibration_id else retired
            await connection.execute(_NOTE, organization, request_id, fingerprint, calibration_id, was, at)
            return Activation(_row(row) if row is not None else None, was)

    async def after(self, number: int, *, rows_max: int) -> Sequence[Calibration]:
        """The rows with larger numbers."""
        async with connected(self._pool) as connection:
            return [_row(row) for row in await connection.fetch(_AFTER, number, rows_max)]


async def _known(connection: Any, organization: str, calibration_id: str) -> Calibration:
    row = await connection.fetchrow(_GET, organization, calibration_id)
    if row is None:
        raise CalibrationUnknown(calibration_id=calibration_id)
    return _row(row)


def _row(row: asyncpg.Record) -> Calibration:
    return Calibration(
        row["number"],
        NewCalibration(
            calibration_id=str(row["calibration_id"]),
            organization=row["organization"],
            scope=row["scope"],
            task=row["task"],
            report=_report(orjson.loads(row["report"])),
            policy=zlib.decompress(row["policy"]) if row["policy"] else b"",
            created_at=row["created_at"],
        ),
        row["version"],
        State(row["state"]),
        row["created_number"],
        row["activated_at"],
        row["retired_at"],
    )


_REPORT_FIELDS = frozenset(each.name for each in fields(Report))


def _report(given: dict[str, Any]) -> Report:
    """A report; what a newer version wrote besides is passed over."""
    known = {name: value for name, value in given.items() if name in _REPORT_FIELDS}
    for name in ("saving", "quality_ratio", "opening_models", "alternative_models", "notes"):
        known[name] = tuple(known.get(name, ()))
    return Report(**{**known, "curve": tuple(Point(**point) for point in known["curve"])})
