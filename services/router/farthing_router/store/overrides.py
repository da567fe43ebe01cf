"""What was said of deployments, in Postgres: a table that grows, of which the newest row of each deployment holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import asyncpg

from farthing_router.deployments.overrides import Override, OverrideRow, Said
from farthing_router.store import RequestIdReused
from farthing_router.store.connections import connected, writing

_KEPT = 100
_WRITTEN = "SELECT * FROM deployment_overrides WHERE organization = '' AND request_id = $1::text::uuid"
_HOLDING = """
    SELECT DISTINCT ON (deployment) * FROM deployment_overrides WHERE organization = '' ORDER BY deployment, number DESC
"""
_INSERT = """
    INSERT INTO deployment_overrides (organization, deployment, weight, enabled, request_id, fingerprint, recorded_at)
    VALUES ('', $1, $2, $3, $4::text::uuid, $5, now()) RETURNING *
"""
_FORGET = """
    DELETE FROM deployment_overrides WHERE organization = '' AND deployment = $1 AND number <= (
        SELECT number FROM deployment_overrides WHERE organization = '' AND deployment = $1 ORDER BY number DESC OFFSET $2 LIMIT 1
    )
"""
_AFTER = f"SELECT * FROM ({_HOLDING}) AS holding WHERE number > $1 ORDER BY number LIMIT $2"


class PostgresOverrides:
    """The OverrideStore. Of each deployment the last hundred rows are kept."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def change(self, said: Said, decide: Callable[[Mapping[str, Override]], Override]) -> OverrideRow:
        """Writes what `decide` makes of all overrides that hold."""
        async with writing(self._pool, "deployment_overrides") as connection:
            stored = await connection.fetchrow(_WRITTEN, said.request_id)
            if stored is not None:
                if stored["fingerprint"] != said.fingerprint:
                    raise RequestIdReused(request_id=said.request_id)
                return _row(stored)
            holding = [_row(row).override for row in await connection.fetch(_HOLDING)]
            new = decide({each.deployment: each for each in holding})
            row = await connection.fetchrow(_INSERT, new.deployment, new.weight, new.enabled, said.request_id, said.fingerprint)
            await connection.execute(_FORGET, new.deployment, _KEPT)
            return _row(row)

    async def after(self, number: int, *, rows_max: int) -> list[OverrideRow]:
        """The rows that hold with larger numbers."""
        async with connected(self._pool) as connection:
            return [_row(row) for row in await connection.fetch(_AFTER, number, rows_max)]


def _row(row: asyncpg.Record) -> OverrideRow:
    return OverrideRow(row["number"], Override(row["deployment"], row["weight"], row["enabled"]))
