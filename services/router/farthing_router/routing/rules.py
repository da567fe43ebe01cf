"""Routing rules: which requests a rule is for, and what it does with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Strategy = Literal["cascade", "cheapest", "fastest", "balanced", "quality", "learned"]
OptimizeFor = Literal["cost", "latency", "quality", "balanced"]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each matters; only their proportions count."""

    cost: float = 1.0
    latency: float = 1.0
    quality: float = 1.0


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests; every condition that is given must hold. "caption*" among `tasks` is any task that begins so."""

    tasks: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    complexity_min: float | None = None
    complexity_max: float | None = None
    optimize_for: tuple[OptimizeFor, ...] = ()
    tags: tuple[str, ...] = ()
    input_tokens_min: int | None = None
    input_tokens_max: int | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """What to do with them. Empty, None and 0 leave open what the contract says they do."""

    strategy: Strategy
    weights: Weights | None = None
    models: tuple[str, ...] = ()
    models_denied: tuple[str, ...] = ()
    allowed_providers: tuple[str, ...] = ()
    quality_min: float | None = None
    quality_reference_model: str = ""
    latency_ms_max: int | None = None
    calls_max: int = 0
    cost_usd_nanos_max: int = 0
    accept_confidence: float | None = None
    usd_nanos_per_quality_point: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `scope` is empty for a rule of farthing.yaml that is everybody's; `created_number` orders rules by age."""

    rule_id: str
    scope: str
    match: Match
    action: Action
    display_name: str = ""
    priority: int = 0
    disabled: bool = False
    version: int = 1
    updated_at: datetime | None = None
    deleted: bool = False
    created_number: int = 0
