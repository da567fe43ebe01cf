"""Ten seeded worlds without a violation, and proof that a planted bug is one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from farthing_budget.operations import Operation, Reserve
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.postgres import open_ledger
from farthing_core.clock import ManualClock
from farthing_runtime.postgres import open_pool

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.simulation.world import run_world


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        clock, replicas = ManualClock(), []
        for _ in range(2):
            pool = await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=3))
            replicas.append(await stack.enter_async_context(open_ledger(pool, clock)))
        yield replicas, PostgresBudgets(pool, clock), clock


async def test_ten_worlds_hold_what_the_ledger_promises(stage: Any) -> None:
    replicas, budgets, clock = stage
    for seed in range(10):
        assert await run_world(seed, replicas, budgets, clock) == []


class Generous:
    """A planted bug: it holds a tenth of what was asked."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    async def commit(self, operations: Sequence[Operation]) -> list[Any]:
        shrunk = [
            replace(each, amount_usd_nanos=each.amount_usd_nanos // 10) if isinstance(each, Reserve) else each
            for each in operations
        ]
        found: list[Any] = await self._ledger.commit(shrunk)
        return found


class Deaf:
    """A planted bug: it forgets the second half of every batch."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    async def commit(self, operations: Sequence[Operation]) -> list[Any]:
        half = operations[: max(1, len(operations) // 2)]
        found: list[Any] = await self._ledger.commit(half)
        return found + [found[-1]] * (len(operations) - len(half))


@pytest.mark.parametrize("bug", [Generous, Deaf])
async def test_a_planted_bug_is_caught(stage: Any, bug: Any) -> None:
    replicas, budgets, clock = stage
    violations = [line for seed in range(3) for line in await run_world(seed, [bug(each) for each in replicas], budgets, clock)]
    assert violations
