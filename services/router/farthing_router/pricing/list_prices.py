"""List prices as the installed genai-prices knows them, with the days on which they change; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from farthing_core.money import nanos_from_usd

from farthing_router.pricing.prices import Price
from farthing_router.pricing.rates import RateCard, Rates, Schedule

SOURCE = "genai-prices"
_PER_MILLION = {
    "input_mtok": "input",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "cache_audio_read_mtok": "cached_audio_input",
    "input_image_mtok": "image_input",
    "cache_image_read_mtok": "cached_image_input",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "output_audio_mtok": "audio_output",
    "output_image_mtok": "image_output",
}
_TIERS: dict[str, Mapping[str, str]] = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
"""Our tiers of service in the words of the list."""
_WHOLE_LISTS = frozenset({"google"})
"""Providers whose list gives one rate for every kind of content where it gives none apart."""


class Listed(Protocol):
    """A model on a list."""

    def at(self, moment: datetime) -> Price | None:
        """Its list price at a moment; None where the list has none."""
        ...


class ListPrices:
    """The list."""

    def __init__(self) -> None:
        # Its data takes up to half a second to build, so it is loaded only when some model needs it.
        from genai_prices.data_snapshot import get_snapshot

        self._snapshot = get_snapshot()

    def find(self, provider: str, upstream_model: str) -> Listed | None:
        """A provider's model; None when it is not on the list."""
        try:
            found_provider, model = self._snapshot.find_provider_model(upstream_model, None, provider, None)
        except LookupError:
            return None
        return ListedModel(model, whole=found_provider.id in _WHOLE_LISTS)


class ListedModel:
    """A model of genai-prices. What it cost a minute ago is remembered: prices change by the day, or at a minute of it."""

    def __init__(self, model: Any, *, whole: bool) -> None:
        self._model = model
        self._whole = whole
        self._minute = -1
        self._price: Price | None = None

    def at(self, moment: datetime) -> Price | None:
        """The list price at a moment."""
        minute = int(moment.timestamp()) // 60
        if minute != self._minute:
            self._price, self._minute = self._read(moment), minute
        return self._price

    def _read(self, moment: datetime) -> Price | None:
        usual = self._model.get_prices(moment)
        schedule = _schedule(usual, whole=self._whole)
        if schedule is None:
            return None
        tiers: dict[str, Schedule] = {}
        for tier, words in _TIERS.items():
            listed = self._model.get_prices(moment, words)
            found = None if listed == usual else _schedule(listed, whole=self._whole)
            if found is not None:
                tiers[tier] = found
        return Price(RateCard(schedule, tiers), SOURCE)


def _schedule(listed: Any, *, whole: bool) -> Schedule | None:
    """The rates of a list price; None without a rate for prompts and one for answers."""
    values = {name: value for name in _PER_MILLION if (value := getattr(listed, name)) is not None}
    thresholds = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    short = _rates(values, lambda value: getattr(value, "base", value), listed, whole=whole)
    if "input" not in short or "output" not in short:
        return None
    steps = [(over, _rates(values, _above(over), listed, whole=whole)) for over in thresholds]
    return Schedule(short, [(over, rates) for over, rates in steps if over > 0])


def _above(over: int) -> Callable[[Any], Any]:
    """Reads the rate of prompts with more tokens than a threshold."""

    def read(value: Any) -> Any:
        reached = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= over]
        return reached[-1] if reached else getattr(value, "base", value)

    return read


def _rates(values: Mapping[str, Any], read: Callable[[Any], Any], listed: Any, *, whole: bool) -> Rates:
    rates: dict[str, int] = {_PER_MILLION[name]: nanos_from_usd(read(value)) for name, value in values.items()}
    if "input" in rates:
        # Some lists give what storing costs on top; a token that is written is a token that is read.
        for kind in ("cache_write_5m", "cache_write_1h"):
            if kind in rates:
                rates[kind] = max(rates[kind], rates["input"])
        if whole:
            rates.setdefault("audio_input", rates["input"])
    if whole and "output" in rates:
        rates.setdefault("audio_output", rates["output"])
        rates.setdefault("image_output", rates["output"])
    if (per_thousand := listed.requests_kcount) is not None:
        rates["request"] = -(-nanos_from_usd(per_thousand) // 1000)
    return rates
