"""Where worlds are played: two replicas of the real ledger on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.postgres import open_ledger
from farthing_core.clock import ManualClock
from farthing_runtime.postgres import open_pool

from tests.simulation.world import Crash, Stage


@asynccontextmanager
async def open_stage(database_url: str) -> AsyncIterator[Stage]:
    """A stage, until the block ends."""
    async with AsyncExitStack() as stack:
        clock, replicas = ManualClock(), []
        for _ in range(2):
            pool = await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=3))
            replicas.append(await stack.enter_async_context(open_ledger(pool, clock)))
        crashes = [Crash(replica) for replica in replicas]
        yield Stage(clock, replicas, crashes, PostgresBudgets(pool, clock), PostgresJournal(pool), pool)
