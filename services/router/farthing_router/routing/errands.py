"""One request on its route: what was asked, what was bought, and how each attempt ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from farthing_core.errors import FarthingError

from farthing_router.judging.opinions import Opinion
from farthing_router.judging.structures import NOTHING, Asked
from farthing_router.pricing.price_book import Prices
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.routes import Candidate, Role, Route
from farthing_router.upstreams import UpstreamAnswer, UpstreamPiece, UpstreamRejected

_NOTES_MAX = 16


class AllAttemptsFailed(FarthingError):
    """Nobody answered: what each attempt said, what was billed all the same, and whether more may have been."""

    def __init__(self, *, attempts: Sequence[Attempt], may_be_billed: bool = False, unasked: Sequence[str] = ()) -> None:
        said = "; ".join((*(f"{each.model}: {each.reason}" for each in attempts), *unasked)) or "no call was possible in time"
        cost = sum(attempt.cost_usd_nanos for attempt in attempts)
        super().__init__(f"every attempt failed ({said})", cost_usd_nanos=cost, may_be_billed=may_be_billed)


class StreamBroken(FarthingError):
    """A stream failed after its first piece; what came of it was in the event before."""

    def __init__(self, *, model: str, what: str) -> None:
        super().__init__(f"the stream of {model} broke: {what}", model=model)


class AttemptOutcome(Enum):
    """How an attempt ended."""

    ACCEPTED = 1
    REJECTED = 2
    FAILED = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one deployment."""

    model: str
    provider: str
    deployment: str
    outcome: AttemptOutcome
    reason: str
    confidence: float | None
    tokens: Tokens
    cost_usd_nanos: int
    latency_us: int
    first_token_us: int = 0
    service_tier: str = ""
    price_source: str = ""
    price_unknown: bool = False
    failure_kind: str = ""
    hedge: bool = False
    expected_gain: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """What a route came to."""

    answer: UpstreamAnswer
    model: str
    attempts: tuple[Attempt, ...]
    escalated: bool
    upstream_us: int
    confidence: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Bought:
    """An answer that was paid for, and what the judge thinks of it."""

    candidate: Candidate
    answer: UpstreamAnswer
    attempt: Attempt
    opinion: Opinion | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """The answer that a shadow is compared with, and what it came to."""

    model: str
    content: str
    finish_reason: str
    cost_usd_nanos: int
    upstream_us: int


@dataclass(slots=True)
class Errand:
    """One request on its route. Its prices are those of the moment it set out; `service_tier` is what it asks providers for.

    `may_be_billed`: some attempt failed of which nobody knows what it costs. `rejected`: what a provider said that would not take the
    request; nobody else is asked then. `embedding` is that of the last user turn, empty where nobody computed it; `shadow_of` is the
    request that this one is compared with, empty where its answer is served, and `served` what that one's answer came to.

    `committed_usd_nanos` is what its calls cost so far, those under way or lost at their worst; `spared_usd_nanos` is how much less of it
    is charged for lost ones. `unasked` says why nobody was called,
    `window_tokens_too_small` is the largest context window that a provider found too small.
    """

    route: Route
    prices: Prices
    conversation: Any
    parameters: Any
    task: str
    request_id: str
    wants_json: bool
    service_tier: str
    ends_at_s: float
    calls_left: int
    scope: str = ""
    embedding: bytes = b""
    shadow_of: str = ""
    session: str = ""
    served: Served | None = None
    asked: Asked = NOTHING
    tried: set[str] = field(default_factory=set)
    failures: list[Attempt] = field(default_factory=list)
    bought: list[Bought] = field(default_factory=list)
    may_be_billed: bool = False
    rejected: UpstreamRejected | None = None
    committed_usd_nanos: int = 0
    spared_usd_nanos: int = 0
    window_tokens_too_small: int = 0
    unasked: list[str] = field(default_factory=list)

    def too_dear(self, candidate: Candidate) -> str:
        """Why another call is not made: at its worst all could cost, or be charged, more than they may. Empty where it fits."""
        committed, route = self.committed_usd_nanos + candidate.worst_case_usd_nanos, self.route
        if route.cost_usd_nanos_max and committed > route.cost_usd_nanos_max:
            return "another call could cost more than cost_usd_nanos_max leaves"
        charged = committed - self.spared_usd_nanos
        return "another call could cost more than is held" if charged > route.worst_case_usd_nanos else ""

    def note(self, why: str) -> None:
        """Says why a call was not made; once, and not without end."""
        if why not in self.unasked and len(self.unasked) < _NOTES_MAX:
            self.unasked.append(why)


@dataclass(slots=True)
class Live:
    """What came of a model that spoke."""

    bought: Bought | None = None
    partial: Bought | None = None
    broken: str | None = None


class Heard:
    """What of a stream was heard before it broke."""

    def __init__(self) -> None:
        self.any = False
        self._content: list[str] = []

    def take(self, piece: UpstreamPiece) -> None:
        """Another piece."""
        self.any = True
        self._content.append(piece.content)

    def answer(self) -> UpstreamAnswer:
        """The torso, marked as such."""
        return UpstreamAnswer("".join(self._content), "", "error", "", None)


def waited_us(errand: Errand) -> int:
    """Wall time of the calls that brought answers; those that opened side by side count once."""
    opening = [each for each in errand.bought if each.candidate.role in (Role.FIRST, Role.PEER)]
    later = [each for each in errand.bought if each not in opening]
    side_by_side_us = max((each.attempt.latency_us for each in opening), default=0)
    return side_by_side_us + sum(each.attempt.latency_us for each in later)
