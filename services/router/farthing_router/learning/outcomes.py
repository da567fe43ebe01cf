"""What is known of an answer afterwards, and the port to where it is kept.

What a store promises:

- An answer is written down once, however often it is handed in; so is an opinion, under its request_id: the same again changes nothing,
  another one under the same id is refused.
- An answer's quality, the sums of its day and the evidence on its model change in one transaction: whoever reads one reads all.
- Sums and evidence add up over replicas: nothing is lost and nothing counts twice, whoever writes at the same time.
- Nothing of an organisation is read by the name of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from farthing_core.errors import FarthingError

from farthing_router.calibration.forest import Floats
from farthing_router.learning.evidence import Context, Evidence


class DecisionUnknown(FarthingError):
    """Nobody knows an answer under this id (any more), in this scope."""

    def __init__(self, *, answered_request_id: str) -> None:
        text = f"no answer is known under {answered_request_id!r} in this scope"
        super().__init__(text, answered_request_id=answered_request_id, field="answered_request_id")


class Source(IntEnum):
    """Who has an opinion; the numbers are the contract's."""

    USER = 1
    TRUTH = 2
    MODEL = 3


class Part(IntEnum):
    """What became of an answer: it was served, it was bought for comparison, or a judge passed it over."""

    SERVED = 1
    SHADOW = 2
    PASSED_OVER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An answer. `automatic` is its automatic score, 0 to 1, and `features` are what that was made of; None and empty where it was not
    scored. `context` is what the choice of the model could depend on. `needs` are capabilities that the request needed. No text is kept:
    `fingerprint` is enough to compare the answer with another.
    """

    request_id: str
    scope: str
    task: str
    model: str
    created_at: datetime
    part: Part
    automatic: float | None
    features: Floats
    context: Context
    fingerprint: bytes
    cost_usd_nanos: int
    input_tokens: int
    output_tokens: int
    needs: frozenset[str] = frozenset()

    @property
    def organization(self) -> str:
        """The organisation's name."""
        return self.scope.split("/", 2)[1]


@dataclass(frozen=True, slots=True)
class Opinions:
    """How many opinions there are on an answer, and their sum, by source (0: users, 1: truth, 2: models)."""

    counts: tuple[int, int, int] = (0, 0, 0)
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def with_one(self, source: Source, value: float) -> Opinions:
        """And one more."""
        at = source - 1
        counts = tuple(count + (number == at) for number, count in enumerate(self.counts))
        sums = tuple(total + value * (number == at) for number, total in enumerate(self.sums))
        return Opinions(counts, sums)  # type: ignore[arg-type]

    @property
    def quality(self) -> float | None:
        """What is thought of the answer: the mean of what truth says; without any, of what users say; else of what models say."""
        for at in (Source.TRUTH - 1, Source.USER - 1, Source.MODEL - 1):
            if self.counts[at]:
                return min(1.0, max(0.0, self.sums[at] / self.counts[at]))
        return None


@dataclass(frozen=True, slots=True)
class Opinion:
    """One opinion, 0 to 1, on the answer of a request."""

    request_id: str
    organization: str
    answered_request_id: str
    source: Source
    value: float
    fingerprint: bytes
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Judged:
    """What is now thought of an answer: its `quality`, the evidence on its model, and whether the opinion was there before."""

    outcome: Outcome
    quality: float
    arm: Arm
    repeated: bool


@dataclass(frozen=True, slots=True)
class Arm:
    """The evidence on a model at a task of an organisation. `number` grows with each change."""

    number: int
    organization: str
    task: str
    model: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer that somebody judged, with what a machine made of it."""

    task: str
    model: str
    automatic: float | None
    quality: float
    features: Floats
    created_at: datetime


@dataclass(slots=True)
class Sums:
    """Sums over answers. `quality` sums count what is best known of each answer: opinions, else its automatic score. Requests, cost, tokens
    and needs are those of served answers only."""

    answers: int = 0
    quality: float = 0.0
    quality_squares: float = 0.0
    opinions: int = 0
    opinion: float = 0.0
    opinion_squares: float = 0.0
    requests: int = 0
    cost_usd_nanos: int = 0
    cost_squares: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_max: int = 0
    needs: frozenset[str] = field(default_factory=frozenset)

    def add(self, other: Sums) -> None:
        """Takes in others."""
        for name in _ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.input_tokens_max = max(self.input_tokens_max, other.input_tokens_max)
        self.needs |= other.needs


_ADDED = (
    "answers", "quality", "quality_squares", "opinions", "opinion", "opinion_squares", "requests",
    "cost_usd_nanos", "cost_squares", "input_tokens", "output_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Day:
    """The sums of a scope, everything below it included, for a model and task on a day (UTC)."""

    day: datetime
    model: str
    task: str
    sums: Sums


class OutcomeStore(Protocol):
    """Durable outcomes. Every method raises StoreUnavailable."""

    async def add(self, outcomes: Sequence[Outcome]) -> None:
        """Writes answers down. Those passed over only count in the sums."""
        ...

    async def find(self, organization: str, request_id: str) -> Outcome | None:
        """The answer to a request."""
        ...

    async def judge(self, opinion: Opinion) -> Judged:
        """Takes in an opinion. Raises DecisionUnknown, RequestIdReused."""
        ...

    async def arms(self, number: int, *, rows_max: int) -> list[Arm]:
        """The evidence with larger numbers, in order."""
        ...

    async def days(self, scope: str, *, model: str, task: str, start: datetime, end: datetime) -> list[Day]:
        """The sums of a scope from the day of `start` to before `end`, in order; of all models and tasks where those are empty."""
        ...

    async def labelled(self, scope: str, *, task: str, start: datetime, end: datetime, rows_max: int) -> list[Labelled]:
        """Answers of a scope and everything below it that somebody judged, the newest first."""
        ...

    async def forget(self, *, before: datetime, rows_max: int) -> int:
        """Deletes answers and opinions older than that, at most so many; how many it were. Sums and evidence stay."""
        ...
