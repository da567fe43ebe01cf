"""What opinions taught about scoring, refitted beside requests when enough new ones came."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import structlog
from farthing_core.clock import Clock

from farthing_router.calibration.forest import Floats
from farthing_router.learning.outcomes import Arm, Labelled, OutcomeStore
from farthing_router.learning.regression import Fit, fit_regression
from farthing_router.learning.scoring import FittedScore

OPINIONS_MIN = 40
"""From so many opinions an organisation's scores are calibrated on them."""
_TASK_OPINIONS_MIN = 200
_ROWS_MAX = 2_000
_AGE_DAYS = 180
_ORGANIZATIONS_MAX = 500
_FITS_AT_ONCE = 4
_log = structlog.get_logger()


class FittedScoreBook:
    """Fitted scores by organisation, the most recently used ones. Every replica fits the same from the same opinions."""

    def __init__(self, *, store: OutcomeStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._fitted: OrderedDict[str, FittedScore] = OrderedDict()
        self._opinions: dict[str, dict[tuple[str, str], int]] = {}
        self._at: dict[str, int] = {}

    def of(self, organization: str) -> FittedScore | None:
        """None where there are too few opinions."""
        return self._fitted.get(organization)

    def take(self, arm: Arm) -> None:
        """Notices new opinions."""
        if arm.evidence.opinions:
            self._opinions.setdefault(arm.organization, {})[arm.task, arm.model] = arm.evidence.opinions

    async def refit(self) -> None:
        """Fits anew where a tenth more opinions came since, a few organisations at a time. Raises StoreUnavailable."""
        due = []
        for organization, counts in self._opinions.items():
            count, before = sum(counts.values()), self._at.get(organization, 0)
            if count >= OPINIONS_MIN and count - before >= max(10, min(before, _ROWS_MAX) // 10):
                due.append((before, organization, count))
        for _, organization, count in sorted(due)[:_FITS_AT_ONCE]:
            now = self._clock.now()
            rows = await self._store.labelled(
                f"organizations/{organization}",
                task="",
                start=now - timedelta(days=_AGE_DAYS),
                end=now + timedelta(days=1),
                rows_max=_ROWS_MAX,
            )
            fitted = await asyncio.to_thread(fit_scores, rows)
            self._at[organization] = count
            if fitted is not None:
                self._fitted[organization] = fitted
                self._fitted.move_to_end(organization)
                _log.info("scores fitted", opinions=fitted.opinions, correlation=fitted.correlation)
            while len(self._fitted) > _ORGANIZATIONS_MAX:
                self._fitted.popitem(last=False)


def fit_scores(labelled: Sequence[Labelled]) -> FittedScore | None:
    """The fitted score of answers that somebody judged, the newest first; None where there are too few with the same features."""
    width = max((len(each.features) for each in labelled), default=0)
    rows = [each for each in reversed(labelled) if width and len(each.features) == width]
    if len(rows) < OPINIONS_MIN:
        return None
    features = np.stack([each.features for each in rows])
    targets = np.array([each.quality for each in rows])
    usual = fit_regression(features, targets)
    held_out, by_task = usual.held_out.copy(), {}
    tasks = np.array([each.task for each in rows])
    for task in sorted(set(tasks.tolist())):
        inside = tasks == task
        if inside.sum() < _TASK_OPINIONS_MIN or inside.all():
            continue
        own = fit_regression(features[inside], targets[inside])
        if _error(own, targets[inside]) < float(np.mean((usual.held_out[inside] - targets[inside]) ** 2)):
            by_task[task], held_out[inside] = own.regression, own.held_out
    return FittedScore(usual.regression, by_task, len(rows), correlation(held_out.tolist(), targets.tolist()))


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's; None where there are fewer than 20 pairs, or one side does not vary."""
    x, y = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if len(x) < 20 or x.std() < 1e-9 or y.std() < 1e-9:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _error(fit: Fit, targets: Floats) -> float:
    return float(np.mean((fit.held_out - targets) ** 2))
