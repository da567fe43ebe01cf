"""Connections: what it means that the database is away, and the one connection that commits batches."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import asyncpg
from farthing_runtime.postgres import unreachable_errors

from farthing_budget.refusals import LedgerBusy, StoreUnavailable

_ACQUIRE_TIMEOUT_S = 10.0
_SESSION = """
    SET synchronous_commit = on;
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '10s';
"""
SHORT_OF_PATIENCE = "SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '10s'"
"""The same for one transaction of any connection. Whoever stops in the middle of something (a process that is frozen, a network that is
cut) loses its locks; whoever waits for them longer is told.
"""
_MOMENT = struct.Struct("!q")
_YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def away_errors() -> tuple[type[BaseException], ...]:
    """What asyncpg raises when the database cannot do its work now.

    It is out of reach, shutting down, read-only, out of resources, or failing inside, which is also how it says that a file may not grow.
    """
    return (
        *unreachable_errors(),
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.PostgresSystemError,
        asyncpg.InternalServerError,
        asyncpg.InvalidTransactionStateError,
    )


@contextmanager
def reaching() -> Iterator[None]:
    """Raises StoreUnavailable for what the block raises because the database is away, and LedgerBusy for locks that nobody lets go."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise LedgerBusy from error
    except away_errors() as error:
        raise StoreUnavailable from error


class LaneConnection:
    """One connection of the pool, kept: giving it back after every batch would cost a reset each time.

    Its plans always go through the indexes. The tables grow from empty to millions of rows under statements that were planned once, and
    a plan made for an empty table reads all of it. A connection that broke is thrown away and the next transaction opens another.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()
        self._connection: Any = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A READ COMMITTED transaction, one at a time; rolled back when the block raises."""
        async with self._turn:
            connection = await self._ready()
            try:
                async with connection.transaction():
                    yield connection
            except away_errors():
                await self._throw_away()
                raise
            except asyncio.CancelledError:
                await self._throw_away()
                raise

    async def close(self) -> None:
        """Gives the connection back to the pool."""
        async with self._turn:
            await self._give_back()

    async def _ready(self) -> Any:
        if self._connection is not None and _is_gone(self._connection):
            await self._give_back()
        if self._connection is None:
            connection = await self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S)
            self._connection = connection
            try:
                await connection.execute(_SESSION)
                await connection.set_type_codec(
                    "timestamptz", schema="pg_catalog", encoder=_moment_sent, decoder=_moment_read, format="binary"
                )
            except BaseException:
                await self._throw_away()
                raise
        return self._connection

    async def _throw_away(self) -> None:
        if self._connection is not None and not _is_gone(self._connection):
            self._connection.terminate()
        await self._give_back()

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*away_errors()):
                await self._pool.release(connection)


def _is_gone(connection: Any) -> bool:
    """Whether a pool's connection is closed. The pool takes back one that breaks, and then asking it anything is an error."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


@lru_cache(maxsize=256)
def _moment_sent(moment: datetime) -> bytes:
    """A moment as Postgres writes it, in microseconds since 2000. A batch writes the same few moments into all its rows, and working them
    out anew for each is most of what writing a row costs.
    """
    return _MOMENT.pack((moment - _YEAR_2000) // _MICROSECOND)


def _moment_read(sent: bytes) -> datetime:
    (microseconds,) = _MOMENT.unpack(sent)
    return _YEAR_2000 + timedelta(microseconds=microseconds)
