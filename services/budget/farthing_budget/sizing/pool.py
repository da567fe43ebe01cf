"""What running streams may still cost, as a vector that adds up over streams, and the bound that its sum gives.

A `Risk` is a tuple of `RISK_SIZE` floats. For each of the two memories of the learner it holds b, the cost that a stream exceeds with
probability ε at most, and K(θ) = ln E exp(θ · min(cost, b)) for every θ of `THETAS`. A `Pool` is the sum over the running streams.
By Markov's inequality the sum of independent costs exceeds (ΣK(θ) + ln 1/δ) / θ with probability δ at most, for every θ (Chernoff,
Annals of Mathematical Statistics 23, 1952), and Σb is never exceeded by costs that keep below their own b.

Every number is a multiple of 2⁻²⁰, so that sums are exact up to 2³³: added and taken away in any order, on any replica, in Python or
in a database's float8, a pool comes back to precisely zero when its last stream ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, log
from operator import add as _plus
from operator import sub as _minus

TAIL = 0.005
"""ε: how often one stream may cost more than its b."""
MISS = 0.01
"""δ: how often the streams of a pool may together cost more than the bound."""
THETAS = tuple(10.0 ** (-11.0 + 0.37 * step) for step in range(21))
"""θ in 1/nanodollars. The best θ is near √(2 ln(1/δ) / streams) / deviation: the ends serve a few streams at 20 dollars a billion
tokens and a hundred thousand at 600 dollars a million."""
MEMORIES = 2
RISK_SIZE = MEMORIES * (1 + len(THETAS))

Risk = tuple[float, ...]
Pool = tuple[float, ...]
NO_RISK: Risk = (0.0,) * RISK_SIZE

_QUANTA = float(2**20)
_LN_ODDS = -log(MISS)
_INVERSES = tuple(1.0 / theta for theta in THETAS)
_SPANS = tuple((start, start + 1, start + 1 + len(THETAS)) for start in range(0, RISK_SIZE, 1 + len(THETAS)))


def add(pool: Pool, risk: Risk) -> Pool:
    """The pool with one more stream, or with all the streams of another pool."""
    return tuple(map(_plus, pool, risk))


def subtract(pool: Pool, risk: Risk) -> Pool:
    """The pool without a stream: with the same risk that was added for it, exactly as it was before."""
    return tuple(map(_minus, pool, risk))


def bound(pool: Pool) -> int:
    """B, in nanodollars: what the streams of a pool may still cost together, by the memory that expects more."""
    return max(_bound(pool, span) for span in _SPANS)


def worst(pool: Pool) -> int:
    """Σb, in nanodollars: never below `bound`, and much quicker to have."""
    return int(max(pool[span[0]] for span in _SPANS))


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Values rounded up to multiples of 2⁻²⁰, as every part of a risk must be."""
    return tuple([ceil(value * _QUANTA) / _QUANTA for value in values])


def _bound(pool: Pool, span: tuple[int, int, int]) -> int:
    total, first, end = span
    worst_usd_nanos = pool[total]
    if worst_usd_nanos <= 0.0:
        return 0
    pooled = min([(k + _LN_ODDS) * inverse for k, inverse in zip(pool[first:end], _INVERSES, strict=True)])
    return ceil(float(min(worst_usd_nanos, pooled)))
