"""Fits scorers: LightGBM and a ridge regression on the same features, grown on one thread. Needs the extra `calibrate`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farthing_router.calibration.forest import Floats, Forest, forest_of
from farthing_router.calibration.scorer import Linear, Scorer

_ROUNDS = 120
_RIDGE = 300.0
_PARAMETERS = {
    "objective": "regression",
    "num_leaves": 4,
    "learning_rate": 0.05,
    "min_data_in_leaf": 15,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}


def grow(rows: Floats, targets: Floats, *, seed: int) -> tuple[Forest, Linear]:
    """The forest and the linear model of features (rows) and of one target a head (columns)."""
    return _forest(rows, targets, seed), _linear(rows, targets)


def scorer_of(
    rows: Floats, targets: Floats, *, reads: Sequence[str], serves: str, prospects: Sequence[str], seed: int
) -> Scorer:
    """The scorer of these features and targets, one column a head."""
    forest, linear = grow(rows, targets, seed=seed)
    return Scorer(tuple(reads), serves, tuple(prospects), forest, linear)


def _forest(rows: Floats, targets: Floats, seed: int) -> Forest:
    import lightgbm

    heads = []
    for column in targets.T:
        known = ~np.isnan(column)
        data = lightgbm.Dataset(rows[known], column[known], params={"verbosity": -1, "num_threads": 1, "max_bin": 63})
        booster = lightgbm.train({**_PARAMETERS, "seed": seed}, data, num_boost_round=_ROUNDS)
        heads.append([(booster.dump_model(), 1.0)])
    return forest_of(heads)


def _linear(rows: Floats, targets: Floats) -> Linear:
    seen = ~np.isnan(rows)
    mean, deviation = moments(rows)
    deviation = np.where(deviation > 1e-9, deviation, 1.0)
    standard = np.clip(np.where(seen, (rows - mean) / deviation, 0.0), -5, 5)
    centre = standard.mean(axis=0)
    weights, intercept = [], []
    for column in targets.T:
        known = ~np.isnan(column)
        level = float(column[known].mean())
        centred = standard[known] - centre
        gram = centred.T @ centred + _RIDGE * np.eye(rows.shape[1])
        weight = np.linalg.solve(gram, centred.T @ (column[known] - level))
        weights.append(weight)
        intercept.append(level - float(centre @ weight))
    return Linear(mean, deviation, np.ascontiguousarray(np.asarray(weights).T), np.asarray(intercept))


def moments(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each column, of what is not missing; 0 where all is."""
    seen = ~np.isnan(rows)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, rows, 0.0).sum(axis=0) / count
    return mean, np.sqrt((np.where(seen, rows - mean, 0.0) ** 2).sum(axis=0) / count)
