"""Twenty seeded worlds without a violation, and proof that each planted bug is one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.simulation.bugs import BUGS, Plant
from tests.simulation.stage import open_stage
from tests.simulation.world import Stage, World

WORLDS_PER_BUG = 80


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url) as opened:
        yield opened


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
