"""Evidence on a model that adds up exactly over replicas and fades with time.

Old answers count less: half after HALF_LIFE_DAYS. So that sums still add up whoever adds them when, an answer is written down with the
weight 2^(days since the landmark / half-life), once and for all, and what is read is divided by the weight of now (forward decay: Cormode,
Shkapenyuk, Srivastava and Xu, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from farthing_router.calibration.forest import Floats

CONTEXT_SIZE = 16
"""Numbers in a context; the first is always 1."""
HALF_LIFE_DAYS = 14.0
Context = np.ndarray[Any, np.dtype[np.float64]]
_LANDMARK = datetime(2026, 1, 1, tzinfo=UTC)
_UPPER = np.triu_indices(CONTEXT_SIZE)
_HEAD = 6
SIZE = _HEAD + CONTEXT_SIZE + len(_UPPER[0])
"""Numbers in evidence: answers and opinions as counted; the faded number of automatic scores with their sum and sum of squares; the faded
sum of squares of opinions; then, faded, opinion × context and context × context, its upper triangle."""


def weight_at(moment: datetime) -> float:
    """What an answer of this moment counts in sums."""
    return float(2.0 ** ((moment - _LANDMARK).total_seconds() / 86_400 / HALF_LIFE_DAYS))


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The sums, as they are kept."""

    sums: Floats

    @classmethod
    def none(cls) -> Evidence:
        """Before the first answer."""
        return cls(np.zeros(SIZE))

    @classmethod
    def automatic(cls, score: float, *, moment: datetime) -> Evidence:
        """Of an answer that only a machine has scored."""
        sums, weight = np.zeros(SIZE), weight_at(moment)
        sums[0] = 1
        sums[2:5] = weight, weight * score, weight * score * score
        return cls(sums)

    @classmethod
    def opinion(cls, value: float, context: Context, *, moment: datetime, before: float | None = None) -> Evidence:
        """Of an opinion on an answer of this moment; `before` is what was thought of the answer until then."""
        sums, weight = np.zeros(SIZE), weight_at(moment)
        sums[1] = before is None
        sums[5] = weight * (value**2 - (before or 0.0) ** 2)
        sums[_HEAD : _HEAD + CONTEXT_SIZE] = weight * (value - (before or 0.0)) * context
        if before is None:
            sums[_HEAD + CONTEXT_SIZE :] = weight * np.outer(context, context)[_UPPER]
        return cls(sums)

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.sums + other.sums)

    @property
    def answers(self) -> int:
        """Answers that a machine has scored."""
        return round(float(self.sums[0]))

    @property
    def opinions(self) -> int:
        """Answers that somebody has judged."""
        return round(float(self.sums[1]))

    def machine(self, *, now: datetime) -> tuple[float, float]:
        """The faded number of automatic scores, and their mean (0 without any)."""
        count = self.sums[2]
        return float(count / weight_at(now)), float(self.sums[3] / count) if count else 0.0

    def people(self, *, now: datetime) -> tuple[float, float]:
        """The faded number of judged answers, and their mean quality (0 without any)."""
        count = self.sums[_HEAD + CONTEXT_SIZE]
        return float(count / weight_at(now)), float(self.sums[_HEAD] / count) if count else 0.0

    def moments(self, *, now: datetime) -> tuple[Floats, Floats, float]:
        """Faded: context × context, opinion × context, and the sum of squares of opinions."""
        scaled = self.sums / weight_at(now)
        matrix = np.zeros((CONTEXT_SIZE, CONTEXT_SIZE))
        matrix[_UPPER] = scaled[_HEAD + CONTEXT_SIZE :]
        return matrix + np.triu(matrix, 1).T, scaled[_HEAD : _HEAD + CONTEXT_SIZE], float(scaled[5])
