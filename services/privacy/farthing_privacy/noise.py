"""Discrete Laplace noise with a proof, and its width.

The sum is exact: Python's integers do not overflow, and cutting it to 64 bits at the end moves no two sums further apart. The noise is
OpenDP's (integers throughout, a cryptographic source of chance; Ghosh, Roughgarden and Sundararajan 2012, sampled as in Canonne, Kamath
and Steinke 2020). OpenDP's privacy map is asked before every release, and a release whose map exceeds its ε is not made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from farthing_core.errors import FarthingError

EPSILON_MICROS = 1_000_000
_INT64_MAX = 2**63 - 1
_SCALE_STEPS_MAX = 64


class NoiseUnproven(FarthingError):
    """OpenDP's privacy map says more than the ε that was asked for: no release is made.

    It depends on the question alone, never on the data.
    """

    def __init__(self, *, epsilon_micros: int, sensitivity: int) -> None:
        super().__init__("the noise cannot be proven private enough", epsilon_micros=epsilon_micros, sensitivity=sensitivity)


def noised_sum(contributions: Iterable[int], *, contribution_max: int, epsilon_micros: int) -> int:
    """The sum of the contributions, each cut to 0…contribution_max, with ε-differentially private noise.

    Adding, removing or changing one contribution moves the exact sum by at most `contribution_max`. Raises NoiseUnproven.
    """
    measurement = _laplace(sensitivity=contribution_max, epsilon_micros=epsilon_micros)
    exact = sum(min(max(contribution, 0), contribution_max) for contribution in contributions)
    value: int = measurement(min(exact, _INT64_MAX))
    return value


def noise_half_width_95(*, sensitivity: int, epsilon_micros: int) -> int:
    """The least k for which |noise| ≤ k with probability 95 % or more; cut to 64 bits.

    From P(|X| > k) = 2 q^(k+1) / (1 + q) with q = exp(−ε / sensitivity).
    """
    rate = epsilon_micros / EPSILON_MICROS / sensitivity
    tail = 0.05 * (1 + math.exp(-rate)) / 2
    return min(max(0, math.ceil(-math.log(tail) / rate) - 1), _INT64_MAX)


def _laplace(*, sensitivity: int, epsilon_micros: int):  # type: ignore[no-untyped-def]  # OpenDP comes without types
    import opendp.prelude as dp

    dp.enable_features("contrib")
    epsilon = Fraction(epsilon_micros, EPSILON_MICROS)
    space = dp.atom_domain(T=dp.i64), dp.absolute_distance(T=dp.i64)
    # The nearest double to sensitivity / ε may lie just below it: then the map says a hair too much, and the next double will do.
    scale = float(sensitivity / epsilon)
    for _ in range(_SCALE_STEPS_MAX):
        measurement = dp.m.make_laplace(*space, scale=scale)
        if Fraction(measurement.map(sensitivity)) <= epsilon:
            return measurement
        scale = math.nextafter(scale, math.inf)
    raise NoiseUnproven(epsilon_micros=epsilon_micros, sensitivity=sensitivity)
