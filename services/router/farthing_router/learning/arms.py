"""What is believed of models, from the evidence on them: in memory, for every organisation and task.

From the general to the particular, each level the prior of the next: what the catalog suggests; how the model does at the organisation's
other tasks; what automatic scores say of it at this task, which never count for more than a few opinions; and opinions. On top of the
level stands a Bayesian linear regression of quality on the context of a request, whose slopes are drawn towards those that all models of
the task share.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from farthing_core.clock import Clock

from farthing_router.calibration.forest import Floats
from farthing_router.learning.evidence import CONTEXT_SIZE, Context, Evidence
from farthing_router.learning.outcomes import Arm

_PRIOR_WORTH = 2.0
_ELSEWHERE_WORTH_MAX = 8.0
_MACHINE_WORTH, _MACHINE_WORTH_MAX = 0.1, 10.0
"""One automatic score counts as a tenth of an opinion, all of them together as ten at most."""
_NOISE = 0.16
"""Variance of an opinion around what is expected."""
_SLOPE_VARIANCE, _SHARED_SLOPE_VARIANCE = 0.05**2, 0.14**2
_TASKS_MAX = 4_000
_STALE_S = 3_600.0


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """What is believed of a model at a task. `opinions` and `answers` are those behind it, `source` says which of them counted most;
    `usual` is the mean context of its judged answers."""

    mean: Floats
    covariance: Floats
    opinions: int
    answers: int
    source: str
    usual: Context

    def expect(self, context: Context) -> tuple[float, float]:
        """The expected quality in a context, 0 to 1, and the standard deviation of what is believed of it."""
        value = float(context @ self.mean)
        return min(0.999, max(0.001, value)), math.sqrt(max(1e-9, float(context @ self.covariance @ context)))


@dataclass(slots=True)
class _Task:
    """Arms of a task; beliefs are remembered until evidence changes or gets stale."""

    arms: dict[str, Arm]
    beliefs: dict[str, tuple[int, float, Belief]]
    slopes: Floats
    slopes_at: int = 0


class Arms:
    """Beliefs, from memory. `prior` is what the catalog suggests for a model."""

    def __init__(self, *, prior: Callable[[str], float], clock: Clock) -> None:
        self._prior = prior
        self._clock = clock
        self._tasks: OrderedDict[tuple[str, str], _Task] = OrderedDict()
        self._of_organization: dict[str, set[str]] = {}

    def take(self, arm: Arm) -> None:
        """Learns of changed evidence; older than what is known, it is passed over."""
        task = self._task(arm.organization, arm.task)
        known = task.arms.get(arm.model)
        if known is None or known.number <= arm.number:
            task.arms[arm.model] = arm

    def opinions(self, organization: str, task: str) -> int:
        """How many opinions there are on answers of a task."""
        found = self._tasks.get((organization, task))
        return 0 if found is None else sum(arm.evidence.opinions for arm in found.arms.values())

    def belief(self, organization: str, task: str, model: str) -> Belief:
        """What is believed of a model at a task."""
        found = self._tasks.get((organization, task))
        if found is None:
            return self._reckon(organization, task, model, None)
        arm, now_s = found.arms.get(model), self._clock.monotonic_s()
        number = arm.number if arm is not None else 0
        known = found.beliefs.get(model)
        if known is None or known[0] != number or now_s - known[1] > _STALE_S:
            self._share_slopes(found)
            known = found.beliefs[model] = (number, now_s, self._reckon(organization, task, model, found))
        return known[2]

    def _task(self, organization: str, task: str) -> _Task:
        key = (organization, task)
        found = self._tasks.get(key)
        if found is None:
            found = self._tasks[key] = _Task({}, {}, np.zeros(CONTEXT_SIZE))
            self._of_organization.setdefault(organization, set()).add(task)
            while len(self._tasks) > _TASKS_MAX:
                gone, _ = self._tasks.popitem(last=False)
                self._of_organization[gone[0]].discard(gone[1])
        self._tasks.move_to_end(key)
        return found

    def _reckon(self, organization: str, task: str, model: str, found: _Task | None) -> Belief:
        now = self._clock.now()
        level, worth = self._elsewhere(organization, task, model, now)
        source = "prior" if worth <= _PRIOR_WORTH else "outcomes"
        arm = found.arms.get(model) if found is not None else None
        evidence = arm.evidence if arm is not None else Evidence.none()
        count, mean = evidence.machine(now=now)
        if count:
            more = min(_MACHINE_WORTH_MAX, count * _MACHINE_WORTH)
            level, worth = (level * worth + mean * more) / (worth + more), worth + more
            source = "outcomes"
        prior_mean = found.slopes.copy() if found is not None else np.zeros(CONTEXT_SIZE)
        prior_mean[0] = level
        precision = np.full(CONTEXT_SIZE, 1 / _SLOPE_VARIANCE)
        precision[0] = worth / _NOISE
        matrix, vector, _ = evidence.moments(now=now)
        covariance = np.asarray(np.linalg.inv(matrix / _NOISE + np.diag(precision)), dtype=np.float64)
        posterior = covariance @ (vector / _NOISE + precision * prior_mean)
        usual = matrix[0] / matrix[0, 0] if matrix[0, 0] > 0 else np.eye(CONTEXT_SIZE)[0]
        source = "feedback" if evidence.opinions else source
        return Belief(posterior, covariance, evidence.opinions, evidence.answers, source, usual)

    def _elsewhere(self, organization: str, task: str, model: str, now: datetime) -> tuple[float, float]:
        """The level that the catalog and the organisation's other tasks suggest, and how many opinions that is worth."""
        total, count = 0.0, 0.0
        for other in self._of_organization.get(organization, ()):
            arm = self._tasks[organization, other].arms.get(model) if other != task else None
            if arm is not None:
                people, quality = arm.evidence.people(now=now)
                machine, score = arm.evidence.machine(now=now)
                machine = min(_MACHINE_WORTH_MAX, machine * _MACHINE_WORTH)
                total, count = total + people * quality + machine * score, count + people + machine
        worth = min(_ELSEWHERE_WORTH_MAX, count)
        mean = total / count if count else 0.0
        return (self._prior(model) * _PRIOR_WORTH + mean * worth) / (_PRIOR_WORTH + worth), _PRIOR_WORTH + worth

    def _share_slopes(self, task: _Task) -> None:
        """Reckons the slopes that all models of a task share, when a twentieth more opinions came."""
        count = sum(arm.evidence.opinions for arm in task.arms.values())
        if count < task.slopes_at * 1.05 + 1:
            return
        task.slopes_at, now = count, self._clock.now()
        scatter, shared = np.zeros((CONTEXT_SIZE, CONTEXT_SIZE)), np.zeros(CONTEXT_SIZE)
        for arm in task.arms.values():
            matrix, vector, _ = arm.evidence.moments(now=now)
            if matrix[0, 0] > 0:
                scatter += matrix - np.outer(matrix[0], matrix[0]) / matrix[0, 0]
                shared += vector - matrix[0] * vector[0] / matrix[0, 0]
        task.slopes[1:] = np.linalg.solve(
            scatter[1:, 1:] / _NOISE + np.eye(CONTEXT_SIZE - 1) / _SHARED_SLOPE_VARIANCE, shared[1:] / _NOISE
        )
