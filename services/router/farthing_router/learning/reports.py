"""Reports on quality, from sums; only what somebody judged is read answer by answer, and a bounded part of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from farthing_router.learning.fitted_scores import correlation
from farthing_router.learning.outcomes import Day, Labelled, OutcomeStore, Sums
from farthing_router.learning.trends import ranks, trend

LABELLED_MAX = 5_000
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class ModelReport:
    """How a model does at a task. `trend_per_day` is significant or not at 95 %."""

    model: str
    task: str
    quality: Interval
    answers: int
    opinions: int
    trend_per_day: float
    trend_significant: bool
    days: Sequence[Day]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far automatic scores agree with what was said afterwards of the same answers; None with fewer than 20."""

    pearson: float | None
    spearman: float | None
    answers: int
    error: float | None


@dataclass(frozen=True, slots=True)
class QualityReport:
    """By model and task, and how far automatic scores can be trusted."""

    models: Sequence[ModelReport]
    agreement: Agreement


class QualityReports:
    """Makes reports."""

    def __init__(self, store: OutcomeStore) -> None:
        self._store = store

    async def report(self, scope: str, *, model: str, task: str, start: datetime, end: datetime) -> QualityReport:
        """The report of a scope and everything below it. Raises StoreUnavailable."""
        days = await self._store.days(scope, model=model, task=task, start=start, end=end)
        labelled = await self._store.labelled(scope, task=task, start=start, end=end, rows_max=LABELLED_MAX)
        by_arm: dict[tuple[str, str], list[Day]] = {}
        for day in days:
            if day.sums.answers:
                by_arm.setdefault((day.model, day.task), []).append(day)
        models = [_model(name, own_task, found) for (name, own_task), found in sorted(by_arm.items())]
        return QualityReport(models, agreement([each for each in labelled if model in ("", each.model)]))


def mean_quality(sums: Sums) -> Interval:
    """Mean quality over answers, 0 to 1; one more answer that is half good is counted in the spread, so that few are not taken for sure."""
    count = max(1, sums.answers)
    mean = min(1.0, max(0.0, sums.quality / count))
    variance = (max(0.0, sums.quality_squares - count * mean * mean) + 0.25) / (count + 1)
    half = _Z * math.sqrt(variance / count)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def agreement(labelled: Sequence[Labelled]) -> Agreement:
    """Correlation of automatic scores, as they were given at the time, with opinions and truth."""
    pairs = [(each.automatic, each.quality) for each in labelled if each.automatic is not None]
    scores, opinions = [one for one, _ in pairs], [other for _, other in pairs]
    pearson = correlation(scores, opinions)
    if pearson is None:
        return Agreement(None, None, len(pairs), None)
    spearman = correlation(ranks(scores).tolist(), ranks(opinions).tolist())
    error = float(np.mean(np.abs(np.asarray(scores) - np.asarray(opinions))))
    return Agreement(pearson, spearman, len(pairs), error)


def _model(model: str, task: str, days: Sequence[Day]) -> ModelReport:
    total = Sums()
    for day in days:
        total.add(day.sums)
    first = days[0].day
    line = trend(
        [(day.day - first).days for day in days],
        [day.sums.quality / day.sums.answers for day in days],
    )
    return ModelReport(model, task, mean_quality(total), total.answers, total.opinions, line.per_day, line.significant, days)
