"""Policies: everything that shapes a request, as farthing.yaml's `policy` section writes it."""

from __future__ import annotations

from typing import Any, Literal, Self

from farthing_core.errors import misread
from farthing_core.money import NANOS_MAX
from pydantic import BaseModel, ConfigDict, Field, ValidationError

CacheMode = Literal["off", "exact", "semantic"]
Sharing = Literal["organization", "workspace", "user"]
WhenUnreachable = Literal["fail_closed", "fail_open"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CachePolicy(_Section):
    """How answers are reused. Where `ttl_s` is 0 the cache decides how long each is kept, `ttl_s_max` at most. For `stale_s` after that an
    answer may still be served once while a fresh one is bought beside.
    `error_budget` is the share of look-ups that may be answered wrong, at most the cache's own; `checks` is whether some hits by meaning
    are compared with fresh answers, which are bought beside.
    """

    mode: CacheMode = "semantic"
    ttl_s: int = Field(default=0, ge=0, le=31_536_000)
    ttl_s_max: int = Field(default=86_400, ge=1, le=31_536_000)
    stale_s: int = Field(default=0, ge=0, le=31_536_000)
    sharing: Sharing = "organization"
    error_budget: float | None = Field(default=None, ge=0.000_001, le=1)
    checks: bool = True
    single_flight: bool = True

    @property
    def error_budget_ppm(self) -> int:
        """The error budget in wrong answers per million look-ups; 0 for the cache's own."""
        return 0 if self.error_budget is None else int(self.error_budget * 1_000_000 + 1e-6)


class PromptPolicy(_Section):
    """How prompts are shortened."""

    level: Literal["off", "lossless"] = "lossless"
    fit_context: bool = False


class PrivacyPolicy(_Section):
    """What is masked, and what happens when masking is out of reach."""

    mask: bool = True
    may_skip_masking: bool = False
    unreachable: WhenUnreachable = "fail_closed"


class BudgetPolicy(_Section):
    """What happens when the money is gone, when the ledger is out of reach, and to an answer whose caller goes away in the middle."""

    on_exhaustion: Literal["degrade", "deny"] = "degrade"
    unreachable: WhenUnreachable = "fail_closed"
    on_cancel: Literal["abort", "drain"] = "abort"
    may_mark_critical: bool = False


class RoutingPolicy(_Section):
    """What the router's choice is to look for and not to leave, where it chooses. A request may ask for more quality, fewer calls and less
    cost than this, never the other way round.
    """

    optimize_for: Literal["", "cost", "latency", "quality", "balanced"] = ""
    quality_min: float | None = Field(default=None, ge=0, le=1)
    quality_reference_model: str = Field(default="", max_length=200)
    latency_ms_max: int | None = Field(default=None, gt=0, le=86_400_000)
    calls_max: int = Field(default=0, ge=0, le=32)
    cost_usd_nanos_max: int = Field(default=0, ge=0, le=NANOS_MAX)


class TaskPolicy(_Section):
    """What a kind of request may take: seconds, answer tokens, and how much it matters.

    A critical task may go beyond a limit, up to the budget's critical_limit_percent, and is not degraded. One that is said not to be
    critical goes to open models at the limit. One of which nothing is said stops there.
    """

    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    output_tokens_max: int | None = Field(default=None, gt=0, le=10_000_000)
    critical: bool | None = None


_TASKS = {
    "chat": TaskPolicy(),
    "completion": TaskPolicy(),
    "caption": TaskPolicy(timeout_s=30, output_tokens_max=300, critical=False),
    "hashtags": TaskPolicy(timeout_s=20, output_tokens_max=120, critical=False),
    "ads_copy": TaskPolicy(timeout_s=45, output_tokens_max=600, critical=False),
    "extraction": TaskPolicy(timeout_s=60, output_tokens_max=2048),
}


class Policy(_Section):
    """A whole policy. `baseline_model` is what savings are reckoned against; the catalog's when it is None."""

    version: str = Field(default="1", max_length=40)
    baseline_model: str | None = None
    cache: CachePolicy = CachePolicy()
    prompt: PromptPolicy = PromptPolicy()
    privacy: PrivacyPolicy = PrivacyPolicy()
    budget: BudgetPolicy = BudgetPolicy()
    routing: RoutingPolicy = RoutingPolicy()
    tasks: dict[str, TaskPolicy] = Field(default_factory=dict)

    @classmethod
    def parse(cls, section: Any) -> Self:
        """The policy of a `policy` section.

        Raises FieldInvalid, naming the path of the field, for what cannot be.
        """
        try:
            return cls.model_validate(section if section is not None else {})
        except ValidationError as error:
            raise misread(error.errors()[0], "policy") from error

    def task(self, name: str) -> TaskPolicy:
        """What a task may take: as the policy says, else by its well-known name, else as chat."""
        return self.tasks.get(name) or _TASKS.get(name) or self.tasks.get("chat") or _TASKS["chat"]
