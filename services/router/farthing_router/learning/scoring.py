"""One score from the parts of an answer: by rules, and by what opinions taught where there are enough of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.features import features_of, names_of
from farthing_router.calibration.forest import Floats
from farthing_router.learning.metrics import Answered, Metric, metrics_of, vector
from farthing_router.learning.regression import Regression

_LOSSES = {
    "complete": 4.0, "no refusal": 3.0, "format": 4.0, "no hedging": 1.6, "fluent": 3.0, "relevance": 0.8, "agreement": 3.0,
    "calculation": 2.5, "code": 2.5, "logprobs": 1.5, "reference": 6.0,
}  # fmt: skip
"""By how much the logarithm of the odds falls from a perfect part to none of it."""
_GAINS = {"agreement": 1.2, "reference": 2.5, "calculation": 0.3}
"""By how much a perfect one of these raises it: they are evidence for an answer, the others only none against it."""
_START = 1.1
_FORM_SIZE = len(names_of(2))
_ANSWER_SHOWN = "form and content"


@dataclass(frozen=True, slots=True)
class PartShown:
    """A part of a score: its value, 0 to 1, its weight among the others, and why in a few words."""

    name: str
    value: float
    weight: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """How likely somebody who knows would call an answer good, and what that is made of; calibrated on so many opinions, or on none.

    `features` are what it was reckoned from, to learn from once somebody has an opinion.
    """

    value: float
    parts: Sequence[PartShown]
    opinions: int
    features: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True, eq=False)
class FittedScore:
    """What the opinions of an organisation taught: one regression over all tasks, and for tasks with many opinions what is different there.

    `correlation` is that of held-out scores with the opinions they were held out from.
    """

    usual: Regression
    by_task: Mapping[str, Regression]
    opinions: int
    correlation: float | None

    def value(self, features: Floats, task: str) -> float:
        """The calibrated score."""
        chosen = self.by_task.get(task, self.usual)
        return chosen.calibrated(features)


class FittedScores(Protocol):
    """What was learned, by organisation."""

    def of(self, organization: str) -> FittedScore | None:
        """None where there are too few opinions."""
        ...


def scored(given: Answered, *, fitted: FittedScore | None, task: str) -> Score:
    """The score of an answer."""
    metrics = metrics_of(given)
    rules = by_rules(metrics)
    features = np.concatenate([vector(metrics), [rules], _form(given)])
    weights = {each.name: _LOSSES[each.name] for each in metrics}
    if fitted is None:
        return Score(rules, _shown(metrics, weights), 0, features)
    value = fitted.value(features, task)
    total = sum(weights.values())
    learned = PartShown(_ANSWER_SHOWN, value, 0.5, f"as {fitted.opinions} opinions taught")
    halved = {name: weight / (2 * total) for name, weight in weights.items()}
    return Score(value, [learned, *_shown(metrics, halved, total=1.0)], fitted.opinions, features)


def by_rules(metrics: Sequence[Metric]) -> float:
    """The score where nothing was learned: each part that is not perfect lowers the odds."""
    odds = _START
    for each in metrics:
        odds += _GAINS.get(each.name, 0.0) * each.value - _LOSSES[each.name] * (1 - each.value)
    return 1 / (1 + math.exp(-odds))


def _shown(metrics: Sequence[Metric], weights: Mapping[str, float], *, total: float = 0.0) -> list[PartShown]:
    total = total or sum(weights.values())
    return [PartShown(each.name, each.value, weights[each.name] / total, each.reason) for each in metrics]


def _form(given: Answered) -> Floats:
    """What the fitted policies read, too: the prompt, the answer and, where there is one, another model's answer to compare with."""
    answers = [given.answer, *(BoughtAnswer(text=other) for other in given.others[:1])]
    found = features_of(given.prompt, answers)
    return np.concatenate([found, np.full(_FORM_SIZE - len(found), np.nan)])
