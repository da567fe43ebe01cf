"""The catalog: providers, models and cascades, as farthing.yaml writes them, checked once and then only looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from farthing_core.auto_models import AUTO_MODEL, AUTO_MODELS
from farthing_core.errors import FarthingError, FieldInvalid, misread
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farthing_router.deployments.declared import (
    Capability,
    Deployment,
    DeploymentEntry,
    KeyOf,
    ListPrice,
    ProviderEntry,
    Usual,
    deployment,
)
from farthing_router.pricing.price_entries import PriceEntry
from farthing_router.routing.rule_entries import RULES_MAX, RuleEntry
from farthing_router.routing.rules import Rule

# What of a model a provider's listing may fill in.
_LISTED = frozenset({"context_window_tokens", "output_tokens_max", "capabilities"})


class ModelUnknown(FarthingError):
    """A model that is not in the catalog."""

    def __init__(self, *, model: str) -> None:
        known = f"; known of its kind are {', '.join(filter(None, AUTO_MODELS))}" if model.startswith(f"{AUTO_MODEL}:") else ""
        super().__init__(f"model: {model!r} is not in the catalog (farthing.yaml){known}", model=model, field="model")


class ModelNotFound(FarthingError):
    """A model was asked for that is not in the catalog."""

    def __init__(self, *, model: str) -> None:
        super().__init__(f"{model!r} is not in the catalog (farthing.yaml)", model=model)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskEntry(_Section):
    """What a model may do for a task."""

    output_tokens_max: int = Field(gt=0, le=10_000_000)


class HedgeEntry(_Section):
    """When a second deployment is asked though the first has not failed: after this quantile of its latency, for this share of calls."""

    quantile: float = Field(default=0.95, ge=0.5, le=0.999)
    calls_share_max: float = Field(default=0.05, gt=0, le=0.5)


class ModelEntry(_Section):
    """A model as farthing.yaml writes it: with one provider, or with deployments."""

    provider: str = ""
    deployments: tuple[DeploymentEntry, ...] = Field(default=(), max_length=32)
    upstream_model: str = ""
    context_window_tokens: int = Field(default=128_000, gt=0, le=100_000_000)
    output_tokens_max: int = Field(default=4096, gt=0, le=10_000_000)
    tier: str = ""
    encoding: Literal["o200k", "cl100k"] = "o200k"
    capabilities: tuple[Capability, ...] = ("json", "streaming")
    price: PriceEntry | None = None
    token_margin_pct: int = Field(default=10, ge=0, le=200)
    tasks: dict[str, TaskEntry] = Field(default_factory=dict, max_length=200)
    hedge: HedgeEntry | None = None


class CascadeEntry(_Section):
    """A cascade as farthing.yaml writes it."""

    task: str = "*"
    steps: tuple[str, ...] = Field(min_length=1, max_length=8)
    agreement: tuple[str, ...] = Field(default=(), max_length=3)
    accept_confidence: float = Field(default=0.7, ge=0, le=1)
    calls_max: int = Field(default=6, ge=1, le=32)


class DriftChecksEntry(_Section):
    """How calibrations in force are checked: which share of requests, how many an hour at most, and what happens where one drifts."""

    share: float = Field(default=0.01, ge=0, le=1)
    per_hour_max: int = Field(default=60, ge=0, le=100_000)
    on_drift: Literal["warn", "escalate"] = "warn"


class RoutingEntry(_Section):
    """The `routing` section."""

    baseline_model: str = ""
    tiers: tuple[str, ...] = ("free", "standard", "premium")
    cascades: tuple[CascadeEntry, ...] = ()
    fallbacks: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    output_tokens_default: int = Field(default=1024, gt=0, le=1_000_000)
    unknown_price: Literal["error", "upper_bound"] = "error"
    content_filter: Literal["stop", "fallback"] = "stop"
    detect_capabilities: bool = True
    rules: tuple[RuleEntry, ...] = Field(default=(), max_length=RULES_MAX)
    drift_checks: DriftChecksEntry = DriftChecksEntry()


class _Sections(_Section):
    providers: dict[str, ProviderEntry] = Field(default_factory=dict)
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    routing: RoutingEntry = RoutingEntry()


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the router knows it, with at least one deployment; `provider` is the first one's.

    It is `hosted` unless some deployment of it runs on own machines. Capabilities and context window are the best that a deployment has.
    """

    name: str
    provider: str
    hosted: bool
    tier: str
    tier_rank: int
    context_window_tokens: int
    output_tokens_max: int
    encoding: str
    capabilities: frozenset[str]
    token_margin_pct: int
    deployments: tuple[Deployment, ...]
    output_tokens_max_by_task: Mapping[str, int]
    hedge: HedgeEntry | None = None
    left_out: frozenset[str] = frozenset()

    def output_limit(self, task: str) -> int:
        """How many tokens an answer may have for a task."""
        return min(self.output_tokens_max, self.output_tokens_max_by_task.get(task, self.output_tokens_max))


@dataclass(frozen=True, slots=True)
class Cascade:
    """Models from cheap to dear; the ones in `agreement` are asked side by side."""

    steps: tuple[str, ...]
    agreement: tuple[str, ...]
    accept_confidence: float
    calls_max: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything the router can choose from. `baseline_model` is empty where farthing.yaml names none; `unknown_price` is a policy.

    `content_filter` says whether somebody else is asked where a provider's filter refuses a request.
    """

    models: dict[str, Model]
    baseline_model: str
    tiers: tuple[str, ...]
    cascades: tuple[tuple[str, Cascade], ...]
    fallbacks: Mapping[str, tuple[str, ...]]
    output_tokens_default: int
    unknown_price: str
    content_filter: str = "stop"
    detect_capabilities: bool = True
    rules: tuple[Rule, ...] = ()
    drift_checks: DriftChecksEntry = field(default_factory=DriftChecksEntry)

    def model(self, name: str) -> Model:
        """A model; raises ModelUnknown."""
        found = self.models.get(name)
        if found is None:
            raise ModelUnknown(model=name)
        return found

    def correct(self, model: Model) -> None:
        """Takes a model in the place of the one of its name: its provider has told what farthing.yaml leaves out."""
        self.models[model.name] = model

    def cascade(self, task: str) -> Cascade | None:
        """The first cascade for a task; None where none is written."""
        return next((cascade for pattern, cascade in self.cascades if pattern in ("*", task)), None)

    def tier_rank(self, tier: str) -> int:
        """How far a user of this tier may reach; the highest for the empty one. Raises FieldInvalid for an unknown one."""
        if not tier:
            return len(self.tiers)
        if tier not in self.tiers:
            raise FieldInvalid(field="tier", problem=f"{tier!r} is unknown; known are {', '.join(self.tiers)}")
        return self.tiers.index(tier)


def parse_catalog(config: Mapping[str, Any], *, key_of: KeyOf, list_price: ListPrice) -> Catalog:
    """The catalog that farthing.yaml describes. Raises FieldInvalid, naming the path of the field, for what cannot be."""
    try:
        sections = _Sections.model_validate(
            {name: config[name] for name in ("providers", "models", "routing") if config.get(name)}
        )
    except ValidationError as error:
        raise misread(error.errors()[0]) from error
    routing = sections.routing
    models = {
        name: _model(name, entry, sections, key_of=key_of, list_price=list_price) for name, entry in sections.models.items()
    }
    _check_names(routing, models)
    _check_deployments(models)
    return Catalog(
        models=models,
        baseline_model=routing.baseline_model,
        tiers=routing.tiers,
        cascades=tuple(
            (each.task, Cascade(each.steps, each.agreement, each.accept_confidence, each.calls_max))
            for each in routing.cascades
        ),
        fallbacks=routing.fallbacks,
        output_tokens_default=routing.output_tokens_default,
        unknown_price=routing.unknown_price,
        content_filter=routing.content_filter,
        detect_capabilities=routing.detect_capabilities,
        rules=tuple(entry.rule(number=number) for number, entry in enumerate(routing.rules)),
        drift_checks=routing.drift_checks,
    )


def _model(name: str, entry: ModelEntry, sections: _Sections, *, key_of: KeyOf, list_price: ListPrice) -> Model:
    tiers = sections.routing.tiers
    tier = entry.tier or tiers[0]
    if tier not in tiers:
        raise FieldInvalid(field=f"models.{name}.tier", problem=f"{tier!r} is not among routing.tiers")
    if bool(entry.provider) == bool(entry.deployments):
        raise FieldInvalid(field=f"models.{name}.provider", problem="give either a provider or deployments")
    stated = entry.price.price(field=f"models.{name}.price") if entry.price is not None else None
    left_out = _LISTED - entry.model_fields_set
    usual = Usual(name, entry.upstream_model, entry.capabilities, entry.context_window_tokens, stated, left_out)
    entries = _entries(name, entry)
    places = tuple(
        deployment(each, usual, at=at, providers=sections.providers, key_of=key_of, list_price=list_price)
        for at, each in entries
    )
    if not any(place.weight for place in places):
        raise FieldInvalid(field=f"models.{name}.deployments", problem="at least one must have a weight above 0")
    return Model(
        name=name,
        provider=places[0].provider,
        hosted=all(place.hosted for place in places),
        tier=tier,
        tier_rank=tiers.index(tier),
        context_window_tokens=max(place.context_window_tokens for place in places),
        output_tokens_max=entry.output_tokens_max,
        encoding=entry.encoding,
        capabilities=frozenset().union(*(place.capabilities for place in places)),
        token_margin_pct=entry.token_margin_pct,
        deployments=places,
        output_tokens_max_by_task={task: each.output_tokens_max for task, each in entry.tasks.items()},
        hedge=entry.hedge,
        left_out=left_out,
    )


def _entries(name: str, entry: ModelEntry) -> list[tuple[str, DeploymentEntry]]:
    """The deployments of a model, each with the path of its entry. Raises FieldInvalid where one provider is to ask two prices."""
    if not entry.deployments:
        return [(f"models.{name}", DeploymentEntry(provider=entry.provider))]
    asked: dict[str, PriceEntry | None] = {}
    entries = [(f"models.{name}.deployments.{number}", each) for number, each in enumerate(entry.deployments)]
    for at, each in entries:
        price = each.price or entry.price
        # The price book and the ledger tell prices apart by provider and model.
        if asked.setdefault(each.provider, price) != price:
            problem = f"{each.provider!r} has another price for this model; give this deployment a provider entry of its own"
            raise FieldInvalid(field=f"{at}.price", problem=problem)
    return entries


def _check_deployments(models: Mapping[str, Model]) -> None:
    """Raises FieldInvalid where two deployments have one name, or nobody is there to hedge with."""
    known: dict[str, str] = {}
    for model in models.values():
        for number, each in enumerate(model.deployments):
            if each.name in known:
                field = f"models.{model.name}.deployments.{number}.name"
                raise FieldInvalid(field=field, problem=f"{each.name!r} is a deployment of {known[each.name]} already")
            known[each.name] = model.name
        if model.hedge is not None and sum(not each.batch for each in model.deployments) < 2:
            raise FieldInvalid(field=f"models.{model.name}.hedge", problem="needs a second deployment")


def _check_names(routing: RoutingEntry, models: Mapping[str, Model]) -> None:
    named: list[tuple[str, str]] = []
    if routing.baseline_model:
        named.append(("routing.baseline_model", routing.baseline_model))
    for number, cascade in enumerate(routing.cascades):
        named += [(f"routing.cascades.{number}.steps", name) for name in cascade.steps]
        named += [(f"routing.cascades.{number}.agreement", name) for name in cascade.agreement]
    for name, others in routing.fallbacks.items():
        named += [(f"routing.fallbacks.{name}", each) for each in (name, *others)]
    for path, name in named:
        if name not in models:
            raise FieldInvalid(field=path, problem=f"{name!r} is not among models")
