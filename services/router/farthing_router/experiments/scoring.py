"""Scores of answers to the same request, by the measure that all answers are scored with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.learning.metrics import Answered
from farthing_router.learning.scoring import FittedScores, scored
from farthing_router.routing.errands import Errand, Finished


class AutomaticScorer:
    """The Scorer by what a machine can tell. `prompt_of` reads a conversation as one text."""

    def __init__(self, *, fitted: FittedScores, prompt_of: Callable[[Any], str]) -> None:
        self._fitted = fitted
        self._prompt_of = prompt_of

    def scores(self, errand: Errand, finished: Finished) -> tuple[float, float] | None:
        """The scores of the served answer and of the shadow's. What either side knows alone (log-probabilities, agreement) is left out."""
        served, answer = errand.served, finished.answer
        if served is None or '"tool_calls"' in answer.extra_json:
            return None
        prompt, fitted = self._prompt_of(errand.conversation), self._fitted.of(errand.scope.split("/", 2)[1])

        def score(text: str, finish_reason: str) -> float:
            given = BoughtAnswer(text=text, finish_reason=finish_reason)
            return scored(
                Answered(prompt=prompt, answer=given, wants_json=errand.wants_json), fitted=fitted, task=errand.task
            ).value

        return score(served.content, served.finish_reason), score(answer.content, answer.finish_reason)
