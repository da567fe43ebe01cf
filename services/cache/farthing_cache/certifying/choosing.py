"""Which of a question's neighbours may be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farthing_cache.answers.asking import Asked, Certificate
from farthing_cache.embedding.reading import Reading
from farthing_cache.store import Neighbour
from farthing_cache.verifying.vetoes import normalised, verify


@dataclass(frozen=True, slots=True)
class Candidate:
    """A neighbour that could be read: its question, and what the verifier needs of it beside its vector."""

    neighbour: Neighbour
    question: str
    reading: bytes | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is served, or nothing and why not. `similarity` is that of the nearest neighbour that was looked at."""

    candidate: Candidate | None
    reason: str
    similarity: float | None = None
    certificate: Certificate | None = None


class Chooser:
    """Serves the nearest neighbour that no rule objects to."""

    def __init__(self, *, similarity_min: float) -> None:
        self._similarity_min = similarity_min

    def choose(self, asked: Asked, text: str, reading: Reading, near: Sequence[Candidate]) -> Chosen:
        """What may be served of the neighbours, which come nearest first."""
        best, why = 0.0, "nothing near"
        for candidate in near:
            similarity = similarity_of(reading.vector, text, candidate)
            best = max(best, similarity)
            if similarity < self._similarity_min:
                break
            verdict = verify(text, candidate.question)
            if verdict.same:
                return Chosen(candidate, verdict.reason, similarity)
            why = verdict.reason
        return Chosen(None, why, best if near else None)


def similarity_of(vector: Any, text: str, candidate: Candidate) -> float:
    """The cosine similarity of a question and a neighbour, scored again on the kept vector; the same words are the same."""
    if normalised(text) == normalised(candidate.question):
        return 1.0
    length = float(np.linalg.norm(candidate.neighbour.vector)) or 1.0
    return float(np.dot(vector, candidate.neighbour.vector)) / length
