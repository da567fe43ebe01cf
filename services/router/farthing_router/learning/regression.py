"""A ridge regression whose predictions are calibrated on what they were held out from.

The penalty is the one with the least leave-one-out error, which ridge regression has in closed form (Golub, Heath and Wahba, 1979).
Held-out predictions (five folds) are then mapped to what was observed by a rising step function (pool adjacent violators: Ayer et al.,
1955), or by a logistic curve while there is too little for steps (Platt, 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from farthing_router.calibration.forest import Floats

_PENALTIES = np.geomspace(1.0, 30_000.0, 12)
_FOLDS = 5
_STEPS_FROM = 300
_KNOTS = 24
_CLIP = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """Weights over standardised features (a missing one counts as average), and the curve from predictions to calibrated values."""

    mean: Floats
    deviation: Floats
    weights: Floats
    intercept: float
    knots: Floats
    values: Floats

    def raw(self, rows: Floats) -> Floats:
        """Predictions for rows, not calibrated."""
        return np.asarray(standard(rows, self.mean, self.deviation) @ self.weights + self.intercept)

    def calibrated(self, features: Floats) -> float:
        """The calibrated prediction for one row."""
        if len(features) != len(self.mean):
            return float(self.values.mean())
        return float(np.interp(self.raw(features[None, :])[0], self.knots, self.values))


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A regression and its predictions for the rows it was fitted on, each made without its row's fold and calibrated without it too."""

    regression: Regression
    held_out: Floats


def fit_regression(rows: Floats, targets: Floats) -> Fit:
    """The regression of targets (0 to 1) on rows; NaN is missing. At least ten rows."""
    fold = np.arange(len(rows)) % _FOLDS
    raw = np.zeros(len(rows))
    for number in range(_FOLDS):
        inside = fold != number
        mean, deviation, weights, intercept = _ridge(rows[inside], targets[inside])
        raw[~inside] = standard(rows[~inside], mean, deviation) @ weights + intercept
    held_out = np.zeros(len(rows))
    for number in range(_FOLDS):
        inside = fold != number
        knots, values = _curve(raw[inside], targets[inside])
        held_out[~inside] = np.interp(raw[~inside], knots, values)
    mean, deviation, weights, intercept = _ridge(rows, targets)
    knots, values = _curve(raw, targets)
    return Fit(Regression(mean, deviation, weights, intercept, knots, values), held_out)


def standard(rows: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Standardised, bounded, with nothing missing."""
    return np.clip(np.nan_to_num((rows - mean) / deviation, nan=0.0, posinf=_CLIP, neginf=-_CLIP), -_CLIP, _CLIP)


def _ridge(rows: Floats, targets: Floats) -> tuple[Floats, Floats, Floats, float]:
    seen = np.isfinite(rows)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, rows, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(seen, rows - mean, 0.0) ** 2).sum(axis=0) / count)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    centred = standard(rows, mean, deviation)
    centre, level = centred.mean(axis=0), float(targets.mean())
    centred = centred - centre
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    projected = left.T @ (targets - level)
    best, weights = math.inf, np.zeros(rows.shape[1])
    for penalty in _PENALTIES:
        shrunk = singular**2 / (singular**2 + penalty)
        residual = targets - level - left @ (shrunk * projected)
        leverage = (left**2) @ shrunk + 1 / len(rows)
        error = float(np.mean((residual / np.maximum(1e-6, 1 - leverage)) ** 2))
        if error < best:
            best, weights = error, right.T @ (singular / (singular**2 + penalty) * projected)
    return mean, deviation, weights, level - float(centre @ weights)


def _curve(raw: Floats, targets: Floats) -> tuple[Floats, Floats]:
    if len(raw) < _STEPS_FROM:
        return _logistic(raw, targets)
    order = np.argsort(raw, kind="stable")
    levels: list[float] = []
    weights: list[float] = []
    ends: list[float] = []
    for block in np.array_split(order, max(2, len(raw) // 12)):
        levels.append(float(targets[block].mean()))
        weights.append(float(len(block)))
        ends.append(float(raw[block].mean() * len(block)))
        while len(levels) > 1 and levels[-2] >= levels[-1]:
            weight = weights[-2] + weights[-1]
            levels[-2:] = [(levels[-2] * weights[-2] + levels[-1] * weights[-1]) / weight]
            ends[-2:] = [ends[-2] + ends[-1]]
            weights[-2:] = [weight]
    knots = np.array([end / weight for end, weight in zip(ends, weights, strict=True)])
    return knots, np.clip(np.array(levels), 0.01, 0.99)


def _logistic(raw: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """A logistic curve through few points, held near the straight line by a weak prior; as knots."""
    centre, scale = float(raw.mean()), float(raw.std()) or 1.0
    x = (raw - centre) / scale
    a, b = 0.0, math.log((targets.mean() + 0.01) / (1.01 - targets.mean()))
    for _ in range(25):
        p = 1 / (1 + np.exp(-(a * x + b)))
        w = np.maximum(p * (1 - p), 1e-4)
        gradient = np.array([((targets - p) * x).sum() - a, (targets - p).sum()])
        hessian = np.array([[(w * x * x).sum() + 1.0, (w * x).sum()], [(w * x).sum(), w.sum()]])
        step = np.linalg.solve(hessian, gradient)
        a, b = a + float(np.clip(step[0], -1, 1)), b + float(np.clip(step[1], -1, 1))
    points = np.linspace(-4, 4, _KNOTS)
    return points * scale + centre, 1 / (1 + np.exp(-(max(0.0, a) * points + b)))
