"""What the pipeline needs of its peers. Small ports, owned here; `peers.py` implements them over gRPC.

Every method may raise PeerUnavailable (nobody answered in time) or Refused (the peer said no, with its reason).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from farthing_core.errors import FarthingError

from farthing_orchestrator.accounting import ModelPrice
from farthing_orchestrator.holds import Held, Wish
from farthing_orchestrator.lookups import Flight, Keeping, Lookup, LookupTerms
from farthing_orchestrator.request import (
    Ask,
    BudgetLeft,
    Conversation,
    Generated,
    Line,
    Masked,
    Piece,
    Planned,
    RouteWish,
    Shaped,
)


class PeerUnavailable(FarthingError):
    """A peer was out of reach, or did not answer in time. `may_have_acted` is False where it is certain that it did nothing."""

    unreachable = True

    def __init__(self, *, peer: str, message: str, may_have_acted: bool = True) -> None:
        super().__init__(f"{peer} is unavailable: {message}", peer=peer)
        self.peer = peer
        self.may_have_acted = may_have_acted


class Refused(FarthingError):
    """A peer said no. `reason` is its reason; `passed_on` is what the caller of the orchestrator is to see.

    `retry_after_s` is when asking again may help, None where the peer did not say or it does not.
    """

    def __init__(self, *, reason: str, passed_on: FarthingError, retry_after_s: float | None = None) -> None:
        super().__init__(passed_on.message, **passed_on.facts)
        self.reason = reason
        self.passed_on = passed_on
        self.retry_after_s = retry_after_s


class RequestIdReused(FarthingError):
    """A request_id that was used before, for a request that was or is being answered."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} was used before", request_id=request_id)


class Masking(Protocol):
    """Replaces personal data."""

    async def mask(self, conversation: Conversation) -> Masked:
        """The conversation with mask tokens in the place of personal data."""
        ...


class Answers(Protocol):
    """Remembers answers."""

    async def look_up(
        self, ask: Ask, *, model_policy: str, sharing: str, terms: LookupTerms, flight_wait_s: float | None
    ) -> Lookup:
        """What is remembered for a request; None joins no flights, 0 gives the cache no time to wait but its own share of a look-up."""
        ...

    async def report_check(self, request_id: str, scope: str, hit_id: str, fresh: Generated) -> None:
        """Hands over a fresh answer to the question of a hit, to be compared with the one that was served."""
        ...

    async def remember(self, ask: Ask, generated: Generated, *, model_policy: str, sharing: str, keeping: Keeping) -> None:
        """Keeps an answer; `ask` as it was looked up. Whoever waits for its flight has it, too."""
        ...

    async def end_flight(self, flight: Flight) -> None:
        """Gives a flight up: the next in line leads. One that has ended is no failure."""
        ...

    async def keep_flight(self, flight: Flight) -> None:
        """Says that its leader is still at it."""
        ...


class Prompts(Protocol):
    """Shortens conversations."""

    async def shape(self, ask: Ask, *, level: str) -> Shaped:
        """The conversation, shorter, and counted."""
        ...

    async def fit(self, ask: Ask, *, input_tokens_max: int) -> Conversation:
        """The conversation without its oldest turns."""
        ...


class Models(Protocol):
    """Plans routes and follows them."""

    async def plan(self, wish: RouteWish) -> Planned:
        """Whom to ask, and what that may cost."""
        ...

    async def generate(self, ask: Ask, planned: Planned, *, timeout_s: float) -> Generated:
        """Follows a route. A refusal carries `cost_usd_nanos` in its facts when attempts were billed."""
        ...

    def stream(self, ask: Ask, planned: Planned, *, timeout_s: float) -> AsyncGenerator[Piece | Line | Generated, None]:
        """Follows a route, streaming: lines of attempts that ended before anybody spoke, pieces, and at last what it came to.

        A refusal may follow even that.
        """
        ...

    async def price(self, model: str, scope: str) -> tuple[str, ModelPrice | None]:
        """A model's name ("" asks for the catalog's baseline) and its price for a scope; None for a model without one."""
        ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the rate limits left. Where none applied nobody needs to be told when the request ends."""

    limited: bool
    requests_left: int | None = None
    tokens_left: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request used, as the ledger writes it down."""

    ask: Ask
    lines: tuple[Line, ...]
    baseline_usd_nanos: int
    saving: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Checked:
    """What the ledger would say: "allow", "degrade" or "deny", what is left, and its decision in full, opaque to the domain."""

    verdict: str
    left: BudgetLeft
    decision: Any


class Ledger(Protocol):
    """Admits requests, and holds and counts money."""

    async def admit(self, ask: Ask, *, ttl_s: int) -> Admitted:
        """Lets a request in within its rate limits; after `ttl_s` it counts as ended."""
        ...

    async def finish(self, ask: Ask, tokens: int | None) -> None:
        """Ends an admitted request with the tokens that it used; None leaves those it was admitted with."""
        ...

    async def reserve(self, wish: Wish, *, ttl_s: int) -> Held:
        """Sets money aside for a call that follows at once: what is not ended counts as spent after `ttl_s`.

        Raises RequestIdReused for an id that was granted before.
        """
        ...

    async def top_up(self, request_id: str, scope: str, output_tokens: int) -> int:
        """Has so many output tokens of a sized hold paid for; gives how many are."""
        ...

    async def check(self, wish: Wish) -> Checked:
        """What it would say, without setting anything aside."""
        ...

    async def settle(self, request_id: str, scope: str, usage: Usage) -> None:
        """Ends a reservation with what was used."""
        ...

    async def release(self, request_id: str, scope: str) -> None:
        """Ends a reservation unused. One that was never made is no failure."""
        ...

    async def record(self, request_id: str, scope: str, usage: Usage) -> None:
        """Writes down what needed no reservation, or could not get one."""
        ...


class Peers(Protocol):
    """All ports together."""

    @property
    def masking(self) -> Masking:
        """Masks."""
        ...

    @property
    def answers(self) -> Answers:
        """Remembers."""
        ...

    @property
    def prompts(self) -> Prompts:
        """Shortens."""
        ...

    @property
    def models(self) -> Models:
        """Answers."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Counts."""
        ...
