"""What is asked for, and the plan that answers it: candidates in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from farthing_core.errors import FarthingError


class NoCandidate(FarthingError):
    """No model may or can serve a request: why not, model by model."""

    def __init__(self, *, why: Mapping[str, str]) -> None:
        text = "; ".join(f"{model}: {reason}" for model, reason in why.items()) or "the catalog is empty: write farthing.yaml"
        super().__init__(f"no model can serve this request ({text})", models=", ".join(why))


class ContextTooLong(FarthingError):
    """The prompt fits no model's context window."""

    def __init__(self, *, input_tokens: int, input_tokens_max: int) -> None:
        super().__init__(
            f"the prompt has {input_tokens} tokens; the largest context window leaves room for {input_tokens_max}",
            input_tokens=input_tokens,
            input_tokens_max=input_tokens_max,
        )


class Role(IntEnum):
    """The part a candidate plays; the numbers are the contract's."""

    FIRST = 1
    PEER = 2
    ESCALATION = 3
    FALLBACK = 4


@dataclass(frozen=True, slots=True)
class BudgetPace:
    """How the tightest budget stands: the share of its limit that is used, and of its period that has passed."""

    used_share: float
    elapsed_share: float


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, as far as choosing a model goes. Tokens are by encoding; `bytes_bound` bounds them where nobody counted.

    `prompt` is the conversation as one bounded text; `optimize_for` is "", "cost", "latency", "quality" or "balanced".

    `service_tier`, and whether the prompt asks for caching or has audio, decide which rates may come to count.
    """

    model: str
    task: str
    tier: str
    needs: frozenset[str]
    images: int
    input_tokens: Mapping[str, int]
    bytes_bound: int
    output_tokens_max: int | None
    allowed_providers: frozenset[str]
    open_models_only: bool
    baseline_model: str
    baseline_input_tokens: Mapping[str, int]
    service_tier: str = ""
    cache_writes: bool = False
    audio: bool = False
    scope: str = ""
    request_id: str = ""
    optimize_for: str = ""
    quality_min: float | None = None
    quality_reference_model: str = ""
    latency_ms_max: int | None = None
    timeout_ms: int = 0
    prompt: str = ""
    embedding: bytes = b""
    budget_pace: BudgetPace | None = None
    calls_max: int = 0
    cost_usd_nanos_max: int = 0
    session: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be asked, and what that costs at the dearest deployment that may be called.

    `deployments` are those that may be called; all that are no Batch API when empty. `lost_usd_nanos` is the most that is charged for
    a call whose answer never came: the planner alone knows it.
    """

    model: str
    role: Role
    provider: str
    deployment: str
    input_tokens: int
    output_tokens_max: int
    likely_output_tokens: int
    worst_case_usd_nanos: int
    likely_usd_nanos: int
    output_usd_nanos_per_million_tokens: int = 0
    hosted: bool = True
    price_source: str = ""
    price_unknown: bool = False
    predicted_quality: float | None = None
    predicted_latency_ms: int | None = None
    service_tier: str = ""
    deployments: tuple[str, ...] = ()
    lost_usd_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """Candidates in the order in which they are asked, and what decided that. Figures as the contract explains them."""

    candidates: tuple[Candidate, ...]
    strategy: str
    reason: str
    worst_case_usd_nanos: int
    likely_usd_nanos: int
    worst_case_tokens: int
    calls_max: int
    accept_confidence: float
    rule_id: str = ""
    rule_version: int = 0
    calibration_id: str = ""
    experiment_id: str = ""
    arm: str = ""
    complexity: float = 0.0
    cost_usd_nanos_max: int = 0
    usd_nanos_per_quality_point: int = 0
    requested_model: str = ""
    quality_min: float = 0.0
    on_trial: bool = False
