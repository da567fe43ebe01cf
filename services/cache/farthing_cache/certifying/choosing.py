"""Which of a question's neighbours may be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from farthing_cache.answers.asking import Asked, Certificate
from farthing_cache.certifying.blocking import Blocks
from farthing_cache.certifying.budgets import PPM, ErrorBudgets
from farthing_cache.certifying.categories import category_of
from farthing_cache.certifying.thresholds import EDGES, NEVER, bucket_of
from farthing_cache.embedding.reading import Reading
from farthing_cache.store import Neighbour
from farthing_cache.verifying.vetoes import normalised, verify

_STRICTER_STEPS = 3
"""So many edges higher stands the threshold of an entry for each question that it was wrong for."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A neighbour that could be read: its question, and what the verifier needs of it beside its vector."""

    neighbour: Neighbour
    question: str
    reading: bytes | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with what the verifier says of it: `probability` 0 where `objection` says why not."""

    candidate: Candidate
    similarity: float
    probability: float
    objection: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is served, or nothing and why not. `similarity` is that of the nearest neighbour that was looked at; `best` is the likeliest."""

    candidate: Candidate | None
    reason: str
    similarity: float | None = None
    certificate: Certificate | None = None
    best: Judged | None = None


class Verifier(Protocol):
    """Whether two questions may share an answer."""

    verifier_id: str

    def judge(
        self, text: str, reading: Reading, candidate: Candidate, *, similarity: float, margin: float
    ) -> tuple[float, str]:
        """How probable it is that the candidate's answer serves the question, and an objection; `margin` is how much nearer it is than the
        next neighbour.
        """
        ...


class RuleVerifier:
    """The rules with a coarse probability: what no rule objects to is as doubtful as half its distance."""

    verifier_id = ""

    def judge(
        self, text: str, reading: Reading, candidate: Candidate, *, similarity: float, margin: float
    ) -> tuple[float, str]:
        """The probability and the rule that objects."""
        verdict = verify(text, candidate.question)
        if not verdict.same:
            return 0.0, verdict.reason
        return (1.0 if normalised(text) == normalised(candidate.question) else min(0.999, 1 - (1 - similarity) / 2)), ""


class Chooser:
    """Serves the likeliest neighbour that reaches the threshold in force."""

    def __init__(self, *, similarity_min: float, verifier: Verifier, budgets: ErrorBudgets, blocks: Blocks) -> None:
        self._similarity_min = similarity_min
        self._verifier = verifier
        self._budgets = budgets
        self._blocks = blocks

    def choose(self, asked: Asked, text: str, reading: Reading, near: Sequence[Candidate]) -> Chosen:
        """What may be served of the neighbours, which come nearest first."""
        if not near:
            return Chosen(None, "nothing near")
        similarities = [similarity_of(reading.vector, text, candidate) for candidate in near]
        judged = []
        for number, (candidate, similarity) in enumerate(zip(near, similarities, strict=True)):
            if similarity >= self._similarity_min:
                following = similarities[number + 1] if number + 1 < len(near) else 0.0
                judged.append(self._judge(asked, text, reading, candidate, (similarity, similarity - following)))
        nearest = max(similarities)
        if not judged:
            return Chosen(None, "nothing near", nearest)
        best = max(judged, key=lambda each: each.probability)
        certificate = self._certificate(asked, text, best)
        if best.objection:
            return Chosen(None, best.objection, nearest, certificate, best)
        if certificate.probability_min >= NEVER:
            return Chosen(None, "hits by meaning are suspended", nearest, certificate, best)
        if best.probability < certificate.probability_min:
            return Chosen(None, "not sure enough", nearest, certificate, best)
        reason = "the same words" if best.probability >= 1 else "similar"
        return Chosen(best.candidate, reason, best.similarity, certificate, best)

    def _judge(self, asked: Asked, text: str, reading: Reading, candidate: Candidate, likeness: tuple[float, float]) -> Judged:
        similarity, margin = likeness
        organization = asked.address.organization
        if self._blocks.blocked(organization, text, reading.vector, cached=candidate.question, similarity=similarity):
            return Judged(candidate, similarity, 0.0, "reported wrong")
        probability, objection = self._verifier.judge(text, reading, candidate, similarity=similarity, margin=margin)
        return Judged(candidate, similarity, probability, objection)

    def _certificate(self, asked: Asked, text: str, best: Judged) -> Certificate:
        address, verifier_id = asked.address, self._verifier.verifier_id
        category, budget_ppm = category_of(text, address.partition), self._budgets.budget_ppm(asked.error_budget_ppm)
        force = self._budgets.in_force(address.organization, category, verifier_id=verifier_id, budget_ppm=budget_ppm)
        minimum, evidence = force.probability_min, force.evidence
        wrong = self._blocks.wrong_of(address.organization, best.candidate.neighbour.key)
        if wrong and minimum < NEVER:
            minimum = EDGES[min(len(EDGES) - 1, bucket_of(minimum) + _STRICTER_STEPS * wrong)]
            evidence = "entry"
        return Certificate(
            probability=best.probability,
            probability_min=minimum,
            error_budget_ppm=budget_ppm,
            wrong_upper_ppm=round(force.wrong_upper * PPM),
            evidence=evidence,
            category=category,
            verifier_id=verifier_id,
        )


def similarity_of(vector: Any, text: str, candidate: Candidate) -> float:
    """The cosine similarity of a question and a neighbour, scored again on the kept vector; the same words are the same."""
    if normalised(text) == normalised(candidate.question):
        return 1.0
    length = float(np.linalg.norm(candidate.neighbour.vector)) or 1.0
    return float(np.dot(vector, candidate.neighbour.vector)) / length
