"""Concentration, the risk of outages, and advice that is measured as it is given."""

from __future__ import annotations

import itertools
from math import prod
from typing import Any

import pytest
from farthing_router.performance.dependence import unavailability
from farthing_router.performance.diversification import State, Target, Traffic, Workload, advise, hhi, level
from farthing_router.performance.sums import OutageMinutes
from hypothesis import given, settings
from hypothesis import strategies as st

PROVIDERS = ("a", "b", "c", "d")
SHARES = st.floats(min_value=0.0001, max_value=0.5)


def by_enumeration(state: State) -> float:
    """Expected share of failed requests, over every combination of outages."""
    total, names = sum(each.requests for each in state.workloads), sorted(state.unavailability)
    risk = 0.0
    for away in itertools.product((False, True), repeat=len(names)):
        gone = {name for name, is_away in zip(names, away, strict=True) if is_away}
        chance = prod(state.unavailability[name] if name in gone else 1 - state.unavailability[name] for name in names)
        risk += chance * sum(each.requests for each in state.workloads if each.reachable <= gone)
    return risk / total


WORKLOADS = st.builds(
    lambda task, provider, others, requests: Workload(task, provider, frozenset({provider, *others}), requests),
    st.sampled_from(("x", "y")),
    st.sampled_from(PROVIDERS),
    st.sets(st.sampled_from(PROVIDERS), max_size=3),
    st.integers(1, 1_000),
)
STATES = st.builds(
    lambda loads, away, costs: State(
        tuple(
            Traffic(task, provider, f"{provider}-model", 10.0, float(cost))
            for (task, provider), cost in zip(itertools.product(("x", "y"), PROVIDERS), costs, strict=True)
        ),
        tuple(loads),
        dict(zip(PROVIDERS, away, strict=True)),
    ),
    st.lists(WORKLOADS, min_size=1, max_size=6),
    st.tuples(*(SHARES for _ in PROVIDERS)),
    st.lists(st.integers(1, 10**6), min_size=8, max_size=8),
)


@settings(deadline=None)
@given(STATES)
def test_risk_is_what_enumerating_all_outages_gives(state: State) -> None:
    assert state.risk() == pytest.approx(by_enumeration(state), rel=1e-9)


def everywhere(usd_nanos_per_call: float = 100.0, **values: Any) -> dict[tuple[str, str], list[Target]]:
    return {
        (task, provider): [Target(to, f"{to}-model", usd_nanos_per_call, **values) for to in PROVIDERS if to != provider]
        for task, provider in itertools.product(("x", "y"), PROVIDERS)
    }


@settings(max_examples=60, deadline=None)
@given(STATES, st.floats(min_value=0, max_value=10**5))
def test_advice_is_measured_as_enumeration_measures_it_and_its_parts_add_up(state: State, cost: float) -> None:
    advice, after = advise(state, everywhere(cost))
    assert after.risk() == pytest.approx(by_enumeration(after), rel=1e-9)
    assert state.risk() - after.risk() == pytest.approx(sum(each.risk_reduction for each in advice), abs=1e-12)
    assert state.hhi() - after.hhi() == pytest.approx(sum(each.hhi_reduction for each in advice), abs=1e-6)
    changed = sum(after.costs().values()) - sum(state.costs().values())
    assert changed == pytest.approx(sum(each.cost_usd_nanos_change for each in advice), abs=1 + len(advice))
    assert sum(after.attempts().values()) == pytest.approx(sum(state.attempts().values()))
    assert sum(each.requests for each in after.workloads) == pytest.approx(sum(each.requests for each in state.workloads))
    for each in advice:
        assert each.hhi_reduction > 0
        assert each.risk_reduction >= -1e-12
        assert 0 < each.share <= 1


def one_provider(quality: float | None = None) -> State:
    traffic = (Traffic("x", "a", "a-model", 1_000, 100_000, quality),)
    return State(traffic, (Workload("x", "a", frozenset("a"), 1_000),), {"a": 0.01, "b": 0.02, "c": 0.05, "d": 0.5})


def test_everything_at_one_provider_is_moved_in_part_to_the_one_that_is_least_away() -> None:
    state = one_provider()
    assert (state.hhi(), state.risk()) == (10_000, 0.01)
    advice, after = advise(state, everywhere())
    assert (advice[0].from_provider, advice[0].target.provider) == ("a", "b")
    assert after.hhi() < 5_100
    assert after.risk() < 0.001


def test_a_move_that_costs_much_quality_is_not_advised_and_a_small_change_is_told() -> None:
    state = one_provider(quality=0.9)
    assert advise(state, everywhere(quality=0.8)) == ([], state)
    advice, _ = advise(state, everywhere(quality=0.875))
    assert advice[0].quality_change == pytest.approx(-0.025)
    unknown, _ = advise(state, everywhere())
    assert unknown[0].quality_change is None


def test_nothing_is_advised_where_nobody_else_could_take_over_or_nothing_was_called() -> None:
    state = one_provider()
    assert advise(state, {}) == ([], state)
    empty = State((), (), {})
    assert advise(empty, everywhere()) == ([], empty)
    assert (empty.hhi(), empty.risk()) == (0, 0)


def test_fallbacks_at_other_providers_lower_the_risk() -> None:
    alone = one_provider()
    backed = State(alone.traffic, (Workload("x", "a", frozenset("ab"), 1_000),), alone.unavailability)
    assert backed.risk() == pytest.approx(0.01 * 0.02)


def test_an_index_has_a_word() -> None:
    assert hhi([1, 1, 1, 1]) == pytest.approx(2_500)
    assert hhi([]) == hhi([0, 0]) == 0
    assert [level(index) for index in (1_499.9, 1_500, 2_500, 2_500.1)] == ["low", "moderate", "moderate", "high"]


def test_nobody_is_taken_to_be_always_there_and_what_is_seen_counts_more_and_more() -> None:
    assert unavailability(None) == pytest.approx(0.001)
    assert 0 < unavailability(OutageMinutes("p", 40_000, 0)) < 0.0001
    assert unavailability(OutageMinutes("p", 10_000, 1_000)) == pytest.approx(0.1, rel=0.1)
