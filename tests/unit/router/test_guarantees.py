"""A promise of quality holds as often as it says."""

from __future__ import annotations

import numpy as np
from farthing_router.calibration.guarantees import examples_needed, fixed_sequence, lower_bound

FLOOR = 0.95
LEVELS = np.linspace(0.0, 0.3, 31)


def excess(count: int, *, seed: int) -> np.ndarray:
    """Served quality less the promised share, where each step of the sequence loses a percent more of the strong model's."""
    rng = np.random.default_rng(seed)
    strong = rng.random(count) < 0.9
    draw, luck = rng.random(count), rng.random(count)
    lost = draw[None, :] < LEVELS[:, None]
    served = np.where(lost, luck < 0.5, strong)
    return served - FLOOR * strong


def truly_kept(level: int) -> bool:
    served = 0.9 * (1 - LEVELS[level]) + 0.5 * LEVELS[level]
    return bool(served >= FLOOR * 0.9)


def test_a_promise_is_broken_in_at_most_as_many_worlds_as_it_says() -> None:
    broken = 0
    for seed in range(600):
        tested = fixed_sequence(excess(400, seed=seed), confidence=0.95)
        broken += tested.passed is not None and not truly_kept(tested.passed)
    assert broken / 600 <= 0.05 + 0.02


def test_a_horizon_asks_for_more() -> None:
    values = excess(400, seed=1)[5]
    assert lower_bound(values, confidence=0.95, horizon=400) < lower_bound(values, confidence=0.95)


def test_more_examples_promise_more() -> None:
    few, many = (fixed_sequence(excess(count, seed=3), confidence=0.95) for count in (150, 20_000))
    assert many.passed is not None
    assert (few.passed if few.passed is not None else -1) < many.passed
    assert truly_kept(many.passed)


def test_examples_that_are_alike_by_luck_prove_little() -> None:
    assert lower_bound(np.zeros(60), confidence=0.95) < -0.01
    assert lower_bound(np.array([1.0]), confidence=0.95) == -np.inf


def test_what_would_be_needed_is_said() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0.02, 0.3, 100)
    needed = examples_needed(values, confidence=0.95)
    assert needed is not None
    assert needed > 100
    assert examples_needed(-np.abs(values), confidence=0.95) is None
