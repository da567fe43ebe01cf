"""Providers and deployments as farthing.yaml writes them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from farthing_core.errors import FieldInvalid
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from farthing_router.pricing.list_prices import Listed
from farthing_router.pricing.price_entries import PriceEntry
from farthing_router.pricing.prices import Price
from farthing_router.wires import BatchEntry, Wire, WireEntry, wire_of

Capability = Literal["tools", "vision", "json", "audio", "streaming", "batch"]
KeyOf = Callable[[str], str | None]
"""The API key in an environment variable; None when it is not set."""
ListPrice = Callable[[str, str], Listed | None]
"""The place of (provider, upstream model) on a price list."""
_NAME_CHARACTERS_MAX = 200


class ProviderEntry(WireEntry):
    """A provider as farthing.yaml writes it. A streamed answer may be silent for `first_token_timeout_s`, then for `idle_timeout_s`."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
    api_key_env: str = ""
    api_key_optional: bool = False
    hosted: bool = True
    list_price_provider: str = ""
    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    first_token_timeout_s: float = Field(default=120.0, gt=0, le=3600)
    idle_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    retries: int = Field(default=2, ge=0, le=5)


class DeploymentEntry(BaseModel):
    """One deployment of a model as farthing.yaml writes it; what is not given is as its provider and its model have it.

    A `weight` of 0 takes calls only where no other deployment can. `rpm`, `tpm` (requests and tokens a minute) and `concurrency_max` are
    this process's own limits on it; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    name: Annotated[str, StringConstraints(max_length=_NAME_CHARACTERS_MAX)] = ""
    upstream_model: str = ""
    weight: float = Field(default=1.0, ge=0, le=1_000_000)
    region: Annotated[str, StringConstraints(max_length=60)] = ""
    hosted: bool | None = None
    price: PriceEntry | None = None
    capabilities: tuple[Capability, ...] | None = None
    context_window_tokens: int | None = Field(default=None, gt=0, le=100_000_000)
    timeout_s: float | None = Field(default=None, gt=0, le=3600)
    first_token_timeout_s: float | None = Field(default=None, gt=0, le=3600)
    idle_timeout_s: float | None = Field(default=None, gt=0, le=3600)
    retries: int | None = Field(default=None, ge=0, le=5)
    rpm: int = Field(default=0, ge=0, le=10_000_000)
    tpm: int = Field(default=0, ge=0, le=10_000_000_000)
    concurrency_max: int = Field(default=0, ge=0, le=100_000)
    batch: BatchEntry | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a model runs, and who sells it there. `stated` is the price that farthing.yaml gives, `listed` its place on a price list.

    `hosted`: somebody bills for it. A stream may be silent for `first_token_timeout_s` before its first piece, then for `idle_timeout_s`.
    `left_out` names what farthing.yaml does not say and the provider's listing may; `listing` is "listed", "not listed", or empty where
    the provider lists nothing or was not asked.
    """

    name: str
    base_url: str
    upstream_model: str
    api_key: str = field(repr=False)
    timeout_s: float
    retries: int
    wire: Wire = field(default_factory=Wire)
    provider: str = ""
    hosted: bool = True
    weight: float = 1.0
    region: str = ""
    capabilities: frozenset[str] = frozenset()
    context_window_tokens: int = 128_000
    stated: Price | None = None
    listed: Listed | None = None
    first_token_timeout_s: float = 120.0
    idle_timeout_s: float = 60.0
    rpm: int = 0
    tpm: int = 0
    concurrency_max: int = 0
    left_out: frozenset[str] = frozenset()
    listing: str = ""

    @property
    def batch(self) -> bool:
        """Whether it is a provider's Batch API: cheaper, and answering within hours."""
        return self.wire.batch is not None


@dataclass(frozen=True, slots=True)
class Usual:
    """What a model says for all of its deployments."""

    model: str
    upstream_model: str
    capabilities: tuple[Capability, ...]
    context_window_tokens: int
    stated: Price | None
    left_out: frozenset[str] = frozenset()


def deployment(
    entry: DeploymentEntry,
    usual: Usual,
    *,
    at: str,
    providers: Mapping[str, ProviderEntry],
    key_of: KeyOf,
    list_price: ListPrice,
) -> Deployment:
    """A deployment; `at` is the path of its entry. Raises FieldInvalid for what cannot be, naming the field."""
    provider = providers.get(entry.provider)
    if provider is None:
        raise FieldInvalid(field=f"{at}.provider", problem=f"{entry.provider!r} is not among providers")
    name = entry.name or f"{entry.provider}/{usual.model}"
    if len(name) > _NAME_CHARACTERS_MAX:
        raise FieldInvalid(field=f"{at}.name", problem=f"must be given: {name[:60]!r}… is too long for one")
    hosted = provider.hosted if entry.hosted is None else entry.hosted
    upstream_model = entry.upstream_model or usual.upstream_model or usual.model
    wire = wire_of(provider, name=entry.provider, upstream_model=upstream_model, key_of=key_of)
    if entry.batch is not None:
        if wire.name in ("cohere", "any_llm"):
            raise FieldInvalid(field=f"{at}.batch", problem=f"there are no batches on the wire {wire.name}")
        wire = replace(wire, batch=entry.batch)
    stated = entry.price.price(field=f"{at}.price") if entry.price is not None else usual.stated
    listed = list_price(provider.list_price_provider or entry.provider, upstream_model) if stated is None else None
    return Deployment(
        name=name,
        base_url=provider.base_url.rstrip("/"),
        upstream_model=upstream_model,
        api_key=_key(entry.provider, provider, key_of),
        # A batch has all the time that its provider promises to need.
        timeout_s=_given(entry.timeout_s, provider.timeout_s) if wire.batch is None else wire.batch.turnaround_s,
        retries=provider.retries if entry.retries is None else entry.retries,
        wire=wire,
        provider=entry.provider,
        hosted=hosted,
        weight=entry.weight,
        region=entry.region,
        capabilities=frozenset(usual.capabilities if entry.capabilities is None else entry.capabilities),
        context_window_tokens=entry.context_window_tokens or usual.context_window_tokens,
        stated=stated,
        listed=listed,
        first_token_timeout_s=_given(entry.first_token_timeout_s, provider.first_token_timeout_s),
        idle_timeout_s=_given(entry.idle_timeout_s, provider.idle_timeout_s),
        rpm=entry.rpm,
        tpm=entry.tpm,
        concurrency_max=entry.concurrency_max,
        left_out=usual.left_out - entry.model_fields_set,
    )


def _given(own_s: float | None, usual_s: float) -> float:
    return usual_s if own_s is None else own_s


def _key(name: str, provider: ProviderEntry, key_of: KeyOf) -> str:
    key = key_of(provider.api_key_env) if provider.api_key_env else None
    if key is None and not provider.api_key_optional and provider.hosted:
        variable = provider.api_key_env or "api_key_env"
        raise FieldInvalid(
            field=f"providers.{name}.api_key_env", problem=f"{variable} is not set; set it, or say api_key_optional: true"
        )
    return key or ""
