"""Data keys in Postgres: an organisation's changes wait for one another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from farthing_runtime.postgres import unreachable_errors

from farthing_privacy.keys.masters import Wrapped
from farthing_privacy.store import Erasure, KeysErased, KeyState, RequestIdReused, Rotation, StoredKey, StoreUnavailable

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('farthing/keys/' || $1, 0))"
_LIVE = """
    SELECT number, master_key_id, wrapped FROM data_keys WHERE organization = $1 AND purpose = $2 AND wrapped IS NOT NULL ORDER BY number
"""
_LATEST_ERASURE = """
    SELECT may_begin_again FROM key_erasures WHERE organization = $1 AND purpose IN ($2, '') ORDER BY number DESC LIMIT 1
"""
_PURPOSES = "SELECT DISTINCT purpose FROM data_keys WHERE organization = $1 AND wrapped IS NOT NULL ORDER BY purpose"
_NEXT = "SELECT coalesce(max(number), 0) + 1 FROM data_keys WHERE organization = $1 AND purpose = $2"
_ADD = """
    INSERT INTO data_keys (organization, purpose, number, master_key_id, wrapped, created_at) VALUES ($1, $2, $3, $4, $5, $6)
"""
_REPLACE = "UPDATE data_keys SET master_key_id = $4, wrapped = $5 WHERE organization = $1 AND purpose = $2 AND number = $3"
_ERASE = """
    UPDATE data_keys SET wrapped = NULL, master_key_id = '', erased_at = $3, erased_by = $4
    WHERE organization = $1 AND $2 IN (purpose, '') AND wrapped IS NOT NULL
"""
_NOTE_ERASURE = """
    INSERT INTO key_erasures (organization, purpose, may_begin_again, erased, erased_at, actor, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_ROTATION = "SELECT fingerprint, made, rewrapped FROM key_rotations WHERE organization = $1 AND request_id = $2::text::uuid"
_NOTE_ROTATION = """
    INSERT INTO key_rotations (organization, request_id, fingerprint, made, rewrapped, rotated_at)
    VALUES ($1, $2::text::uuid, $3, $4, $5, $6)
"""
_STATES = """
    SELECT purpose, number, master_key_id, created_at, erased_at, erased_by FROM data_keys
    WHERE organization = $1 AND (purpose, number) > ($2, $3) ORDER BY purpose, number LIMIT $4
"""


class PostgresKeys:
    """The KeyStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def live(self, organization: str, purpose: str) -> list[StoredKey]:
        """Keys that still decrypt."""
        async with self._connection() as connection:
            return await _live(connection, organization, purpose)

    @asynccontextmanager
    async def changing(self, organization: str) -> AsyncIterator[PostgresKeyChanges]:
        """One transaction under the organisation's lock."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(_LOCK, organization)
            yield PostgresKeyChanges(connection, organization)

    async def states(self, organization: str, *, after: tuple[str, int], count_max: int) -> list[KeyState]:
        """A page of keys."""
        async with self._connection() as connection:
            return [KeyState(*row) for row in await connection.fetch(_STATES, organization, *after, count_max)]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire(timeout=10.0) as connection:
                yield connection
        except unreachable_errors() as error:
            raise StoreUnavailable(problem=type(error).__name__) from error


class PostgresKeyChanges:
    """The KeyChanges of a transaction."""

    def __init__(self, connection: Any, organization: str) -> None:
        self._connection = connection
        self._organization = organization

    async def check_not_erased(self, purpose: str) -> None:
        """The latest word on the purpose, or on all of them, counts."""
        if await self._connection.fetchval(_LATEST_ERASURE, self._organization, purpose) is False:
            raise KeysErased(organization=self._organization, purpose=purpose)

    async def purposes(self) -> list[str]:
        """Purposes with keys."""
        return [row["purpose"] for row in await self._connection.fetch(_PURPOSES, self._organization)]

    async def live(self, purpose: str) -> list[StoredKey]:
        """Keys that still decrypt."""
        return await _live(self._connection, self._organization, purpose)

    async def next_number(self, purpose: str) -> int:
        """One more than the highest, erased ones counted."""
        return int(await self._connection.fetchval(_NEXT, self._organization, purpose))

    async def add(self, key: StoredKey, *, at: datetime) -> None:
        """Keeps a new key."""
        await self._connection.execute(_ADD, *_columns(key), at)

    async def replace(self, key: StoredKey) -> None:
        """Keeps what was wrapped anew."""
        await self._connection.execute(_REPLACE, *_columns(key))

    async def erase(self, erasure: Erasure, *, at: datetime) -> int:
        """Keys and audit row in one transaction."""
        done = await self._connection.execute(_ERASE, self._organization, erasure.purpose, at, erasure.actor)
        erased = int(done.split()[-1])
        values = (erasure.purpose, erasure.may_begin_again, erased, at, erasure.actor, erasure.reason)
        await self._connection.execute(_NOTE_ERASURE, self._organization, *values)
        return erased

    async def rotation(self, request_id: str, fingerprint: bytes) -> Rotation | None:
        """What was done before."""
        row = await self._connection.fetchrow(_ROTATION, self._organization, request_id)
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise RequestIdReused(request_id=request_id)
        return Rotation(row["made"], row["rewrapped"])

    async def note_rotation(self, request_id: str, fingerprint: bytes, rotation: Rotation, *, at: datetime) -> None:
        """Writes it down."""
        values = (request_id, fingerprint, rotation.made, rotation.rewrapped, at)
        await self._connection.execute(_NOTE_ROTATION, self._organization, *values)


async def _live(connection: Any, organization: str, purpose: str) -> list[StoredKey]:
    rows = await connection.fetch(_LIVE, organization, purpose)
    return [StoredKey(organization, purpose, row["number"], Wrapped(row["master_key_id"], row["wrapped"])) for row in rows]


def _columns(key: StoredKey) -> tuple[Any, ...]:
    return key.organization, key.purpose, key.number, key.wrapped.master_key_id, key.wrapped.wrapped
