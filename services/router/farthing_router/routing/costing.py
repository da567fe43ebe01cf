"""What it costs to ask a model: tokens, the most and the likely price of a call, and the deployments that come into question."""

from __future__ import annotations

from farthing_core.money import NANOS_MAX, TOKENS_PER_PRICE

from farthing_router.catalog import Catalog, Model
from farthing_router.deployments.declared import Deployment
from farthing_router.deployments.eligible import Able, Needs, able
from farthing_router.pricing.price_book import Prices
from farthing_router.pricing.prices import PriceUnknown, Worst
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.routes import Candidate, Role, Wish

BATCH = "batch"
_IMAGE_TOKENS = 1_700
"""What one image is taken to cost in a worst case: a large one at high detail."""


class Costs:
    """Costs over a catalog."""

    def __init__(self, catalog: Catalog, lengths: OutputLengths) -> None:
        self._catalog = catalog
        self._lengths = lengths

    def able(self, model: Model, wish: Wish, *, batch: bool = False) -> Able:
        """The deployments of a model that may and can serve a request: live ones, or Batch APIs."""
        tokens = input_tokens(model, wish) + self.output_max(model, wish)
        return able(model, Needs(wish.needs, tokens, wish.allowed_providers, open_only=wish.open_models_only, batch=batch))

    def candidate(self, model: Model, role: Role, wish: Wish, prices: Prices, *, batch: bool = False) -> Candidate:
        """A model as a candidate, held for its dearest deployment and likely to cost what its usual one does. Raises PriceUnknown."""
        found = self.able(model, wish, batch=batch).deployments
        priced = [each for each in found if prices.knows(model, each)] if len(found) > 1 else found
        tokens, output_max, likely = input_tokens(model, wish), self.output_max(model, wish), self.likely_tokens(model, wish)
        bound = tokens + tokens * model.token_margin_pct // 100 + wish.images * _IMAGE_TOKENS
        may = (wish.cache_writes, wish.audio, bool(wish.images))
        tier = BATCH if batch else wish.service_tier
        costs = []
        for each in priced or found[:1]:
            price = prices.of(model, each)
            worst = price.worst(bound, output_max, service_tier=tier, may=may)
            if worst.unknown and not prices.bounds_unknown:
                raise PriceUnknown(model=model.name, kinds="audio" if wish.audio else f"tier {tier}")
            costs.append((worst, price, each))
        dearest, _, _ = max(costs, key=lambda cost: cost[0].cost_usd_nanos)
        _, price, usual = max(costs, key=lambda cost: cost[2].weight)
        return Candidate(
            model=model.name,
            role=role,
            provider=usual.provider,
            deployment=usual.name,
            input_tokens=tokens,
            output_tokens_max=output_max,
            likely_output_tokens=likely,
            output_usd_nanos_per_million_tokens=max(cost[0].output_usd_nanos_per_million_tokens for cost in costs),
            hosted=any(cost[2].hosted for cost in costs),
            worst_case_usd_nanos=min(NANOS_MAX, dearest.cost_usd_nanos),
            lost_usd_nanos=max(_lost(cost[0], unsaid=output_max - likely) for cost in costs),
            likely_usd_nanos=min(NANOS_MAX, price.text(tokens, likely, service_tier=tier)),
            price_source=price.source,
            price_unknown=any(cost[0].unknown for cost in costs),
            deployments=_named(model, [cost[2] for cost in costs]),
            service_tier=BATCH if batch else "",
        )

    def likely_usd_nanos(self, model: Model, found: list[Deployment], wish: Wish, prices: Prices) -> int | None:
        """What a call at the usual one of some deployments will likely cost; None where no price is known."""
        usual = found[0] if len(found) == 1 else max(found, key=lambda each: each.weight)
        try:
            price = prices.of(model, usual)
        except PriceUnknown:
            return None
        return price.text(input_tokens(model, wish), self.likely_tokens(model, wish), service_tier=wish.service_tier)

    def baseline(self, wish: Wish, prices: Prices) -> tuple[str, int]:
        """The baseline model and what the request would likely cost there; ("", 0) without a price."""
        name = wish.baseline_model or prices.baseline_model()
        model = self._catalog.models.get(name)
        price = prices.find(model) if model is not None else None
        if model is None or price is None:
            return "", 0
        counted = wish.baseline_input_tokens or wish.input_tokens
        tokens = counted.get(model.encoding, wish.bytes_bound)
        return name, price.text(tokens, self.likely_tokens(model, wish))

    def output_max(self, model: Model, wish: Wish) -> int:
        """How many tokens its answer may have."""
        return min(wish.output_tokens_max or self._catalog.output_tokens_default, model.output_limit(wish.task))

    def room(self, model: Model, wish: Wish) -> int:
        """How many tokens its context window leaves for the prompt."""
        return model.context_window_tokens - self.output_max(model, wish)

    def likely_tokens(self, model: Model, wish: Wish) -> int:
        """How many tokens its answer will likely have."""
        return min(self._lengths.likely(model.name, wish.task), self.output_max(model, wish))


def _lost(worst: Worst, *, unsaid: int) -> int:
    """The most that a call costs whose answer leaves so many tokens unsaid."""
    return min(NANOS_MAX, worst.cost_usd_nanos - unsaid * worst.output_usd_nanos_per_million_tokens // TOKENS_PER_PRICE)


def input_tokens(model: Model, wish: Wish) -> int:
    """The prompt's tokens in a model's encoding; a bound where nobody counted."""
    return wish.input_tokens.get(model.encoding, wish.bytes_bound)


def tries(model: Model) -> int:
    """How many calls may be made to a model where each of its deployments fails as often as it may."""
    return sum(each.retries + 1 for each in model.deployments if not each.batch)


def _named(model: Model, deployments: list[Deployment]) -> tuple[str, ...]:
    """The deployments by name; none where they are all that the model has."""
    return () if len(deployments) == len(model.deployments) else tuple(each.name for each in deployments)
