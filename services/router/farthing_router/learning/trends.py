"""Whether something changes from day to day: a line through the days that outliers do not move, and whether it could be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farthing_router.calibration.forest import Floats

_DAYS_MIN = 5
_DAYS_MAX = 400
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Trend:
    """The change in a day, and whether that is more than chance would do, at 95 %."""

    per_day: float
    significant: bool


def trend(days: Sequence[float], values: Sequence[float]) -> Trend:
    """The median of all slopes between two days (Theil, 1950; Sen, 1968), tested by the signs of the changes (Mann, 1945; Kendall, 1975).

    Nothing is said of fewer than five days; only the last 400 are read.
    """
    x, y = np.asarray(days[-_DAYS_MAX:], dtype=np.float64), np.asarray(values[-_DAYS_MAX:], dtype=np.float64)
    if len(x) < _DAYS_MIN:
        return Trend(0.0, False)
    one, other = np.triu_indices(len(x), 1)
    apart = x[other] != x[one]
    slopes = (y[other] - y[one])[apart] / (x[other] - x[one])[apart]
    signs = float(np.sign(y[other] - y[one]).sum())
    _, ties = np.unique(y, return_counts=True)
    count = len(y)
    variance = (count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0 or not len(slopes):
        return Trend(0.0, False)
    z = (abs(signs) - 1) / math.sqrt(variance) if signs else 0.0
    return Trend(float(np.median(slopes)), z > _Z)


def ranks(values: Sequence[float]) -> Floats:
    """The place of each value among all; equal ones share theirs."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])
