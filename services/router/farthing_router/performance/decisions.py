"""Routing decisions as they are written down: what was chosen and why, and what came of it. No text of prompts, answers or providers."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from farthing_router.performance.labels import Labelled
from farthing_router.routing.errands import AllAttemptsFailed, Attempt, AttemptOutcome, Errand, Finished, waited_us
from farthing_router.upstreams import UpstreamRejected

_CHARACTERS_MAX = 200


class Decision(NamedTuple):
    """One route and its end; fields as the contract explains them. `quality` is filled in later, by whoever rates answers."""

    organization: str
    decided_at: datetime
    decision_id: str
    request_id: str
    shadow_of: str
    scope: str
    task: str
    requested_model: str
    strategy: str
    reason: str
    rule_id: str
    rule_version: int
    calibration_id: str
    experiment_id: str
    arm: str
    complexity: float
    candidates: tuple[str, ...]
    served_model: str
    outcome: str
    escalated: bool
    confidence: float | None
    cost_usd_nanos: int
    latency_ms: int
    attempts: int
    quality: float | None = None

    @property
    def failed(self) -> bool:
        """Whether nobody's answer was served although the caller waited for one."""
        return not self.served_model and self.outcome != CANCELLED


CANCELLED = "the caller left"


def decision_of(
    errand: Errand, finished: Finished | None, error: BaseException | None, *, decided_at: datetime, decision_id: str
) -> Decision:
    """The decision on a route that came to its end."""
    route, attempts = errand.route, attempts_of(errand, finished)
    return Decision(
        organization=errand.scope.split("/", 2)[1],
        decided_at=decided_at,
        decision_id=decision_id,
        request_id=errand.request_id.lower(),
        shadow_of=_text(errand.shadow_of),
        scope=errand.scope,
        task=_text(errand.task),
        requested_model=_text(route.requested_model),
        strategy=_text(route.strategy),
        reason=_text(route.reason),
        rule_id=_text(route.rule_id),
        rule_version=route.rule_version,
        calibration_id=_text(route.calibration_id),
        experiment_id=_text(route.experiment_id),
        arm=_text(route.arm),
        complexity=route.complexity,
        candidates=tuple(each.model for each in route.candidates),
        served_model=finished.model if finished is not None else "",
        outcome=_outcome(finished, error, attempts),
        escalated=finished is not None and finished.escalated,
        confidence=_confidence(finished, attempts),
        cost_usd_nanos=sum(each.cost_usd_nanos for each in attempts),
        latency_ms=_waited_us(errand, finished) // 1000,
        attempts=len(attempts),
    )


def attempts_of(errand: Errand, finished: Finished | None) -> Sequence[Attempt]:
    """Every call of a route, whatever came of it."""
    if finished is not None:
        return finished.attempts
    return [*errand.failures, *(bought.attempt for bought in errand.bought)]


def _outcome(finished: Finished | None, error: BaseException | None, attempts: Sequence[Attempt]) -> str:
    if isinstance(error, CancelledError | GeneratorExit):
        return CANCELLED
    if finished is not None:
        what = "the stream broke" if error is not None else "escalated" if finished.escalated else "answered"
        return _text(f"{what}: {finished.reason}" if finished.reason else what)
    if isinstance(error, UpstreamRejected):
        return "refused as malformed"
    kinds = ", ".join(dict.fromkeys(each.failure_kind for each in attempts if each.failure_kind))
    if isinstance(error, AllAttemptsFailed):
        return (
            _text(f"every attempt failed: {kinds}") if kinds else "every attempt failed" if attempts else "no time for a call"
        )
    return "failed"


def _confidence(finished: Finished | None, attempts: Sequence[Attempt]) -> float | None:
    if finished is None or finished.confidence is not None:
        return None if finished is None else finished.confidence
    return next((each.confidence for each in attempts if each.outcome is AttemptOutcome.ACCEPTED), None)


def _waited_us(errand: Errand, finished: Finished | None) -> int:
    if finished is not None:
        return finished.upstream_us
    return waited_us(errand) + sum(each.latency_us for each in errand.failures)


def _text(text: str) -> str:
    """A text that every database takes, and no more of it than anybody reads."""
    return text[:_CHARACTERS_MAX].replace("\x00", "") if text else text


@dataclass(frozen=True, slots=True)
class DecisionsAsked:
    """Which decisions: every condition that is given must hold. `before` is the place of the last one of the previous page."""

    organization: str
    scope: str
    count_max: int
    model: str = ""
    task: str = ""
    strategy: str = ""
    experiment_id: str = ""
    request_id: str = ""
    start: datetime | None = None
    end: datetime | None = None
    before: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class SummaryAsked:
    """Which hours of whose decisions ("" for everybody's), told apart by which labels, in steps of how long (the whole range without)."""

    organization: str
    start: datetime
    end: datetime
    group_by: tuple[str, ...]
    step: timedelta | None = None
    task: str = ""
    shadows: bool = False
    count_max: int = 10_000


@dataclass(frozen=True, slots=True)
class DecisionSums:
    """Decisions of one kind, added up. `labels` has a value for each label that was asked for; `step` counts from 0."""

    step: int
    labels: Mapping[str, str]
    decisions: int
    escalated: int
    failed: int
    attempts: int
    cost_usd_nanos: int
    latency_ms: int
    confidence_sum: float
    confidence_answers: int
    quality_sum: float
    quality_squares: float
    quality_answers: int


@dataclass(frozen=True, slots=True)
class Rating:
    """What is thought of the answer to a request, 0 to 1."""

    organization: str
    request_id: str
    quality: float


class DecisionStore(Protocol):
    """Durable decisions and their sums by the hour.

    - A decision is written and added to the sums at once or not at all, and once however often it is sent.
    - A rating replaces the one before it, in the row and in the sums.
    - Nobody sees another organisation's rows.

    Everything raises StoreUnavailable when the database is out of reach.
    """

    async def write(self, decisions: Sequence[tuple[Decision, Labelled]]) -> None:
        """Writes decisions, each with the labels that its sums go under."""
        ...

    async def find(self, asked: DecisionsAsked) -> list[Decision]:
        """Decisions, newest first."""
        ...

    async def rate(self, ratings: Sequence[Rating]) -> Sequence[Rating]:
        """Rates served answers; gives back the ratings of requests that no decision is known of."""
        ...

    async def summarize(self, asked: SummaryAsked) -> list[DecisionSums]:
        """Sums of decisions, from the sums by the hour alone; the most decisions first within a step."""
        ...

    async def forget(self, *, before: datetime, count_max: int) -> int:
        """Deletes decisions from before a moment, and their sums; at most so many rows of each. Says how many were deleted."""
        ...
