"""Prices as farthing.yaml writes them: dollars as decimal text, since a float has lost digits already."""

from __future__ import annotations

from typing import Annotated, Literal

from farthing_core.money import nanos_from_usd
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from farthing_router.pricing.prices import Price
from farthing_router.pricing.rates import TOKEN_KINDS, RateCard, Rates, Schedule, check_schedule, plain_card

SOURCE = "farthing.yaml"
_Usd = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?$")]


class RatesEntry(BaseModel):
    """Rates in dollars per million tokens, per request and per image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd_per_million_tokens: _Usd
    output_usd_per_million_tokens: _Usd
    cached_input_usd_per_million_tokens: _Usd | None = None
    cache_write_5m_usd_per_million_tokens: _Usd | None = None
    cache_write_1h_usd_per_million_tokens: _Usd | None = None
    reasoning_usd_per_million_tokens: _Usd | None = None
    audio_input_usd_per_million_tokens: _Usd | None = None
    cached_audio_input_usd_per_million_tokens: _Usd | None = None
    audio_output_usd_per_million_tokens: _Usd | None = None
    image_input_usd_per_million_tokens: _Usd | None = None
    cached_image_input_usd_per_million_tokens: _Usd | None = None
    image_output_usd_per_million_tokens: _Usd | None = None
    request_usd: _Usd | None = None
    image_usd: _Usd | None = None

    def rates(self) -> Rates:
        """In nanodollars, by kind. Raises AmountInvalid."""
        names = {kind: f"{kind}_usd_per_million_tokens" for kind in TOKEN_KINDS} | {
            "request": "request_usd",
            "image": "image_usd",
        }
        given = {kind: getattr(self, name) for kind, name in names.items()}
        return {kind: nanos_from_usd(usd) for kind, usd in given.items() if usd is not None}


class LongContextEntry(RatesEntry):
    """Rates for prompts with more tokens than a threshold: they count for the whole request."""

    input_tokens_over: int = Field(gt=0, le=1_000_000_000)


class ScheduleEntry(RatesEntry):
    """Rates by length of the prompt."""

    long_context: tuple[LongContextEntry, ...] = Field(default=(), max_length=8)

    def steps(self) -> list[tuple[int, Rates]]:
        """The steps above the first."""
        return [(each.input_tokens_over, each.rates()) for each in self.long_context]


class PriceEntry(ScheduleEntry):
    """A model's price."""

    service_tiers: dict[Literal["batch", "flex", "priority", "fast"], ScheduleEntry] = Field(default_factory=dict)

    def price(self, *, field: str) -> Price:
        """The price. Raises FieldInvalid, naming what is missing below `field`, and AmountInvalid."""
        usual = self.rates()
        check_schedule(usual, self.steps(), field=field)
        tiers = {}
        for name, entry in self.service_tiers.items():
            check_schedule(entry.rates(), entry.steps(), field=f"{field}.service_tiers.{name}", like=usual)
            tiers[str(name)] = Schedule(entry.rates(), entry.steps())
        return Price(RateCard(Schedule(usual, self.steps()), tiers), SOURCE)


def price_from_usd(input_usd: str, output_usd: str, cached_input_usd: str | None = None) -> Price:
    """A price of text tokens alone, in dollars per million as decimal text. Raises AmountInvalid."""
    other = {} if cached_input_usd is None else {"cached_input": nanos_from_usd(cached_input_usd)}
    return Price(plain_card(nanos_from_usd(input_usd), nanos_from_usd(output_usd), **other), SOURCE)
