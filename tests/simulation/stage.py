"""Where worlds are played: two replicas of the real ledger on a real Postgres, with clocks of their own, and what may befall them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.postgres import PostgresLedger, open_ledger
from farthing_core.clock import ManualClock
from farthing_runtime.postgres import open_pool


class Skewed:
    """A replica's clock: everybody's, and a little beside it."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock, self.skew_s = clock, 0

    def now(self) -> datetime:
        """The moment, as this replica sees it."""
        return self._clock.now() + timedelta(seconds=self.skew_s)

    def monotonic_s(self) -> float:
        """Seconds that only go forward."""
        return self._clock.monotonic_s()


class Crash:
    """Breaks a replica's connection before one of its next statements, or right after its commit; once, or until it is mended."""

    def __init__(self) -> None:
        self.mend()

    def mend(self) -> None:
        """Nothing breaks any more."""
        self.statements_left: int | None = None
        self.after_commit = self.once = False

    @asynccontextmanager
    async def transaction(self, inner: Any) -> AsyncIterator[Any]:
        """A transaction that may break."""
        async with inner.transaction() as connection:
            yield _Fragile(connection, self) if self.statements_left is not None else connection
        if self.after_commit:
            self._break("the answer to COMMIT was lost")

    def tick(self) -> None:
        """Counts a statement; breaks at the one."""
        if self.statements_left is not None:
            self.statements_left -= 1
            if self.statements_left < 0:
                self._break("broken by the simulation")

    def _break(self, text: str) -> None:
        if self.once:
            self.mend()
        raise ConnectionResetError(text)


class _Fragile:
    def __init__(self, connection: Any, crash: Crash) -> None:
        self._connection, self._crash = connection, crash

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        if name not in ("fetch", "execute", "copy_records_to_table", "fetchval", "fetchrow"):
            return found

        async def call(*arguments: Any, **options: Any) -> Any:
            self._crash.tick()
            return await found(*arguments, **options)

        return call


class _Connection:
    """A replica's connection, as its crash leaves it."""

    def __init__(self, inner: Any, crash: Crash) -> None:
        self._inner, self._crash = inner, crash

    def transaction(self) -> Any:
        """A transaction that may break."""
        return self._crash.transaction(self._inner)


class Replica:
    """A process that keeps the ledger. Started anew it has forgotten everything that is not in the database."""

    def __init__(self, pool: asyncpg.Pool, clock: ManualClock) -> None:
        self._pool, self.clock, self.crash = pool, Skewed(clock), Crash()
        self._stack = AsyncExitStack()
        self.ledger: PostgresLedger

    async def start(self) -> None:
        """Starts, or starts anew."""
        await self._stack.aclose()
        self.ledger = await self._stack.enter_async_context(open_ledger(self._pool, self.clock))
        self.ledger._connection = _Connection(self.ledger._connection, self.crash)  # type: ignore[assignment]

    async def stop(self) -> None:
        """Ends."""
        await self._stack.aclose()


class Stage:
    """Two replicas, the clock that both look at, and what a person would look into the books with."""

    def __init__(self, clock: ManualClock, replicas: list[Replica], pool: asyncpg.Pool, watch: asyncpg.Connection) -> None:
        self.clock, self.replicas, self.watch = clock, replicas, watch
        self.budgets, self.journal = PostgresBudgets(pool, clock), PostgresJournal(pool)


@asynccontextmanager
async def open_stage(database_url: str) -> AsyncIterator[Stage]:
    """A stage, until the block ends."""
    async with AsyncExitStack() as stack:
        clock, replicas = ManualClock(), []
        for _ in range(2):
            pool = await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=3))
            replicas.append(Replica(pool, clock))
            stack.push_async_callback(replicas[-1].stop)
            await replicas[-1].start()
        # A connection beside the pool is not reset after every look.
        watch = await asyncpg.connect(database_url, server_settings={"search_path": "budget,public"})
        stack.push_async_callback(watch.close)
        yield Stage(clock, replicas, pool, watch)
