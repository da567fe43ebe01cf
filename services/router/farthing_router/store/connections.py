"""Connections to the router's schema, and writing rows in the order of their numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from farthing_runtime.postgres import unreachable_errors

from farthing_router.store import StoreUnavailable

_WAIT_S = 10.0


@asynccontextmanager
async def connected(pool: asyncpg.Pool) -> AsyncIterator[Any]:
    """A connection. Raises StoreUnavailable, also for what fails on it because the database is away."""
    try:
        async with pool.acquire(timeout=_WAIT_S) as connection:
            yield connection
    except unreachable_errors() as error:
        raise StoreUnavailable(problem=type(error).__name__) from error


@asynccontextmanager
async def writing(pool: asyncpg.Pool, table: str) -> AsyncIterator[Any]:
    """A connection in a transaction that has the table's turn: rows are committed in the order of their numbers. `table` is a name in
    the code, never input. Raises StoreUnavailable.
    """
    async with connected(pool) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        yield connection
