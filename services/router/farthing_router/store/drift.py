"""Evidence of drift in Postgres: one row a calibration, changed under its lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import asyncpg

from farthing_router.calibration.checks import EvidenceRow
from farthing_router.store.connections import connected, writing

_LOCKED = "SELECT evidence FROM calibration_drift WHERE organization = $1 AND calibration_id::text = $2 FOR UPDATE"
_KEEP = """
    INSERT INTO calibration_drift (organization, calibration_id, evidence, updated_at)
    SELECT $1, calibration_id, $3, $4 FROM calibrations WHERE organization = $1 AND calibration_id::text = $2
    ON CONFLICT (organization, calibration_id)
    DO UPDATE SET evidence = excluded.evidence, updated_at = excluded.updated_at, number = nextval('calibration_changes')
"""
_AFTER = "SELECT * FROM calibration_drift WHERE number > $1 ORDER BY number LIMIT $2"


class PostgresEvidence:
    """The EvidenceStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, organization: str, calibration_id: str, merge: Callable[[bytes], bytes], *, at: datetime) -> None:
        """Changes what is kept of a calibration; of one that is not kept nothing is."""
        async with writing(self._pool, "calibration_drift") as connection:
            kept = await connection.fetchval(_LOCKED, organization, calibration_id)
            await connection.execute(_KEEP, organization, calibration_id, merge(kept or b""), at)

    async def after(self, number: int, *, rows_max: int) -> Sequence[EvidenceRow]:
        """The rows with larger numbers."""
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_AFTER, number, rows_max)
        return [
            EvidenceRow(row["number"], row["organization"], str(row["calibration_id"]), row["evidence"], row["updated_at"])
            for row in rows
        ]
