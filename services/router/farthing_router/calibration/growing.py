"""Fits the parts of a scorer on one thread: LightGBM and ridge regressions. Needs the extra `calibrate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from farthing_router.calibration.forest import Floats, Forest, forest_of
from farthing_router.calibration.labelled import Indices
from farthing_router.calibration.members import Kernel, Linear, Wording, nearness, standard

_RIDGE = 300.0
_WORDING_RIDGE = 7.0
_PROMPT_SHARE = 0.5
"""Of the weight of an answer's words: the prompt's are measured otherwise, too."""
_KERNEL_RIDGE = 10.0
_LANDMARKS_MAX = 800
_STEPS_MAX = 60
_PARAMETERS = {
    "objective": "regression",
    "num_leaves": 4,
    "min_data_in_leaf": 15,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}


def forest_from(
    rows: Floats, targets: Floats, *, seed: int, rounds: int, weights: Floats | None = None, bags: int = 1
) -> Forest:
    """Trees for each target (columns), the mean of so many forests; where a target is NaN the row is left out."""
    grown = [_boosters(rows, targets, seed + bag, rounds, weights) for bag in range(bags)]
    return forest_of([[(booster.dump_model(), 1 / bags) for booster in same] for same in zip(*grown, strict=True)])


def classes_from(rows: Floats, weak: Floats, strong: Floats, *, seed: int, rounds: int, share: float) -> Forest:
    """Trees for what may be true of a cheap and a strong answer: four classes, one head each (2 · cheap right + strong right).
    Where both are simply right or wrong this tells more than the difference alone."""
    import lightgbm

    label = 2 * (weak > 0.5) + (strong > 0.5)
    options = {"verbosity": -1, "num_threads": 1, "max_bin": 63}
    parameters = {
        **_PARAMETERS,
        "feature_fraction": share,
        "learning_rate": 0.05,
        "seed": seed,
        "objective": "multiclass",
        "num_class": 4,
    }
    grown = lightgbm.train(parameters, lightgbm.Dataset(rows, label, params=options), num_boost_round=rounds).dump_model()
    return forest_of([[({"tree_info": grown["tree_info"][number::4]}, 1.0)] for number in range(4)])


def guesses(rows: Floats, target: Floats, ask: Floats, *, seed: int, rounds: int) -> Floats:
    """What trees grown for one target say of further rows; half as many, that learn twice as fast."""
    (booster,) = _boosters(rows, target[:, None], seed, rounds // 2, None, rate=0.1)
    return np.asarray(booster.predict(ask, num_threads=1))


def _boosters(
    rows: Floats, targets: Floats, seed: int, rounds: int, weights: Floats | None, *, rate: float = 0.05
) -> list[Any]:
    import lightgbm

    grown = []
    parameters = {**_PARAMETERS, "learning_rate": rate, "seed": seed}
    binned: dict[bytes, Any] = {}
    for column in targets.T:
        known = ~np.isnan(column)
        data = binned.get(known.tobytes())
        if data is None:
            options = {"verbosity": -1, "num_threads": 1, "max_bin": 63}
            data = lightgbm.Dataset(rows[known], weight=None if weights is None else weights[known], params=options)
            binned[known.tobytes()] = data
        data.set_label(column[known])
        grown.append(lightgbm.train(parameters, data, num_boost_round=rounds))
    return grown


def linear_from(rows: Floats, targets: Floats, *, ridge: float = _RIDGE) -> Linear:
    """A ridge regression for each target (columns) on standardised features."""
    mean, deviation = moments(rows)
    deviation = np.where(deviation > 1e-9, deviation, 1.0)
    scaled = standard(rows, mean, deviation)
    weights, intercept = _ridge(scaled, targets, ridge)
    return Linear(mean, deviation, weights, intercept)


def kernel_from(embeddings: Floats, targets: Floats, *, seed: int) -> Kernel:
    """A kernel ridge regression for each target (columns) on the nearness to some of the embeddings (Nyström's method)."""
    chosen = np.random.default_rng(seed).permutation(len(embeddings))[:_LANDMARKS_MAX]
    landmarks = np.asarray(np.round(embeddings[chosen], 4))
    near, level = nearness(embeddings, landmarks), targets.mean(axis=0)
    gram = near.T @ near + _KERNEL_RIDGE * nearness(landmarks, landmarks)
    gram[np.diag_indices_from(gram)] += 1e-3
    return Kernel(landmarks, _rounded(np.linalg.solve(gram, near.T @ (targets - level))), level)


def wording_from(texts: Sequence[Any], rows: Indices, targets: Floats) -> Wording:
    """A ridge regression for each target (columns) on the words of each text (sparse matrices), of these rows."""
    from scipy.sparse import diags, hstack
    from scipy.sparse.linalg import lsqr

    rarities, scaled = [], []
    for number, text in enumerate(texts):
        chosen = text[rows]
        seen = np.bincount(chosen.indices, minlength=chosen.shape[1])
        rarity = np.where(seen >= 2, np.log((len(rows) + 1) / (seen + 1)), 0.0)
        rarities.append(rarity)
        weighted = chosen @ diags(rarity)
        length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        share = _PROMPT_SHARE if number == 0 and len(texts) > 1 else 1.0
        scaled.append(diags(share / np.maximum(length, 1e-9)) @ weighted)
    matrix = hstack(scaled).tocsr()
    level = targets.mean(axis=0)
    fitted = [
        lsqr(matrix, column - column.mean(), damp=np.sqrt(_WORDING_RIDGE), iter_lim=_STEPS_MAX, atol=1e-5, btol=1e-5)[0]
        for column in targets.T
    ]
    weights = np.asarray(fitted).T
    size = texts[0].shape[1]
    blocks = [_rounded(weights[number * size : (number + 1) * size]) for number in range(len(texts))]
    if len(texts) > 1:
        blocks[0] = _rounded(blocks[0] * _PROMPT_SHARE)
    return Wording([_rounded(rarity) for rarity in rarities], blocks, level)


def wording_scores(wording: Wording, texts: Sequence[Any], rows: Indices) -> Floats:
    """The scores of rows of sparse matrices."""
    from scipy.sparse import diags

    total = np.tile(wording.intercept, (len(rows), 1))
    for text, rarity, weights in zip(texts, wording.rarity, wording.weights, strict=True):
        weighted = text[rows] @ diags(rarity)
        length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        total += (weighted @ weights) / np.maximum(length, 1e-9)[:, None]
    return total


def moments(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each column, of what is not missing; 0 where all is."""
    seen = ~np.isnan(rows)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, rows, 0.0).sum(axis=0) / count
    return mean, np.sqrt((np.where(seen, rows - mean, 0.0) ** 2).sum(axis=0) / count)


def _ridge(rows: Floats, targets: Floats, ridge: float) -> tuple[Floats, Floats]:
    weights, intercepts = [], []
    for known, columns in _alike(targets):
        part = rows if known.all() else rows[known]
        centre, level = part.mean(axis=0), targets[known][:, columns].mean(axis=0)
        centred = part - centre
        gram = centred.T @ centred
        gram[np.diag_indices_from(gram)] += ridge
        found = np.linalg.solve(gram, centred.T @ (targets[known][:, columns] - level))
        weights.append(found)
        intercepts.append(level - centre @ found)
    return np.ascontiguousarray(np.concatenate(weights, axis=1)), np.concatenate(intercepts)


def _alike(targets: Floats) -> list[tuple[Any, Any]]:
    """The targets' columns, those together that are known for all rows; columns with gaps one by one, in their order."""
    known = ~np.isnan(targets)
    if known.all():
        return [(known[:, 0], slice(None))]
    return [(known[:, column], [column]) for column in range(targets.shape[1])]


def _rounded(values: Floats) -> Floats:
    """To six places: an artefact is to be small, and what was tested is what is kept."""
    return np.asarray(np.round(values, 6))
