"""The catalog: providers, models and cascades, as farthing.yaml writes them, checked once and then only looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from farthing_core.errors import FarthingError, FieldInvalid
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from farthing_router.pricing.list_prices import Listed
from farthing_router.pricing.price_entries import PriceEntry
from farthing_router.pricing.prices import Price
from farthing_router.wires import Wire, WireEntry, wire_of

AUTO_MODEL = "farthing/auto"
AUTO_MODELS = frozenset({"", AUTO_MODEL})
Capability = Literal["tools", "vision", "json", "streaming", "batch"]


class ModelUnknown(FarthingError):
    """A model that is not in the catalog."""

    def __init__(self, *, model: str) -> None:
        super().__init__(f"model: {model!r} is not in the catalog (farthing.yaml)", model=model, field="model")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderEntry(WireEntry):
    """A provider as farthing.yaml writes it."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
    api_key_env: str = ""
    api_key_optional: bool = False
    hosted: bool = True
    list_price_provider: str = ""
    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    retries: int = Field(default=2, ge=0, le=5)


class ModelEntry(_Section):
    """A model as farthing.yaml writes it."""

    provider: str
    upstream_model: str = ""
    context_window_tokens: int = Field(default=128_000, gt=0, le=100_000_000)
    output_tokens_max: int = Field(default=4096, gt=0, le=10_000_000)
    tier: str = ""
    encoding: Literal["o200k", "cl100k"] = "o200k"
    capabilities: tuple[Capability, ...] = ("json", "streaming")
    price: PriceEntry | None = None
    token_margin_pct: int = Field(default=10, ge=0, le=200)


class CascadeEntry(_Section):
    """A cascade as farthing.yaml writes it."""

    task: str = "*"
    steps: tuple[str, ...] = Field(min_length=1, max_length=8)
    agreement: tuple[str, ...] = Field(default=(), max_length=3)
    accept_confidence: float = Field(default=0.7, ge=0, le=1)
    calls_max: int = Field(default=6, ge=1, le=32)


class RoutingEntry(_Section):
    """The `routing` section."""

    baseline_model: str = ""
    tiers: tuple[str, ...] = ("free", "standard", "premium")
    cascades: tuple[CascadeEntry, ...] = ()
    fallbacks: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    output_tokens_default: int = Field(default=1024, gt=0, le=1_000_000)
    unknown_price: Literal["error", "upper_bound"] = "error"


class _Sections(_Section):
    providers: dict[str, ProviderEntry] = Field(default_factory=dict)
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    routing: RoutingEntry = RoutingEntry()


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a model runs."""

    name: str
    base_url: str
    upstream_model: str
    api_key: str
    timeout_s: float
    retries: int
    wire: Wire = field(default_factory=Wire)


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the router knows it. `stated` is the price that farthing.yaml gives, `listed` the model's place on a price list."""

    name: str
    provider: str
    hosted: bool
    tier: str
    tier_rank: int
    context_window_tokens: int
    output_tokens_max: int
    encoding: str
    capabilities: frozenset[str]
    stated: Price | None
    listed: Listed | None
    token_margin_pct: int
    deployment: Deployment


@dataclass(frozen=True, slots=True)
class Cascade:
    """Models from cheap to dear; the ones in `agreement` are asked side by side."""

    steps: tuple[str, ...]
    agreement: tuple[str, ...]
    accept_confidence: float
    calls_max: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything the router can choose from. `baseline_model` is empty where farthing.yaml names none; `unknown_price` is a policy."""

    models: Mapping[str, Model]
    baseline_model: str
    tiers: tuple[str, ...]
    cascades: tuple[tuple[str, Cascade], ...]
    fallbacks: Mapping[str, tuple[str, ...]]
    output_tokens_default: int
    unknown_price: str

    def model(self, name: str) -> Model:
        """A model; raises ModelUnknown."""
        found = self.models.get(name)
        if found is None:
            raise ModelUnknown(model=name)
        return found

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


KeyOf = Callable[[str], str | None]
"""The API key in an environment variable; None when it is not set."""
ListPrice = Callable[[str, str], Listed | None]
"""The place of (provider, upstream model) on a price list."""


def parse_catalog(config: Mapping[str, Any], *, key_of: KeyOf, list_price: ListPrice) -> Catalog:
    """The catalog that farthing.yaml describes. Raises FieldInvalid, naming the path of the field, for what cannot be."""
    try:
        sections = _Sections.model_validate(
            {name: config[name] for name in ("providers", "models", "routing") if config.get(name)}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise FieldInvalid(field=".".join(str(part) for part in first["loc"]), problem=first["msg"]) from error
    routing = sections.routing
    models = {name: _model(name, entry, sections, key_of, list_price) for name, entry in sections.models.items()}
    _check_names(routing, models)
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
    )


def _model(name: str, entry: ModelEntry, sections: _Sections, key_of: KeyOf, list_price: ListPrice) -> Model:
    provider = sections.providers.get(entry.provider)
    if provider is None:
        raise FieldInvalid(field=f"models.{name}.provider", problem=f"{entry.provider!r} is not among providers")
    tiers = sections.routing.tiers
    tier = entry.tier or tiers[0]
    if tier not in tiers:
        raise FieldInvalid(field=f"models.{name}.tier", problem=f"{tier!r} is not among routing.tiers")
    upstream_model = entry.upstream_model or name
    stated = entry.price.price(field=f"models.{name}.price") if entry.price is not None else None
    listed = list_price(provider.list_price_provider or entry.provider, upstream_model) if stated is None else None
    return Model(
        name=name,
        provider=entry.provider,
        hosted=provider.hosted,
        tier=tier,
        tier_rank=tiers.index(tier),
        context_window_tokens=entry.context_window_tokens,
        output_tokens_max=entry.output_tokens_max,
        encoding=entry.encoding,
        capabilities=frozenset(entry.capabilities),
        stated=stated,
        listed=listed,
        token_margin_pct=entry.token_margin_pct,
        deployment=_deployment(entry.provider, provider, upstream_model, key_of),
    )


def _deployment(name: str, provider: ProviderEntry, upstream_model: str, key_of: KeyOf) -> Deployment:
    key = key_of(provider.api_key_env) if provider.api_key_env else None
    if key is None and not provider.api_key_optional and provider.hosted:
        variable = provider.api_key_env or "api_key_env"
        raise FieldInvalid(
            field=f"providers.{name}.api_key_env", problem=f"{variable} is not set; set it, or say api_key_optional: true"
        )
    wire = wire_of(provider, name=name, upstream_model=upstream_model, key_of=key_of)
    base_url = provider.base_url.rstrip("/")
    return Deployment(name, base_url, upstream_model, key or "", provider.timeout_s, provider.retries, wire)


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
