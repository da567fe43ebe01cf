"""Pacing: a budget lasts its period, and buys more quality than when it is spent until it is empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from farthing_router.learning.pacing import Pacer
from farthing_router.routing.routes import BudgetPace, Wish

SCOPE = "organizations/acme"
BASE = 10_000


def wish(pace: BudgetPace | None) -> Wish:
    return Wish(
        model="",
        task="chat",
        tier="",
        needs=frozenset(),
        images=0,
        input_tokens={},
        bytes_bound=0,
        output_tokens_max=None,
        allowed_providers=frozenset(),
        open_models_only=False,
        baseline_model="",
        baseline_input_tokens={},
        scope=SCOPE,
        budget_pace=pace,
    )


@dataclass
class Day:
    """A period of requests: at each, what a strong answer would gain and cost beyond the cheap one, and when it comes."""

    gains: list[float]
    costs: list[float]
    times: list[float]
    limit: float


def requests(seed: int, *, share: float, count: int = 6_000, busy: Callable[[float], float] = lambda at: at) -> Day:
    rng = Random(seed)
    gains = [max(0.0, rng.betavariate(0.4, 2.5) - 0.02) for _ in range(count)]
    costs = [rng.lognormvariate(11.0, 0.5) for _ in range(count)]
    return Day(gains, costs, [busy(number / count) for number in range(count)], share * sum(costs))


def spent_and_quality(day: Day, point: Callable[[BudgetPace], float]) -> tuple[float, float, float]:
    """Follows a period: the share of the limit that was spent, the quality gained, and when the money ran out (1: not before the end)."""
    spent = quality = 0.0
    out = 1.0
    for gain, cost, at in zip(day.gains, day.costs, day.times, strict=True):
        worth = 100 * gain * point(BudgetPace(spent / day.limit, at)) >= cost
        if worth and spent + cost > day.limit:
            out = min(out, at)
        elif worth:
            spent, quality = spent + cost, quality + gain
    return spent / day.limit, quality, out


@pytest.mark.parametrize("share", [0.15, 0.3, 0.45])
@pytest.mark.parametrize(
    "busy", [lambda at: at, lambda at: at**1.5, lambda at: 0.5 * at + 0.5 * at * at], ids=["even", "early", "late"]
)
def test_a_paced_budget_lasts_its_period_and_buys_more_quality_than_greed(share: float, busy: Callable[[float], float]) -> None:
    day = requests(7, share=share, busy=busy)
    pacer = Pacer(baseline_usd_nanos=lambda asked: 0)
    spent, quality, out = spent_and_quality(
        day, lambda pace: pacer.usd_nanos_per_quality_point(wish(pace), base_usd_nanos=1_000_000)
    )
    greedy_spent, greedy_quality, greedy_out = spent_and_quality(day, lambda pace: 1_000_000)
    assert greedy_out < 0.8, "without pacing the money runs out early"
    assert 0.94 <= spent <= 1.0
    assert out >= 0.96
    assert quality > 1.15 * greedy_quality
    assert greedy_spent <= 1.0


def test_an_ample_budget_is_not_paced() -> None:
    day = requests(3, share=1.5)
    pacer = Pacer(baseline_usd_nanos=lambda asked: 0)
    _, paced, _ = spent_and_quality(day, lambda pace: pacer.usd_nanos_per_quality_point(wish(pace), base_usd_nanos=1_000_000))
    _, free, _ = spent_and_quality(day, lambda pace: 1_000_000)
    assert paced >= 0.99 * free


def test_without_a_pace_the_price_is_the_rules_own() -> None:
    pacer = Pacer(baseline_usd_nanos=lambda asked: 50_000)
    assert pacer.usd_nanos_per_quality_point(wish(None), base_usd_nanos=BASE) == BASE
    assert pacer.usd_nanos_per_quality_point(wish(None), base_usd_nanos=0) == 0
    assert pacer.usd_nanos_per_quality_point(wish(BudgetPace(0.2, 0.5)), base_usd_nanos=0) == 0


def test_a_budget_ahead_of_its_time_gives_quality_a_price_where_it_had_none_and_lowers_the_one_it_had() -> None:
    pacer = Pacer(baseline_usd_nanos=lambda asked: 50_000)
    ahead, empty = BudgetPace(0.7, 0.5), BudgetPace(1.0, 0.5)
    assert 0 < pacer.usd_nanos_per_quality_point(wish(ahead), base_usd_nanos=0) < 10_000
    assert 0 < pacer.usd_nanos_per_quality_point(wish(ahead), base_usd_nanos=BASE) < BASE
    assert 1 <= pacer.usd_nanos_per_quality_point(wish(empty), base_usd_nanos=BASE) <= BASE / 100


def test_a_new_period_or_a_raised_budget_begins_afresh() -> None:
    pacer = Pacer(baseline_usd_nanos=lambda asked: 0)
    for used in range(50):
        pacer.factor(SCOPE, BudgetPace(used / 50, 0.1))
    assert pacer.factor(SCOPE, BudgetPace(0.99, 0.1)) < 0.01
    assert pacer.factor(SCOPE, BudgetPace(0.0, 0.0)) == 1.0
    for used in range(50):
        pacer.factor(SCOPE, BudgetPace(used / 50, 0.1))
    assert pacer.factor(SCOPE, BudgetPace(0.1, 0.1)) == 1.0


def test_scopes_are_paced_each_by_its_own_budget() -> None:
    pacer = Pacer(baseline_usd_nanos=lambda asked: 0)
    assert pacer.factor("organizations/acme", BudgetPace(0.9, 0.1)) < 0.1
    assert pacer.factor("organizations/other", BudgetPace(0.1, 0.1)) == 1.0
