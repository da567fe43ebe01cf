"""Histograms with buckets that grow by a fixed ratio: a quantile read from one is within five percent, and adding two up loses nothing.

The idea is that of DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
2019), with a bounded range instead of buckets that collapse: what is smaller or larger than the range counts as its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log
from typing import Any

import numpy as np

BUCKETS = 160
RATIO = 1.1
"""A bucket's upper end is this many times its lower end, so that its middle is at most (RATIO − 1) / (RATIO + 1) = 4.8 % off."""
_PER_LOG = 1 / log(RATIO)


class Scale:
    """Buckets from `smallest` up: number 0 holds all that is not above it, number i what is above smallest · RATIO^(i−1) up to RATIO^i."""

    def __init__(self, smallest: float) -> None:
        self._smallest = smallest
        self._middles = smallest * RATIO ** np.arange(BUCKETS) * 2 / (RATIO + 1)

    def bucket(self, value: float) -> int:
        """The bucket that a value belongs to."""
        if value <= self._smallest:
            return 0
        return min(BUCKETS - 1, ceil(log(value / self._smallest) * _PER_LOG))

    @property
    def largest(self) -> float:
        """The largest value that a quantile is within five percent of."""
        return float(self._smallest * RATIO ** (BUCKETS - 1))

    def quantiles(self, counts: Any, shares: tuple[float, ...]) -> Any:
        """For each row of counts and each share, the value that so large a share of the row does not exceed; NaN for an empty row."""
        totals = np.cumsum(np.asarray(counts, dtype=np.float64).reshape(-1, BUCKETS), axis=1)
        found = np.full((len(totals), len(shares)), np.nan)
        for column, share in enumerate(shares):
            wanted = np.maximum(1.0, np.ceil(share * totals[:, -1] - 1e-9))
            found[:, column] = self._middles[np.argmax(totals >= wanted[:, None], axis=1)]
        found[totals[:, -1] < 1] = np.nan
        return found


LATENCY_MS = Scale(1.0)
"""From a millisecond to an hour."""
TOKENS_PER_S = Scale(0.05)
"""From a token in twenty seconds to hundreds of thousands a second."""


def dense(counts: Mapping[int, int]) -> list[int]:
    """Counts with a place for every bucket."""
    return [counts.get(number, 0) for number in range(BUCKETS)]
