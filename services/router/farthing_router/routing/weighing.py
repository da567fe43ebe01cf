"""What is known of models for one request, and what is guessed where nothing is.

Nothing known is neither zero nor perfect. A quality that nobody has seen is guessed from the model's place among the catalog's prices:
from 0.5 for the cheapest to 0.8 for the dearest, at least what a cheaper model is known to reach (and some of what is left to 1, the
dearer the more), at most what a dearer one does. A latency is guessed as that of a slow model of its price. A guess is good enough to put
models in order, never to meet a quality floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farthing_router.catalog import Catalog, Model
from farthing_router.deployments.declared import Deployment
from farthing_router.pricing.price_book import Prices
from farthing_router.routing.costing import Costs
from farthing_router.routing.ports import PRIOR, Known, Option, Qualities, Speeds
from farthing_router.routing.routes import Wish

_QUALITY_CHEAPEST, _QUALITY_DEAREST = 0.5, 0.8
_OF_WHAT_IS_LEFT = 0.5
_START_MS = 1_000
_TOKEN_MS_CHEAPEST, _TOKEN_MS_DEAREST = 10.0, 30.0
_ERROR_RATE_MAX = 0.9
_ORDERS_MAX = 1_000


class PriceOrder:
    """The catalog's models from cheap to dear, for each organisation, remembered for a minute."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._orders: dict[str, tuple[tuple[int, int], tuple[str, ...], dict[str, float]]] = {}

    def names(self, prices: Prices) -> tuple[str, ...]:
        """Those with a known price, in order of it."""
        return self._order(prices)[1]

    def ranks(self, prices: Prices) -> Mapping[str, float]:
        """The place of each among them, from 0 for the cheapest to 1 for the dearest; who has no price is not there."""
        return self._order(prices)[2]

    def _order(self, prices: Prices) -> tuple[tuple[int, int], tuple[str, ...], dict[str, float]]:
        stamp, found = prices.stamp, self._orders.get(prices.organization)
        if found is None or found[0] != stamp:
            names = tuple(prices.cheap_to_dear())
            last = max(1, len(names) - 1)
            found = (stamp, names, {name: place / last for place, name in enumerate(names)})
            if len(self._orders) >= _ORDERS_MAX:
                self._orders.clear()
            self._orders[prices.organization] = found
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What has to be known of models for a decision: what is not needed is not looked up."""

    latency: bool = True
    quality: bool = True


class Weigher:
    """Weighs models for requests."""

    def __init__(self, costs: Costs, order: PriceOrder, *, speeds: Speeds | None, qualities: Qualities | None) -> None:
        self._costs = costs
        self._order = order
        self._speeds = speeds
        self._qualities = qualities

    def options(
        self, models: Sequence[tuple[Model, list[Deployment]]], wish: Wish, prices: Prices, *, baseline: str, asked: Asked
    ) -> list[Option]:
        """Models with the deployments that serve, as options; those without a price are not among them."""
        ranks = self._order.ranks(prices)
        known = self._known([model for model, _ in models], wish) if asked.quality else {}
        options = []
        for model, found in models:
            likely = self._costs.likely_usd_nanos(model, found, wish, prices)
            if likely is None:
                continue
            rank, quality = ranks.get(model.name, 0.0), known.get(model.name)
            latency = self.latency_ms(model, wish) if asked.latency else None
            options.append(
                Option(
                    model=model.name,
                    provider=found[0].provider,
                    likely_usd_nanos=likely,
                    latency_ms=_slow_ms(rank, self._costs.likely_tokens(model, wish)) if latency is None else latency,
                    latency_known=latency is not None,
                    quality=quality.value if quality else _guess(rank, ranks, known) if asked.quality else 0.0,
                    quality_source=quality.source if quality else PRIOR if asked.quality else "",
                    quality_answers=quality.answers if quality else 0,
                    baseline=model.name == baseline,
                )
            )
        return options

    def latency_ms(self, model: Model, wish: Wish) -> int | None:
        """How long its answer will likely take, failed calls that have to be made again counted in; None where nothing is known."""
        if self._speeds is None:
            return None
        latency = self._speeds.latency_ms(model.name, wish.task, output_tokens=self._costs.likely_tokens(model, wish))
        if latency is None:
            return None
        return round(latency / (1 - min(_ERROR_RATE_MAX, self._speeds.error_rate(model.name))))

    def quality(self, model: str, wish: Wish) -> Known | None:
        """How likely its answer is good; None where nothing is known."""
        found = None if self._qualities is None else self._qualities.quality(model, wish)
        return None if found is None or found.source == PRIOR else found

    def _known(self, models: Sequence[Model], wish: Wish) -> dict[str, Known]:
        return {model.name: known for model in models if (known := self.quality(model.name, wish)) is not None}


def _guess(rank: float, ranks: Mapping[str, float], known: Mapping[str, Known]) -> float:
    guess = _QUALITY_CHEAPEST + (_QUALITY_DEAREST - _QUALITY_CHEAPEST) * rank
    most = 1.0
    for name, each in known.items():
        its_rank = ranks.get(name, 0.0)
        if its_rank <= rank:
            guess = max(guess, each.value + (1 - each.value) * _OF_WHAT_IS_LEFT * (rank - its_rank))
        else:
            most = min(most, each.value)
    return min(guess, most)


def _slow_ms(rank: float, tokens: int) -> int:
    return round(_START_MS + tokens * (_TOKEN_MS_CHEAPEST + (_TOKEN_MS_DEAREST - _TOKEN_MS_CHEAPEST) * rank))
