"""One request on its way through the pipeline, in the domain's own words.

Conversations, parameters and answers are opaque here: the pipeline hands them from port to port and never looks inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from farthing_orchestrator.policy import CacheMode, Sharing

Conversation = Any
"""The messages of a request, opaque to the domain."""
Parameters = Any
"""How an answer is to be made, opaque to the domain."""
AnswerBody = Any
"""An answer, opaque to the domain."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a request changes of its policy; None leaves it alone."""

    cache_mode: CacheMode | None = None
    cache_ttl_s: int | None = None
    cache_sharing: Sharing | None = None
    prompt_level: str | None = None
    allowed_providers: tuple[str, ...] = ()
    fit_context: bool = False
    skip_masking: bool = False
    open_models_only: bool = False


@dataclass(slots=True)
class Ask:
    """A request: `conversation` and `parameters` change as steps mask and shorten it."""

    request_id: str
    scope: str
    model: str
    task: str
    tier: str
    conversation: Conversation
    parameters: Parameters
    tags: tuple[str, ...] = ()
    overrides: Overrides = field(default_factory=Overrides)
    open_models_only: bool = False


class StepName:
    """The steps of a request, in order. Plain texts: an Enum's hash is Python code, and receipts look these up all the time."""

    MASK = "mask"
    LOOK_UP = "look_up"
    SHAPE = "shape"
    PLAN = "plan"
    RESERVE = "reserve"
    GENERATE = "generate"
    SETTLE = "settle"
    REMEMBER = "remember"
    UNMASK = "unmask"
    ALL = (MASK, LOOK_UP, SHAPE, PLAN, RESERVE, GENERATE, SETTLE, REMEMBER, UNMASK)


class StepOutcome:
    """How a step ended."""

    DONE = "done"
    SKIPPED = "skipped"
    UNAVAILABLE = "unavailable"
    DEFERRED = "deferred"
    ALL = (DONE, SKIPPED, UNAVAILABLE, DEFERRED)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did, without prompt text."""

    name: str
    outcome: str
    note: str
    duration_us: int


@dataclass(frozen=True, slots=True)
class Masked:
    """A conversation without its personal data. `originals` maps mask tokens back; empty when nothing was masked."""

    conversation: Conversation
    originals: dict[str, str]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the cache said. `answer` and what follows are set on a hit."""

    outcome: str
    reason: str
    key: str
    similarity: float | None = None
    answer: AnswerBody = None
    model: str = ""
    usage: Any = None
    entry_key: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def hit(self) -> bool:
        """Whether an answer may be served."""
        return self.answer is not None


@dataclass(frozen=True, slots=True)
class Shaped:
    """A shortened conversation with its tokens by encoding, before and after."""

    conversation: Conversation
    changed: bool
    tokens_before: dict[str, int]
    tokens_after: dict[str, int]


@dataclass(frozen=True, slots=True)
class Planned:
    """A route, opaque, with what it may cost. `input_tokens` are each model's own count of the prompt."""

    route: Any
    models: tuple[str, ...]
    input_tokens: dict[str, int]
    worst_case_usd_nanos: int
    worst_case_tokens: int
    likely_usd_nanos: int
    baseline_model: str
    baseline_likely_usd_nanos: int


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """What is left on the tightest budget of a path; None where nothing limits."""

    budget_id: str = ""
    scope: str = ""
    free_usd_nanos: int | None = None
    free_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """What the models said. `attempts` are opaque to the domain, `lines` are their account."""

    answer: AnswerBody
    model: str
    attempts: Any
    lines: tuple[Line, ...]
    cost_usd_nanos: int
    escalated: bool
    extra_json: str
    upstream_us: int
    usage: Any
    input_tokens: int
    output_tokens: int
    storable: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One attempt as the ledger writes it down. `tokens_source` and `price_source` say where its figures are from."""

    model: str
    provider: str
    deployment: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd_nanos: int
    outcome: str
    estimated: bool = False
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    tokens_source: str = ""
    price_source: str = ""
    service_tier: str = ""
    price_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a streamed answer."""

    content: str
    extra_json: str
    model: str
