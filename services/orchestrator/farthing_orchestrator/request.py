"""One request on its way through the pipeline, in the domain's own words.

Conversations, parameters and answers are opaque here: the pipeline hands them from port to port and never looks inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from farthing_core.money import TOKENS_PER_PRICE, price_of_tokens

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
    critical: bool = False
    optimize_for: str = ""
    quality_min: float | None = None
    quality_reference_model: str = ""
    latency_ms_max: int | None = None
    calls_max: int = 0
    cost_usd_nanos_max: int = 0
    cache_error_budget_ppm: int = 0
    cache_personal: bool = False
    cache_age_s_max: int = 0


@dataclass(slots=True)
class Ask:
    """A request: `conversation` and `parameters` change as steps mask and shorten it.

    `tokens_likely` is a first guess at what it uses, before anybody counted. `service`, `domain` and `key_id` say in usage who asked.
    `shadow_of` is the request that this one is compared with, and `served` its answer; empty and None where the answer is served.
    """

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
    service: str = ""
    domain: str = ""
    key_id: str = ""
    tokens_likely: int = 0
    shadow_of: str = ""
    served: Generated | None = None


class StepName:
    """The steps of a request, in order. Plain texts: an Enum's hash is Python code, and receipts look these up all the time."""

    ADMIT = "admit"
    MASK = "mask"
    LOOK_UP = "look_up"
    SHAPE = "shape"
    PLAN = "plan"
    RESERVE = "reserve"
    GENERATE = "generate"
    SETTLE = "settle"
    REMEMBER = "remember"
    UNMASK = "unmask"
    SHADOW = "shadow"
    ALL = (ADMIT, MASK, LOOK_UP, SHAPE, PLAN, RESERVE, GENERATE, SETTLE, REMEMBER, UNMASK, SHADOW)


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
class Shaped:
    """A shortened conversation with its tokens by encoding, before and after."""

    conversation: Conversation
    changed: bool
    tokens_before: dict[str, int]
    tokens_after: dict[str, int]


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of a route that may be asked. `streams` is whether its answer, if it is asked, is delivered as it comes: then it can be
    stopped; `opens` whether it is asked at once, side by side with the others that open. `rate` is the dearest price of its answer, in
    nanodollars per million tokens; `input_tokens` is its own count of the prompt.
    """

    model: str
    provider: str
    hosted: bool
    streams: bool
    input_tokens: int
    output_tokens_max: int
    output_tokens_likely: int
    worst_case_usd_nanos: int
    rate: int
    price_source: str = ""
    price_unknown: bool = False
    opens: bool = False

    @property
    def prompt_usd_nanos(self) -> int:
        """The most its prompt costs, in nanodollars."""
        return max(0, self.worst_case_usd_nanos - self.output_tokens_max * self.rate // TOKENS_PER_PRICE)

    def cost_usd_nanos(self, output_tokens: int) -> int:
        """The most a call costs that gave so many tokens, in nanodollars."""
        return self.prompt_usd_nanos + price_of_tokens((output_tokens, self.rate))


@dataclass(frozen=True, slots=True)
class BudgetPace:
    """The share of a budget's limit that is spent or held, and the share of its period that has passed."""

    used_share: float
    elapsed_share: float


@dataclass(frozen=True, slots=True)
class RouteWish:
    """What a route is planned for. `timeout_ms` is how long the caller will wait; `embedding` is that of the last user turn, if known;
    `wanted` is what the choice is to look for, opaque here.
    """

    ask: Ask
    shaped: Shaped | None
    baseline_model: str
    timeout_ms: int
    embedding: bytes = b""
    budget_pace: BudgetPace | None = None
    wanted: Any = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A route, opaque, with what it may cost; `offers` in the order in which they are asked. `shadows` are to be followed beside it;
    `on_trial` is a route whose answers are for their own caller alone.
    """

    route: Any
    offers: tuple[Offer, ...]
    worst_case_usd_nanos: int
    worst_case_tokens: int
    likely_usd_nanos: int
    baseline_model: str
    baseline_likely_usd_nanos: int
    embedding: bytes = b""
    shadows: tuple[PlannedShadow, ...] = ()
    on_trial: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order in which they are asked."""
        return tuple(offer.model for offer in self.offers)


@dataclass(frozen=True, slots=True)
class PlannedShadow:
    """A route that is followed for comparison only, and why."""

    planned: Planned
    cause: str


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """What is left on the tightest budget of a path; None where nothing limits."""

    budget_id: str = ""
    scope: str = ""
    free_usd_nanos: int | None = None
    free_tokens: int | None = None
    limit_usd_nanos: int | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None


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
    """A piece of a streamed answer. `text_bytes` are the bytes of text in it, `token_quarters` what they likely come to in quarters of a
    token.
    """

    content: str
    extra_json: str
    model: str
    text_bytes: int = 0
    token_quarters: int = 0
