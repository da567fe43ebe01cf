"""Keys on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
from farthing_core.scopes import Scope
from farthing_runtime.postgres import unreachable_errors

from farthing_gateway.keys import Key, StoreUnavailable

_INSERT = """
    INSERT INTO keys (organization, key_id, scope, display_name, prefix, secret_hash, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_FIND = "SELECT * FROM keys WHERE secret_hash = $1"
_LIST = """
    SELECT * FROM keys WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND ($3 = '' OR (created_at, key_id) > (SELECT created_at, key_id FROM keys WHERE organization = $1 AND key_id = $3))
    ORDER BY created_at, key_id LIMIT $4
"""
_REVOKE = "UPDATE keys SET revoked_at = coalesce(revoked_at, $3) WHERE organization = $1 AND key_id = $2 RETURNING *"


class PostgresKeys:
    """The KeyStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, organization: str, key: Key, digest: bytes) -> None:
        """Keeps a new key."""
        values = (key.key_id, key.scope, key.display_name, key.prefix, digest, key.created_at, key.expires_at)
        async with _reaching():
            await self._pool.execute(_INSERT, organization, *values)

    async def find(self, digest: bytes) -> Key | None:
        """The key of a secret's hash."""
        async with _reaching():
            row = await self._pool.fetchrow(_FIND, digest)
        return None if row is None else _key(row)

    async def list_from(self, scope: Scope, *, after: str, count_max: int) -> list[Key]:
        """Keys at and below a scope."""
        async with _reaching():
            rows = await self._pool.fetch(_LIST, scope.organization, scope.path, after, count_max)
        return [_key(row) for row in rows]

    async def revoke(self, organization: str, key_id: str, at: datetime) -> Key | None:
        """Ends a key."""
        async with _reaching():
            row = await self._pool.fetchrow(_REVOKE, organization, key_id, at)
        return None if row is None else _key(row)


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    try:
        yield
    except unreachable_errors() as error:
        raise StoreUnavailable from error


def _key(row: asyncpg.Record) -> Key:
    return Key(
        row["key_id"], row["scope"], row["display_name"], row["prefix"], row["created_at"], row["expires_at"], row["revoked_at"]
    )
