"""Evidence adds up: whatever several replicas saw, in whatever order, comes to what one would have seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from farthing_core.clock import ManualClock
from farthing_router.learning.arms import Arms
from farthing_router.learning.evidence import CONTEXT_SIZE, Evidence
from farthing_router.learning.outcomes import Arm
from hypothesis import given, settings
from hypothesis import strategies as st

START = datetime(2026, 3, 1, tzinfo=UTC)
_UNIT = st.floats(0, 1, allow_nan=False)


@dataclass(frozen=True)
class Seen:
    """One answer: when, its automatic score, what was thought of it, one opinion after the other, and which replica took each in."""

    hours: int
    automatic: float
    opinions: list[tuple[float, int]]
    direction: int

    def parts(self) -> list[tuple[Evidence, int]]:
        """What it adds to the evidence of which replica."""
        moment, context = START + timedelta(hours=self.hours), np.zeros(CONTEXT_SIZE)
        context[0], context[1 + self.direction] = 1.0, 0.5
        found = [(Evidence.automatic(self.automatic, moment=moment), self.direction % 3)]
        before = None
        for value, replica in self.opinions:
            found.append((Evidence.opinion(value, context, moment=moment, before=before), replica))
            before = value
        return found


ANSWERS = st.lists(
    st.builds(
        Seen,
        hours=st.integers(0, 24 * 90),
        automatic=_UNIT,
        opinions=st.lists(st.tuples(_UNIT, st.integers(0, 2)), max_size=3),
        direction=st.integers(0, CONTEXT_SIZE - 2),
    ),
    max_size=25,
)


def total(parts: list[Evidence]) -> Evidence:
    added = Evidence.none()
    for part in parts:
        added = added + part
    return added


def belief(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    clock = ManualClock(START + timedelta(days=90))
    arms = Arms(prior=lambda model: 0.7, clock=clock)
    arms.take(Arm(1, "acme", "chat", "small", evidence))
    found = arms.belief("acme", "chat", "small")
    return found.mean, found.covariance


@settings(max_examples=150, deadline=None)
@given(ANSWERS, st.randoms(use_true_random=False))
def test_the_merged_posterior_of_replicas_is_that_of_one(answers: list[Seen], order: object) -> None:
    parts = [part for answer in answers for part in answer.parts()]
    alone = total([evidence for evidence, _ in parts])
    order.shuffle(parts)  # type: ignore[attr-defined]
    replicas = [total([evidence for evidence, replica in parts if replica == number]) for number in range(3)]
    merged = total(replicas)
    assert (merged.answers, merged.opinions) == (alone.answers, alone.opinions)
    for one, other in zip(belief(merged), belief(alone), strict=True):
        assert np.allclose(one, other, rtol=1e-6, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(ANSWERS)
def test_only_the_last_thought_of_an_answer_stays_and_no_answer_counts_twice(answers: list[Seen]) -> None:
    evidence = total([part for answer in answers for part, _ in answer.parts()])
    judged = [answer for answer in answers if answer.opinions]
    assert evidence.opinions == len(judged)
    assert evidence.answers == len(answers)
    now = START + timedelta(days=90)
    count, mean = evidence.people(now=now)
    weights = [2.0 ** (-(24 * 90 - answer.hours) / 24 / 14) for answer in judged]
    assert abs(count - sum(weights)) < 1e-6 * max(1.0, count)
    if judged:
        expected = sum(weight * answer.opinions[-1][0] for weight, answer in zip(weights, judged, strict=True)) / sum(weights)
        assert abs(mean - expected) < 1e-6
