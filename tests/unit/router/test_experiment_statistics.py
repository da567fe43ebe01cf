"""Statistics that may be looked at all the time: wrong as seldom as they say, and not blind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

import pytest
from farthing_router.experiments.statistics import (
    VALUES_MIN,
    Bounded,
    Compared,
    Moments,
    difference,
    evidence_against,
    evidence_of_difference,
    interval,
    paired_difference,
    paired_ratio_of_typical,
    ratio_of_means,
    ratio_of_typical,
)

ALPHA = 0.05
Draw = Callable[[Random], float]


def bounded(values: Iterable[float]) -> Bounded:
    """Sums over values, each guessed by those before it."""
    count, total, spread = 0, 0.0, 0.0
    for value in values:
        spread += (value - (0.5 + total) / (1 + count)) ** 2
        count, total = count + 1, total + value
    return Bounded(count, total, spread)


class Growing:
    """Sums that grow value by value."""

    def __init__(self) -> None:
        self.count, self.total, self.spread, self.squares = 0, 0.0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.spread += (value - (0.5 + self.total) / (1 + self.count)) ** 2
        self.count, self.total, self.squares = self.count + 1, self.total + value, self.squares + value * value

    @property
    def bounded(self) -> Bounded:
        return Bounded(self.count, self.total, self.spread)

    @property
    def moments(self) -> Moments:
        mean = self.total / max(1, self.count)
        return Moments(self.count, mean, max(0.0, self.squares / max(1, self.count) - mean * mean))


def coin(chance: float) -> Draw:
    return lambda rng: float(rng.random() < chance)


def looks(most: int) -> list[int]:
    """When one looks: all the time, a little less often later."""
    found, at = [], 5.0
    while at <= most:
        found.append(int(at))
        at = max(at + 1, at * 1.07)
    return found


@pytest.mark.parametrize(
    ("draw", "mean"),
    [(coin(0.5), 0.5), (coin(0.02), 0.02), (coin(0.97), 0.97), (lambda rng: rng.betavariate(16, 4), 0.8)],
    ids=["even", "rare", "common", "scores"],
)
def test_whoever_looks_all_the_time_finds_the_true_mean_outside_as_seldom_as_promised(draw: Draw, mean: float) -> None:
    rng, runs, most, wrong = Random(11), 600, 600, 0
    watched = set(looks(most))
    for _ in range(runs):
        seen = Growing()
        for number in range(1, most + 1):
            seen.add(draw(rng))
            if number in watched and evidence_against(seen.bounded, mean) >= math.log(1 / ALPHA):
                wrong += 1
                break
    assert wrong / runs <= ALPHA


@pytest.mark.parametrize(("chance", "share"), [(0.1, 0.5), (0.7, 0.5), (0.03, 0.05)])
def test_two_arms_that_do_not_differ_are_told_apart_as_seldom_as_promised(chance: float, share: float) -> None:
    rng, runs, most, wrong = Random(12), 150, 800, 0
    watched, draw = set(looks(most)), coin(chance)
    for _ in range(runs):
        arms = (Growing(), Growing())
        for number in range(1, most + 1):
            arms[rng.random() < share].add(draw(rng))
            if number in watched and all(arm.count for arm in arms) and told_apart(*arms):
                wrong += 1
                break
    assert wrong / runs <= ALPHA


def heavy(rng: Random) -> float:
    """Mostly one, now and then twenty: a cascade that sometimes buys the dear model."""
    return 20.0 if rng.random() < 0.02 else 1.0


@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
@pytest.mark.parametrize("draw", [heavy, lambda rng: rng.lognormvariate(0, 1.5)], ids=["two prices", "long tail"])
def test_costs_that_do_not_differ_are_told_apart_as_seldom_as_promised(draw: Draw, share: float) -> None:
    rng, runs, most, wrong = Random(13), 120, 4_000, 0
    for _ in range(runs):
        arms = (Growing(), Growing())
        for number in range(most):
            arms[rng.random() < share].add(draw(rng))
            if number % 20 == 0:
                found = ratio_of_means(arms[0].moments, arms[1].moments, alpha=ALPHA)
                if found is not None and not found.lower <= 0 <= found.upper:
                    wrong += 1
                    break
    assert wrong / runs <= ALPHA


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_latencies_that_do_not_differ_are_told_apart_as_seldom_as_promised(share: float) -> None:
    rng, runs, most, wrong = Random(14), 120, 3_000, 0
    for _ in range(runs):
        arms = (Growing(), Growing())
        for number in range(most):
            arms[rng.random() < share].add(rng.gauss(6, 0.8) + 2 * (rng.random() < 0.03))
            if number % 20 == 0:
                found = ratio_of_typical(arms[0].moments, arms[1].moments, alpha=ALPHA)
                if found is not None and not found.lower <= 0 <= found.upper:
                    wrong += 1
                    break
    assert wrong / runs <= ALPHA


def found_after(compare: Callable[[Growing, Growing], bool], first: Draw, other: Draw, *, most: int, seed: int = 15) -> int:
    """After how many requests, split evenly, a difference is found; the median over runs, and `most` where it is not."""
    rng, ends = Random(seed), []
    for _ in range(15):
        arms, end = (Growing(), Growing()), most
        for number in range(most):
            which = rng.random() < 0.5
            arms[which].add((other if which else first)(rng))
            if number % 25 == 24 and min(arms[0].count, arms[1].count) and compare(*arms):
                end = number + 1
                break
        ends.append(end)
    return sorted(ends)[len(ends) // 2]


def told_apart(first: Growing, other: Growing) -> bool:
    return evidence_of_difference(first.bounded, other.bounded, 0.0) >= math.log(1 / ALPHA)


@pytest.mark.parametrize(
    ("first", "other", "most"),
    [(coin(0.9), coin(0.75), 700), (coin(0.01), coin(0.5), 100), (coin(0.01), coin(0.06), 1_600)],
)
def test_a_difference_that_matters_is_found_in_time(first: Draw, other: Draw, most: int) -> None:
    assert found_after(told_apart, first, other, most=3 * most) <= most


def test_scores_that_vary_little_are_told_apart_sooner_than_a_coin_of_the_same_mean() -> None:
    steady = found_after(told_apart, lambda rng: rng.betavariate(64, 16), lambda rng: rng.betavariate(57, 18), most=4_000)
    coins = found_after(told_apart, coin(0.8), coin(0.76), most=4_000)
    assert steady < coins / 2


def test_half_the_cost_is_found_within_a_few_hundred_requests_and_a_fifth_less_within_a_few_thousand() -> None:
    def cheaper(first: Growing, other: Growing) -> bool:
        found = ratio_of_means(first.moments, other.moments, alpha=ALPHA)
        return found is not None and found.upper < 0

    for factor, most in ((0.5, 500), (0.8, 2_500)):
        lower = math.log(factor)
        cheap, usual = partial(Random.lognormvariate, mu=lower, sigma=1), partial(Random.lognormvariate, mu=0, sigma=1)
        assert found_after(cheaper, usual, cheap, most=2 * most) <= most


def test_pairs_of_the_same_requests_tell_arms_apart_that_single_requests_do_not() -> None:
    rng = Random(16)
    first, other, longer = Growing(), Growing(), Growing()
    for _ in range(300):
        hard = rng.gauss(0, 1)
        fast, slow = hard + rng.gauss(6, 0.1), hard + rng.gauss(6.1, 0.1)
        first.add(fast)
        other.add(slow)
        longer.add(slow - fast)
    single = ratio_of_typical(first.moments, other.moments, alpha=ALPHA)
    paired = paired_ratio_of_typical(longer.moments, alpha=ALPHA)
    assert single is not None
    assert paired is not None
    assert single.lower < 0 < paired.lower < math.expm1(0.1) < paired.upper


def test_an_interval_and_its_p_value_say_the_same() -> None:
    for good in range(40, 100, 5):
        first, other = bounded([1.0] * 60 + [0.0] * 40), bounded([1.0] * good + [0.0] * (100 - good))
        found = difference(first, other, alpha=ALPHA)
        assert found is not None
        assert found.lower <= found.value <= found.upper
        assert (found.p_value < ALPHA) == (not found.lower <= 0 <= found.upper)


def test_intervals_narrow_as_values_come_and_stay_within_what_can_be() -> None:
    before = 1.0
    for count in (0, 1, 10, 100, 1_000, 10_000):
        lower, upper = interval(bounded([1.0, 0.0] * (count // 2)), alpha=ALPHA)
        assert 0 <= lower <= 0.5 <= upper <= 1
        assert upper - lower <= before
        before = upper - lower
    assert before < 0.05


def test_the_order_of_replicas_does_not_matter_since_only_sums_do() -> None:
    one, other = bounded([0.9, 0.7, 0.8] * 20), bounded([0.2, 0.1] * 30)
    whole = Bounded(one.count + other.count, one.total + other.total, one.spread + other.spread)
    assert interval(whole, alpha=ALPHA) == interval(
        Bounded(other.count + one.count, other.total + one.total, other.spread + one.spread), alpha=ALPHA
    )


def test_with_few_values_nothing_is_said_of_what_has_no_limit() -> None:
    few, enough = Moments(VALUES_MIN - 1, 1.0, 0.0), Moments(VALUES_MIN, 1.0, 0.0)
    assert ratio_of_means(few, enough, alpha=ALPHA) is None
    assert ratio_of_typical(enough, few, alpha=ALPHA) is None
    assert paired_ratio_of_typical(few, alpha=ALPHA) is None
    assert paired_difference(Bounded(0, 0.0, 0.0), alpha=ALPHA) is None
    assert difference(Bounded(0, 0.0, 0.0), bounded([1.0]), alpha=ALPHA) is None
    assert ratio_of_means(Moments(100, 0.0, 0.0), enough, alpha=ALPHA) is None


def test_a_few_equal_costs_make_nobody_sure_that_arms_are_equal() -> None:
    found = ratio_of_means(Moments(VALUES_MIN, 1.0, 0.0), Moments(VALUES_MIN, 1.0, 0.0), alpha=ALPHA)
    assert isinstance(found, Compared)
    assert found.lower < -0.3
    assert found.upper > 0.3


def test_paired_costs_are_compared_by_what_the_same_requests_cost() -> None:
    rng = Random(17)
    first, other, products = Growing(), Growing(), 0.0
    for _ in range(2_000):
        size = rng.lognormvariate(0, 1)
        first.add(size)
        other.add(0.8 * size)
        products += 0.8 * size * size
    covariance = products / first.count - first.moments.mean * other.moments.mean
    single = ratio_of_means(first.moments, other.moments, alpha=ALPHA)
    paired = ratio_of_means(first.moments, other.moments, alpha=ALPHA, covariance=covariance)
    assert single is not None
    assert paired is not None
    assert paired.value == pytest.approx(-0.2)
    assert (paired.upper - paired.lower) < (single.upper - single.lower) / 3
    assert paired.p_value < 1e-6
