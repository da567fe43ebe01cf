"""Policies that learn whom to ask: Farthing's own, and three from the textbooks on the same contexts and with the same known costs."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
from farthing_core.clock import ManualClock
from farthing_router.learning.arms import Arms
from farthing_router.learning.choosing import LearnedChoice
from farthing_router.learning.evidence import CONTEXT_SIZE, Evidence
from farthing_router.learning.outcomes import Arm
from farthing_router.learning.qualities import LearnedQualities, catalog_prior
from farthing_router.routing.ports import Option
from farthing_router.routing.routes import Wish

from evals.routing_stream import Floats, Player, Stream

__all__ = ["EpsilonGreedy", "Learned", "LinUcb", "Player", "Reference", "Ucb1"]
_SCOPE, _TASK = "organizations/eval", "questions"
_NANOS = 1e9


class Learned:
    """What serves: `LearnedChoice` over `Arms`, with an hour for every hundred requests."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self._stream = stream
        self._clock = ManualClock()
        dearness = stream.rates.sum(axis=1)
        prior = catalog_prior([stream.models[number] for number in np.argsort(dearness)])
        self._arms = Arms(prior=lambda model: prior[model], clock=self._clock)
        qualities = LearnedQualities(self._arms)
        self._choice = LearnedChoice(arms=self._arms, qualities=qualities, rng=Random(seed))
        self._evidence = [Evidence.none() for _ in stream.models]
        self._number = 0
        self._blank = _wish()

    def choose(self, question: int, likely_usd: Floats) -> int:
        """Whom to ask."""
        self._clock.advance(36.0)
        stream = self._stream
        wish = replace(self._blank, prompt=stream.prompts[question], embedding=stream.embeddings[question])
        options = [
            Option(
                model=model,
                provider="",
                likely_usd_nanos=round(float(likely_usd[number]) * _NANOS),
                latency_ms=0,
                latency_known=False,
                quality=0.0,
                quality_source="",
                baseline=number == stream.reference,
            )
            for number, model in enumerate(stream.models)
        ]
        point = round(stream.price() / 100 * _NANOS)
        choice = self._choice.choose(wish, options, usd_nanos_per_quality_point=point)
        return stream.reference if choice is None else stream.models.index(choice.model)

    def learn(self, question: int, arm: int, quality: float) -> None:
        """What somebody says of an answer."""
        context = self._stream.contexts[question]
        self._evidence[arm] = self._evidence[arm] + Evidence.opinion(quality, context, moment=self._clock.now())
        self._number += 1
        self._arms.take(Arm(self._number, "eval", _TASK, self._stream.models[arm], self._evidence[arm]))


class Reference:
    """Always the reference model."""

    def __init__(self, stream: Stream) -> None:
        self._reference = stream.reference

    def choose(self, question: int, likely_usd: Floats) -> int:
        """The reference."""
        return self._reference

    def learn(self, question: int, arm: int, quality: float) -> None:
        """Nothing."""


class _Means:
    """Mean quality by model; a model nobody judged yet is tried first, once, in order."""

    def __init__(self, stream: Stream) -> None:
        self.price = stream.price()
        self.sums, self.counts, self.tried = (np.zeros(len(stream.models)) for _ in range(3))
        self.asked = 0

    def untried(self) -> int | None:
        """A model that was not asked yet."""
        waiting = np.flatnonzero(self.tried == 0)
        return int(waiting[0]) if len(waiting) else None

    def asks(self, arm: int) -> int:
        """Counts a request."""
        self.tried[arm] += 1
        self.asked += 1
        return arm

    def learn(self, question: int, arm: int, quality: float) -> None:
        """What somebody says of an answer."""
        self.sums[arm] += quality
        self.counts[arm] += 1

    def means(self) -> Floats:
        """Mean quality; half where nothing is known."""
        return np.where(self.counts > 0, self.sums / np.maximum(1, self.counts), 0.5)


class EpsilonGreedy(_Means):
    """The best so far, or with chance ε any (Sutton and Barto)."""

    def __init__(self, stream: Stream, epsilon: float, seed: int) -> None:
        super().__init__(stream)
        self._epsilon = epsilon
        self._rng = np.random.default_rng(seed)

    def choose(self, question: int, likely_usd: Floats) -> int:
        """Whom to ask."""
        first = self.untried()
        if first is not None:
            return self.asks(first)
        if self._rng.random() < self._epsilon:
            return self.asks(int(self._rng.integers(len(self.sums))))
        return self.asks(int(np.argmax(self.means() - likely_usd / self.price)))


class Ucb1(_Means):
    """The best upper bound (Auer, Cesa-Bianchi and Fischer, 2002), its width times c."""

    def __init__(self, stream: Stream, width: float) -> None:
        super().__init__(stream)
        self._width = width

    def choose(self, question: int, likely_usd: Floats) -> int:
        """Whom to ask."""
        first = self.untried()
        if first is not None:
            return self.asks(first)
        bonus = self._width * np.sqrt(2 * math.log(self.asked + 1) / np.maximum(1, self.counts))
        return self.asks(int(np.argmax(self.means() + bonus - likely_usd / self.price)))


class LinUcb:
    """The best upper bound of a ridge regression for each model (Li, Chu, Langford and Schapire, 2010)."""

    def __init__(self, stream: Stream, alpha: float) -> None:
        self._stream = stream
        self._alpha = alpha
        count = len(stream.models)
        self._inverse = np.tile(np.eye(CONTEXT_SIZE), (count, 1, 1))
        self._vector = np.zeros((count, CONTEXT_SIZE))

    def choose(self, question: int, likely_usd: Floats) -> int:
        """Whom to ask."""
        context = self._stream.contexts[question]
        spread = self._inverse @ context
        mean = np.einsum("ad,ad->a", spread, self._vector)
        width = np.sqrt(np.maximum(0.0, spread @ context))
        return int(np.argmax(mean + self._alpha * width - likely_usd / self._stream.price()))

    def learn(self, question: int, arm: int, quality: float) -> None:
        """What somebody says of an answer (Sherman and Morrison's update)."""
        context = self._stream.contexts[question]
        spread = self._inverse[arm] @ context
        self._inverse[arm] -= np.outer(spread, spread) / (1 + context @ spread)
        self._vector[arm] += quality * context


def _wish() -> Wish:
    return Wish(
        model="",
        task=_TASK,
        tier="",
        needs=frozenset(),
        images=0,
        input_tokens={},
        bytes_bound=0,
        output_tokens_max=None,
        allowed_providers=frozenset(),
        open_models_only=False,
        baseline_model="",
        baseline_input_tokens={},
        scope=_SCOPE,
    )
