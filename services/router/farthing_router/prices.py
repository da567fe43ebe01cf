"""What models cost: rates in whole nanodollars per million tokens, from farthing.yaml or the list prices of genai-prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from farthing_core.errors import FarthingError
from farthing_core.money import Nanos, nanos_from_usd, price_of_tokens


class PriceUnknown(FarthingError):
    """A model without a price: its use would be free by mistake."""

    def __init__(self, *, model: str) -> None:
        super().__init__(f"no price is known for {model}: give it one in farthing.yaml (models.{model}.price)", model=model)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one call; cached ones are part of input, reasoning ones part of output."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """Rates in nanodollars per million tokens, and where they are from."""

    input_usd_nanos_per_million_tokens: int
    output_usd_nanos_per_million_tokens: int
    cached_input_usd_nanos_per_million_tokens: int
    source: str

    def of(self, tokens: Tokens) -> Nanos:
        """What a call costs, rounded up once."""
        cached = min(tokens.cached_input_tokens, tokens.input_tokens)
        return price_of_tokens(
            (tokens.input_tokens - cached, self.input_usd_nanos_per_million_tokens),
            (cached, self.cached_input_usd_nanos_per_million_tokens),
            (tokens.output_tokens, self.output_usd_nanos_per_million_tokens),
        )


def price_from_usd(input_usd: str, output_usd: str, cached_input_usd: str | None) -> Price:
    """The price that farthing.yaml gives, in dollars per million tokens as decimal text. Raises AmountInvalid."""
    rate = nanos_from_usd(input_usd)
    cached = rate if cached_input_usd is None else nanos_from_usd(cached_input_usd)
    return Price(rate, nanos_from_usd(output_usd), cached, "farthing.yaml")


class ListPrices:
    """List prices as the installed genai-prices knows them; nothing is fetched. Tiered prices count at their first tier."""

    def __init__(self) -> None:
        # Its data takes a fifth of a second to build, so it is loaded only when some model needs it.
        from genai_prices.data_snapshot import get_snapshot

        self._snapshot = get_snapshot()

    def price(self, provider: str, upstream_model: str, *, at: datetime) -> Price | None:
        """The list price of a provider's model; None when there is none."""
        try:
            _, model = self._snapshot.find_provider_model(upstream_model, None, provider, None)
        except LookupError:
            return None
        listed = model.get_prices(at)
        rate, output = _first_tier(listed.input_mtok), _first_tier(listed.output_mtok)
        if rate is None or output is None:
            return None
        cached = _first_tier(listed.cache_read_mtok)
        return Price(rate, output, rate if cached is None else cached, "genai-prices")


def _first_tier(usd: Any) -> int | None:
    if usd is None:
        return None
    return nanos_from_usd(getattr(usd, "base", usd))
