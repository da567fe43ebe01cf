"""The error budget's mathematics: kept in simulated worlds, without starving hits, and again after the world has changed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from farthing_cache.certifying.thresholds import NEVER, Losses, Prior, bucket_of, check_chance, pooled, threshold, wrong_upper

BUDGET = 0.01
PRIOR = Prior(probability_min=0.95, wrong_upper=0.01)


@dataclass
class World:
    """Look-ups whose candidates are wrong with `slope` times their doubt. Hits are checked with a chance, misses are all compared."""

    seed: int
    slope: float
    rows: dict[float, Losses] = field(default_factory=dict)
    wrong: int = 0
    hits: int = 0
    minimum: float = 0.0
    check: float = 0.0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def run(self, lookups: int) -> None:
        for number in range(lookups):
            if number % 300 == 0:
                self.minimum = threshold([*self.rows.values()], PRIOR, budget=BUDGET, evidence="global").probability_min
                suspended, lookups = self.minimum >= NEVER, sum(row.lookups for row in self.rows.values())
                self.check = check_chance(lookups=lookups, usual=0.02, suspended=suspended)
            self._look_up()

    def _look_up(self) -> None:
        chance = self.check
        row = self.rows.get(chance, Losses(chance, 0, {}, {}))
        row = self.rows[chance] = Losses(chance, row.lookups + 1, row.hits, row.misses)
        if self.chance.random() < 0.6:
            return
        probability = 1 - 0.6 * self.chance.random() ** 2
        wrong, bucket = self.chance.random() < self.slope * (1 - probability), bucket_of(probability)
        if probability >= self.minimum:
            self.hits += 1
            self.wrong += wrong
            if wrong and self.chance.random() < chance:
                row.hits[bucket] = row.hits.get(bucket, 0) + 1  # type: ignore[index]
        elif wrong:
            row.misses[bucket] = row.misses.get(bucket, 0) + 1  # type: ignore[index]


@pytest.mark.parametrize("slope", [0.3, 1.0, 6.0])
def test_wrong_answers_stay_within_the_budget_in_nineteen_worlds_of_twenty_and_hits_are_not_starved(slope: float) -> None:
    worlds = [World(seed, slope) for seed in range(40)]
    for world in worlds:
        world.run(6_000)
    assert sum(world.wrong <= BUDGET * 6_000 for world in worlds) >= 0.95 * len(worlds)
    assert sum(world.hits for world in worlds) / (6_000 * len(worlds)) >= 0.06


def test_a_world_that_turns_worse_ends_with_a_higher_threshold() -> None:
    world = World(7, 0.3)
    world.run(2_000)
    before, world.slope = world.minimum, 12.0
    world.run(6_000)
    assert world.minimum > before


def test_without_evidence_the_shipped_threshold_is_in_force_and_a_tighter_budget_asks_for_more() -> None:
    assert threshold([], PRIOR, budget=BUDGET, evidence="default").probability_min == 0.95
    assert 0.95 < threshold([], PRIOR, budget=BUDGET / 2, evidence="default").probability_min < 1
    assert threshold([], PRIOR, budget=BUDGET / 4, evidence="default").suspended


def test_wrong_hits_among_the_surest_suspend_and_clean_comparisons_bring_hits_back() -> None:
    bad = Losses(0.1, 100, {bucket_of(1.0): 5}, {})
    assert threshold([bad], PRIOR, budget=BUDGET, evidence="global").suspended
    clean = Losses(1.0, 6_000, {}, {})
    assert not threshold([bad, clean], PRIOR, budget=BUDGET, evidence="global").suspended


def test_little_evidence_of_a_category_is_shrunk_towards_all_together() -> None:
    all_together = [Losses(0.1, 50_000, {}, {})]
    own = [Losses(0.1, 20, {bucket_of(0.99): 1}, {})]
    alone, shrunk = wrong_upper(own, 0.95), wrong_upper(pooled(own, all_together, weight_lookups=10_000), 0.95)
    assert shrunk < alone
