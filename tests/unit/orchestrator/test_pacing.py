"""How a budget stands, from what the ledger said last."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from farthing_orchestrator.pacing import Paces
from farthing_orchestrator.request import BudgetLeft, BudgetPace

START = datetime(2026, 7, 1, tzinfo=UTC)
LEFT = BudgetLeft("monthly", "organizations/acme", 250, None, 1_000, START, START + timedelta(days=30))
SCOPE = "organizations/acme/workspaces/search"


def pace(left: BudgetLeft, *, days: float) -> BudgetPace | None:
    paces = Paces()
    paces.learn(SCOPE, left)
    return paces.of(SCOPE, START + timedelta(days=days))


def test_the_pace_is_what_is_used_of_the_limit_and_what_has_passed_of_the_period() -> None:
    assert pace(LEFT, days=15) == BudgetPace(0.75, 0.5)
    assert pace(replace(LEFT, free_usd_nanos=-100), days=3) == BudgetPace(1.1, 0.1)


def test_nobody_knows_a_pace_without_a_limit_of_money_or_a_period_or_after_it() -> None:
    assert Paces().of(SCOPE, START) is None
    assert pace(LEFT, days=30) is None
    assert pace(replace(LEFT, limit_usd_nanos=None), days=1) is None
    assert pace(replace(LEFT, free_usd_nanos=None), days=1) is None
    assert pace(replace(LEFT, period_start=None, period_end=None), days=1) is None


def test_only_the_scopes_used_last_are_remembered() -> None:
    paces = Paces()
    for number in range(10_001):
        paces.learn(f"organizations/o{number}", LEFT)
    assert paces.of("organizations/o0", START) is None
    assert paces.of("organizations/o1", START) is not None
