"""What running streams may still cost, as a vector that adds up over streams, and the bound that its sum gives.

A `Risk` is a tuple of `RISK_SIZE` whole numbers. For each of the two memories of the learner it holds b, the nanodollars that a stream
exceeds with probability ε at most, and K(θ) = ln E exp(θ · min(cost, b)) for every θ of `THETAS`, in 2⁻²⁰. A `Pool` is the sum over the
running streams. By Markov's inequality the sum of independent costs exceeds (ΣK(θ) + ln 1/δ) / θ with probability δ at most, for every θ
(Chernoff, Annals of Mathematical Statistics 23, 1952), and Σb is never exceeded by costs that keep below their own b.

Sums of whole numbers are exact: added and taken away in any order, on any replica, a pool comes back to precisely nothing when its last
stream ends. No pool is let grow past a Σb of NANOS_MAX, which keeps every part of it well within 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, floor, log
from operator import add as _plus
from operator import neg as _negated
from operator import sub as _minus

TAIL = 0.01
"""ε: how often one stream may cost more than its b."""
MISS = 0.05
"""δ: how often the streams of a pool may together cost more than the bound."""
THETAS = tuple(10.0 ** (-11.0 + 0.37 * step) for step in range(21))
"""θ in 1/nanodollars. The best θ is near √(2 ln(1/δ) / streams) / deviation: the ends serve a few streams at 20 dollars a billion
tokens and a hundred thousand at 600 dollars a million."""
MEMORIES = 2
RISK_SIZE = MEMORIES * (1 + len(THETAS))

Risk = tuple[int, ...]
Pool = tuple[int, ...]
NO_RISK: Risk = ()

_QUANTA = 2**20
_LN_ODDS = ceil(-log(MISS) * _QUANTA)
_INVERSES = tuple(1.0 / theta / _QUANTA for theta in THETAS)
_SPANS = tuple((start, start + 1, start + 1 + len(THETAS)) for start in range(0, RISK_SIZE, 1 + len(THETAS)))


def add(pool: Pool, risk: Risk) -> Pool:
    """The pool with one more stream, with all the streams of another pool, or with a `change` of one of its streams."""
    if not pool or not risk:
        return pool or risk
    added = tuple(map(_plus, pool, risk))
    return added if any(added) else NO_RISK


def change(before: Risk, after: Risk) -> Risk:
    """What to add to a pool in which a stream has another risk than before, or none any more (`after` is NO_RISK)."""
    if not before:
        return after
    return tuple(map(_minus, after, before)) if after else tuple(map(_negated, before))


def bound(pool: Pool) -> int:
    """B, in nanodollars: what the streams of a pool may still cost together, by the memory that expects more."""
    return max([_bound(pool, span) for span in _SPANS]) if pool else 0


def worst(*pools: Pool) -> int:
    """Σb of all of these together, in nanodollars: never below their `bound`, and much quicker to have."""
    return max([sum([pool[first] for pool in pools if pool]) for first, _, _ in _SPANS])


def part_of(worst_usd_nanos: int, ks: Iterable[float]) -> Risk:
    """One memory's part of a risk: b, and K(θ) by θ. No K is above θ · b, so that a stream never adds more to a bound than its b."""
    tops = [theta * worst_usd_nanos * _QUANTA for theta in THETAS]
    return worst_usd_nanos, *[max(0, min(ceil(k * _QUANTA), floor(top))) for k, top in zip(ks, tops, strict=True)]


def _bound(pool: Pool, span: tuple[int, int, int]) -> int:
    total, first, end = span
    pooled: float = min([(k + _LN_ODDS) * inverse for k, inverse in zip(pool[first:end], _INVERSES, strict=True)])
    return min(pool[total], ceil(pooled))
