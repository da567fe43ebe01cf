"""Which cheap models to open with, where nobody says: those that trade best on a part of the examples, alone or in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from farthing_router.calibration.crossfit import QUICK
from farthing_router.calibration.examples import Example
from farthing_router.calibration.fitting import FitSpec, cross_fit
from farthing_router.calibration.frontier import CurvePoint, Outcomes
from farthing_router.calibration.labelled import EXAMPLES_MIN, DataTooSmall, ModelMissing, labelled

_MODELS_MAX = 4
_EXAMPLES = 600


def candidates(examples: Sequence[Example], dear: Sequence[str]) -> list[str]:
    """The models that could open: enough labelled answers beside those of the first dear one, and cheaper. The most promising first,
    at most four.
    Raises ModelMissing.
    """
    strong = dear[0]
    counts: dict[str, list[tuple[float, float, float]]] = {}
    for each in examples:
        measure = each.answers.get(strong)
        for model, answer in each.answers.items():
            if model not in dear and measure is not None:
                costs = (float(answer.cost_usd_nanos or 0), float(measure.cost_usd_nanos or 0))
                counts.setdefault(model, []).append((answer.score - measure.score, *costs))
    worth = {}
    for model, rows in counts.items():
        loss, cost, full = np.mean(rows, axis=0)
        if len(rows) >= EXAMPLES_MIN and cost < full:
            worth[model] = loss - cost / max(full, 1e-12)
    if not worth:
        raise ModelMissing(model=strong, problem=_shortage({model: len(rows) for model, rows in counts.items()}))
    return sorted(worth, key=lambda model: -worth[model])[:_MODELS_MAX]


def _shortage(counts: dict[str, int]) -> str:
    """Why no model could open, with what would be enough."""
    most = max(counts.values(), default=0)
    if most >= EXAMPLES_MIN:
        return "no model of the data is cheaper"
    return f"{most} examples have its answer and one of a cheaper model, {EXAMPLES_MIN} are the least"


def opened(examples: Sequence[Example], spec: FitSpec, *, seed: int) -> tuple[FitSpec, str]:
    """The specification with the best opening models, and a note on the choice. Raises ModelMissing, DataTooSmall."""
    models = candidates(examples, spec.strong)
    sizes = (1,) if spec.query_only else (1, 2)
    order = np.random.default_rng(seed).permutation(len(examples))
    best: tuple[float, FitSpec] | None = None
    for opening in (each for size in sizes for each in combinations(models, size)):
        tried = replace(spec, opening=opening)
        having = [
            examples[number] for number in order if all(model in examples[number].answers for model in opening + spec.strong)
        ]
        try:
            outcomes, _ = cross_fit(labelled(having[:_EXAMPLES], opening + spec.strong), tried, seed=seed, effort=QUICK)
        except DataTooSmall:
            continue
        worth = _worth(outcomes, spec)
        if best is None or worth > best[0]:
            best = (worth, tried)
    if best is None:
        raise DataTooSmall(examples=len(examples), examples_needed=EXAMPLES_MIN)
    return best[1], f"opens with {' and '.join(best[1].opening)}, the best of {', '.join(models)} alone or in pairs"


def _worth(outcomes: Outcomes, spec: FitSpec) -> float:
    """How well the target is met: the larger the better."""
    points = outcomes.curve()
    if spec.usd_per_quality_point is not None:
        nanos = 100 * spec.usd_per_quality_point * 1e9
        full = float(outcomes.strong_price.mean())
        return max(point.quality * nanos - point.cost_share * full for point in points)
    if spec.saving_min is not None:
        least = spec.saving_min
        return max((point.quality for point in points if 1 - point.cost_share >= least), default=-_least(points))
    floor = spec.quality_ratio_min or 0.0
    return -min((point.cost_share for point in points if point.quality_ratio >= floor), default=1e6 - points[0].quality_ratio)


def _least(points: Sequence[CurvePoint]) -> float:
    return min(point.cost_share for point in points)
