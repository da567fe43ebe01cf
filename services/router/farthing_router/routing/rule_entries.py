"""Rules as farthing.yaml writes them: the fields of the contract."""

from __future__ import annotations

from typing import Annotated

from farthing_core.money import NANOS_MAX
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from farthing_router.routing.rules import Action, Match, OptimizeFor, Rule, Strategy, Weights

RULES_MAX = 1_000
"""Rules in use that an organisation, or farthing.yaml, may have."""
_Task = Annotated[str, StringConstraints(min_length=1, max_length=60)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsEntry(_Section):
    """Weights of a balanced rule."""

    cost: _Weight = 0.0
    latency: _Weight = 0.0
    quality: _Weight = 0.0


class MatchEntry(_Section):
    """Which requests."""

    tasks: tuple[_Task, ...] = Field(default=(), max_length=50)
    tiers: tuple[str, ...] = Field(default=(), max_length=20)
    complexity_min: _Share | None = None
    complexity_max: _Share | None = None
    optimize_for: tuple[OptimizeFor, ...] = Field(default=(), max_length=10)
    tags: tuple[str, ...] = Field(default=(), max_length=20)
    input_tokens_min: int | None = Field(default=None, ge=0)
    input_tokens_max: int | None = Field(default=None, ge=0)
    needs: tuple[str, ...] = Field(default=(), max_length=10)


class ActionEntry(_Section):
    """What to do with them."""

    strategy: Strategy
    weights: WeightsEntry | None = None
    models: tuple[str, ...] = Field(default=(), max_length=16)
    models_denied: tuple[str, ...] = Field(default=(), max_length=100)
    allowed_providers: tuple[str, ...] = Field(default=(), max_length=100)
    quality_min: _Share | None = None
    quality_reference_model: str = ""
    latency_ms_max: int | None = Field(default=None, gt=0, le=86_400_000)
    calls_max: int = Field(default=0, ge=0, le=32)
    cost_usd_nanos_max: int = Field(default=0, ge=0, le=NANOS_MAX)
    accept_confidence: _Share | None = None
    usd_nanos_per_quality_point: int = Field(default=0, ge=0, le=NANOS_MAX)


class RuleEntry(_Section):
    """A rule. Without a scope it is everybody's."""

    scope: str = ""
    display_name: str = Field(default="", max_length=200)
    priority: int = Field(default=0, ge=-1_000_000, le=1_000_000)
    match: MatchEntry = MatchEntry()
    action: ActionEntry
    disabled: bool = False

    def rule(self, *, number: int) -> Rule:
        """The rule; `number` is its place in the file, from 0. Rules of the file are older than all others."""
        action = self.action
        weights = None if action.weights is None else Weights(**action.weights.model_dump())
        return Rule(
            rule_id=f"farthing.yaml/{number}",
            scope=self.scope,
            match=Match(**self.match.model_dump()),
            action=Action(**{**action.model_dump(), "weights": weights}),
            display_name=self.display_name,
            priority=self.priority,
            disabled=self.disabled,
            created_number=number - RULES_MAX,
        )
