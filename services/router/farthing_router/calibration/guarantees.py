"""Which thresholds a promise holds for: learn-then-test (Angelopoulos et al., 2021) with a fixed sequence, so that no correction
is needed.

The sequence starts where every answer is bought from the strong model, which keeps every promise, and goes on while the lower confidence
bound of (served quality − floor × strong quality) stays above zero. The first threshold that fails ends it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from farthing_router.calibration.forest import Floats


@dataclass(frozen=True, slots=True)
class Tested:
    """The last threshold of the sequence that passed (None: not even the first did), and the lower bound there."""

    passed: int | None
    bound: float


def fixed_sequence(excess: Floats, *, confidence: float, horizon: int | None = None) -> Tested:
    """Tests thresholds (rows) in order on `excess`, served quality minus the promised share of the strong model's for each example
    (columns).

    `horizon`: the promise is to hold for that many further requests as counted afterwards; None: in the long run.
    """
    passed, bound = None, -math.inf
    for number, row in enumerate(excess):
        lower = lower_bound(row, confidence=confidence, horizon=horizon)
        if lower < 0:
            break
        passed, bound = number, lower
    return Tested(passed, bound)


def lower_bound(values: Floats, *, confidence: float, horizon: int | None = None) -> float:
    """The lower confidence bound of a mean: mean − z · sd · √(1/n + 1/horizon).

    Few examples may all be alike by luck, so one more that differs by a whole point is counted in the deviation.
    """
    if len(values) < 2:
        return -math.inf
    z = NormalDist().inv_cdf(confidence)
    spread = math.sqrt(1 / len(values) + (1 / horizon if horizon else 0.0))
    return float(np.mean(values) - z * _deviation(values) * spread)


def examples_needed(values: Floats, *, confidence: float) -> int | None:
    """How many examples like these would show that their mean is above zero; None where it is not."""
    mean, deviation = float(np.mean(values)), _deviation(values)
    if mean <= 0:
        return None
    return math.ceil((NormalDist().inv_cdf(confidence) * deviation / mean) ** 2) + 1


def _deviation(values: Floats) -> float:
    return math.sqrt(float(np.var(values, ddof=1)) + 1 / len(values))
