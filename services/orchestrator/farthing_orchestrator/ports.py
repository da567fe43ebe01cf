"""What the pipeline needs of its peers. Small ports, owned here; `peers.py` implements them over gRPC.

Every method may raise PeerUnavailable (nobody answered in time) or Refused (the peer said no, with its reason).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from farthing_core.errors import FarthingError

from farthing_orchestrator.accounting import ModelPrice
from farthing_orchestrator.request import Ask, BudgetLeft, Conversation, Generated, Line, Lookup, Masked, Piece, Planned, Shaped


class PeerUnavailable(FarthingError):
    """A peer was out of reach, or did not answer in time."""

    unreachable = True

    def __init__(self, *, peer: str, message: str) -> None:
        super().__init__(f"{peer} is unavailable: {message}", peer=peer)
        self.peer = peer


class Refused(FarthingError):
    """A peer said no. `reason` is its reason; `passed_on` is what the caller of the orchestrator is to see."""

    def __init__(self, *, reason: str, passed_on: FarthingError) -> None:
        super().__init__(passed_on.message, **passed_on.facts)
        self.reason = reason
        self.passed_on = passed_on


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

    async def look_up(self, ask: Ask, *, model_policy: str, mode: str, sharing: str) -> Lookup:
        """What is remembered for a request."""
        ...

    async def remember(
        self, ask: Ask, generated: Generated, *, model_policy: str, sharing: str, ttl_s: int, semantic: bool
    ) -> None:
        """Keeps an answer; `ask` as it was looked up."""
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

    async def plan(self, ask: Ask, *, shaped: Shaped | None, baseline_model: str) -> Planned:
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

    async def price(self, model: str) -> tuple[str, ModelPrice | None]:
        """A model's name ("" asks for the catalog's baseline) and its price; None for a model without one."""
        ...


class Ledger(Protocol):
    """Holds and counts money."""

    async def reserve(self, ask: Ask, planned: Planned, *, ttl_s: int) -> BudgetLeft:
        """Sets the worst case aside. Raises RequestIdReused for an id that was granted before."""
        ...

    async def check(self, ask: Ask, planned: Planned) -> tuple[str, BudgetLeft]:
        """("allow" or "deny", what is left) without setting anything aside."""
        ...

    async def settle(self, request_id: str, scope: str, usage: Usage) -> None:
        """Ends a reservation with what was used."""
        ...

    async def release(self, request_id: str, scope: str) -> None:
        """Ends a reservation unused."""
        ...

    async def record(self, request_id: str, scope: str, usage: Usage) -> None:
        """Writes down what needed no reservation, or could not get one."""
        ...


class Usage:
    """What one request used, as the ledger writes it down."""

    __slots__ = ("baseline_usd_nanos", "lines", "saving", "task")

    def __init__(self, *, task: str, lines: tuple[Line, ...], baseline_usd_nanos: int, saving: Mapping[str, int]) -> None:
        self.task = task
        self.lines = lines
        self.baseline_usd_nanos = baseline_usd_nanos
        self.saving = saving


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
