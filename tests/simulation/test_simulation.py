"""Twenty seeded worlds without a violation, and proof that each planted bug is one."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from farthing_budget.periods import period_bounds
from farthing_runtime.postgres import Cluster

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.simulation.bugs import BUGS, Plant
from tests.simulation.stage import Stage, open_stage
from tests.simulation.world import World

WORLDS_PER_BUG = 80


@pytest.fixture(scope="module")
async def shared_stage(postgres: Cluster) -> AsyncIterator[Stage]:
    """One stage for all worlds: each has an organisation of its own."""
    name = f"worlds_{os.getpid()}"
    administrator = await asyncpg.connect(postgres.url("postgres"))
    await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE "template_farthing"')
    async with open_stage(postgres.url(name)) as opened:
        yield opened
    await administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await administrator.close()


@pytest.fixture
async def stage(shared_stage: Stage) -> Stage:
    """The stage without anything that a bug before may have left in a memory."""
    period_bounds.cache_clear()
    for replica in shared_stage.replicas:
        replica.crash.mend()
        await replica.start()
    return shared_stage


async def test_twenty_worlds_hold_what_the_ledger_promises(stage: Stage) -> None:
    for seed in range(20):
        assert await World(seed, stage).run() == []


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
async def test_a_planted_bug_is_caught(stage: Stage, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(WORLDS_PER_BUG):
        if await World(seed, stage).run():
            return
    raise AssertionError(f"{WORLDS_PER_BUG} worlds did not notice a ledger that {plant.__name__.replace('_', ' ')}")
