"""What is counted of calls: one cell for an hour of an organisation, provider, model, deployment and task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from farthing_router.performance.histograms import LATENCY_MS, TOKENS_PER_S
from farthing_router.routing.errands import Attempt, AttemptOutcome
from farthing_router.upstreams import FailureKind

EVERYBODY = ""
"""The organisation under which the calls of all are added up."""
KINDS = (
    "overloaded",
    "rate_limited",
    "out_of_credit",
    "timeout",
    "connection",
    "server_error",
    "garbage",
    "too_large",
    "broken_stream",
    "auth",
    "not_found",
    "content_filter",
    "context_too_long",
    "expired",
    "cancelled",
    "rejected",
    "other",
    "unsupported",
)
"""Kinds of failures in the order in which they are stored; a new one goes to the end."""
KINDS_MAX = 32
_NUMBER_OF = {kind: number for number, kind in enumerate(KINDS)}
_ABOUT_THE_REQUEST = {"rejected"} | {kind.value for kind in FailureKind if not kind.speaks_for_the_deployment}
_BATCH = "batch"


LEVELS: Mapping[str, tuple[str, ...]] = {
    "model": ("provider", "model"),
    "task": ("task",),
    "deployment": ("provider", "model", "deployment"),
    "all": ("provider", "model", "deployment", "task"),
}
"""What cells are added up by besides, from few rows to many, so that a question reads no more of them than it tells apart."""


class CellKey(NamedTuple):
    """What is told apart."""

    organization: str
    at: datetime
    provider: str
    model: str
    deployment: str
    task: str


class Place(NamedTuple):
    """A row: a cell, or cells added up, whose other labels are empty then. In this order rows are written."""

    organization: str
    level: str
    at: datetime
    provider: str
    model: str
    deployment: str
    task: str


@dataclass(slots=True)
class Cell:
    """Counts of one cell. All of it adds up, save `input_tokens_max`.

    `failures` are calls that brought no answer, `cancelled` those that were called off; `down` are failures that say something about the
    deployment, not about the request. `paced` answers and the sums after it are of answers that somebody waited for, for the line
    latency ≈ first token + tokens · time a token: `line_tokens`, `line_squares` (of tokens), `line_ms` and `line_products` (tokens · ms).
    """

    attempts: int = 0
    failures: int = 0
    cancelled: int = 0
    down: int = 0
    answers: int = 0
    cost_usd_nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_max: int = 0
    paced: int = 0
    line_tokens: float = 0.0
    line_squares: float = 0.0
    line_ms: float = 0.0
    line_products: float = 0.0
    latency: dict[int, int] = field(default_factory=dict)
    first_token: dict[int, int] = field(default_factory=dict)
    pace: dict[int, int] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)

    def take(self, attempt: Attempt, *, failure_kind: str = "") -> None:
        """Counts one call. `failure_kind` is what the call's own record does not say."""
        self.attempts += 1
        self.cost_usd_nanos += attempt.cost_usd_nanos
        tokens = attempt.tokens
        self.input_tokens += tokens.input_tokens
        self.output_tokens += tokens.output_tokens
        if tokens.input_tokens > self.input_tokens_max:
            self.input_tokens_max = tokens.input_tokens
        if attempt.outcome is AttemptOutcome.CANCELLED:
            self.cancelled += 1
        elif attempt.outcome is AttemptOutcome.FAILED or attempt.failure_kind or failure_kind:
            self._failed(attempt.failure_kind or failure_kind)
        else:
            self._answered(attempt, tokens.output_tokens)

    def _failed(self, kind: str) -> None:
        self.failures += 1
        self.down += speaks_for_the_deployment(kind)
        number = _NUMBER_OF.get(kind, _NUMBER_OF["other"])
        self.kinds[number] = self.kinds.get(number, 0) + 1

    def _answered(self, attempt: Attempt, output_tokens: int) -> None:
        self.answers += 1
        latency_ms = attempt.latency_us / 1000
        number = LATENCY_MS.bucket(latency_ms)
        self.latency[number] = self.latency.get(number, 0) + 1
        if attempt.first_token_us:
            number = LATENCY_MS.bucket(attempt.first_token_us / 1000)
            self.first_token[number] = self.first_token.get(number, 0) + 1
        if output_tokens and latency_ms:
            number = TOKENS_PER_S.bucket(output_tokens * 1000 / latency_ms)
            self.pace[number] = self.pace.get(number, 0) + 1
        if waited_for(attempt):
            self.paced += 1
            self.line_tokens += output_tokens
            self.line_squares += output_tokens * output_tokens
            self.line_ms += latency_ms
            self.line_products += output_tokens * latency_ms

    def add(self, other: Cell) -> None:
        """Takes in all that another cell counted."""
        for name in ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.input_tokens_max = max(self.input_tokens_max, other.input_tokens_max)
        for name in HISTOGRAMS:
            mine: dict[int, int] = getattr(self, name)
            for number, count in getattr(other, name).items():
                mine[number] = mine.get(number, 0) + count


ADDED = (
    "attempts",
    "failures",
    "cancelled",
    "down",
    "answers",
    "cost_usd_nanos",
    "input_tokens",
    "output_tokens",
    "paced",
    "line_tokens",
    "line_squares",
    "line_ms",
    "line_products",
)
HISTOGRAMS = ("latency", "first_token", "pace", "kinds")


def speaks_for_the_deployment(kind: str) -> bool:
    """Whether a failure of this kind says something about the deployment, and not only about the request."""
    return kind not in _ABOUT_THE_REQUEST


def waited_for(attempt: Attempt) -> bool:
    """Whether somebody waited for this answer, so that its latency says how fast the model is."""
    return attempt.service_tier != _BATCH


@dataclass(slots=True)
class Minutes:
    """Calls to a provider in the minutes of an hour, and how many of them failed because of the provider."""

    attempts: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)

    def take(self, minute: int, *, down: bool) -> None:
        """Counts one call."""
        self.attempts[minute] = self.attempts.get(minute, 0) + 1
        if down:
            self.down[minute] = self.down.get(minute, 0) + 1


@dataclass(frozen=True, slots=True)
class Flush:
    """What a replica counted since its last flush; `sequence` grows with each, so that one that is sent again is known. Nothing of it
    changes any more."""

    replica: str
    sequence: int
    flushed_at: datetime
    cells: list[tuple[CellKey, Cell]]
    minutes: list[tuple[tuple[str, datetime, str], Minutes]]

    @property
    def attempts(self) -> int:
        """How many calls it tells of."""
        return sum(cell.attempts for _, cell in self.cells)


def rolled_up(cells: Iterable[tuple[CellKey, Cell]]) -> list[tuple[Place, Cell]]:
    """Cells added up by every level, for their organisation and for everybody; in the order in which they are written."""
    rows: dict[Place, Cell] = {}
    for key, cell in cells:
        for level, names in LEVELS.items():
            labels = (getattr(key, name) if name in names else "" for name in LEVELS["all"])
            place = Place(key.organization, level, key.at, *labels)
            for each in (place, place._replace(organization=EVERYBODY)):
                row = rows.get(each)
                if row is None:
                    row = rows[each] = Cell()
                row.add(cell)
    return sorted(rows.items(), key=lambda each: each[0])


def level_of(names: Iterable[str]) -> str:
    """The level with the fewest rows that tells all of these apart."""
    wanted = set(names)
    return next(level for level, told_apart in LEVELS.items() if wanted <= set(told_apart))
