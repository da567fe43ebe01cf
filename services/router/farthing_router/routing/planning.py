"""Planning: which models may and can serve a request, in which order they are asked, and what that may cost."""

from __future__ import annotations

from farthing_core.money import NANOS_MAX

from farthing_router.catalog import AUTO_MODEL, AUTO_MODELS, Cascade, Catalog, Model
from farthing_router.deployments.declared import Deployment
from farthing_router.deployments.eligible import WINDOW_TOO_SMALL, Needs, able
from farthing_router.pricing.price_book import Prices
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.routes import Candidate, ContextTooLong, NoCandidate, Role, Route, Wish

_IMAGE_TOKENS = 1_700
"""What one image is taken to cost in a worst case: a large one at high detail."""


class Planner:
    """Plans routes over a catalog."""

    def __init__(self, catalog: Catalog, lengths: OutputLengths) -> None:
        self._catalog = catalog
        self._lengths = lengths

    def plan(self, wish: Wish, prices: Prices) -> Route:
        """The route of a request at these prices. Raises ModelUnknown, PriceUnknown, NoCandidate, ContextTooLong."""
        if wish.model not in AUTO_MODELS:
            return self._fixed(wish, prices)
        cascade = self._catalog.cascade(wish.task) or _by_price(prices)
        why: dict[str, str] = {}
        models = [self._catalog.model(name) for name in dict.fromkeys((*cascade.agreement, *cascade.steps))]
        fit = [model for model in models if self._may(model, wish, why)]
        if not fit and wish.open_models_only:
            others = [model for model in self._catalog.models.values() if not model.hosted]
            fit = [model for model in others if self._may(model, wish, why)][:1]
        if not fit:
            self._refuse(models, wish, why)
        roles = _roles(fit, cascade)
        return self._route(roles, wish, prices, cascade=cascade, reason=f"cascade of {len(roles)}")

    def baseline(self, wish: Wish, prices: Prices) -> tuple[str, int]:
        """The baseline model and what the request would likely cost there; ("", 0) without a price."""
        name = wish.baseline_model or prices.baseline_model()
        model = self._catalog.models.get(name)
        price = prices.find(model) if model is not None else None
        if model is None or price is None:
            return "", 0
        counted = wish.baseline_input_tokens or wish.input_tokens
        tokens = counted.get(model.encoding, wish.bytes_bound)
        return name, price.text(tokens, self._likely(model, wish))

    def _fixed(self, wish: Wish, prices: Prices) -> Route:
        named = self._catalog.model(wish.model)
        why: dict[str, str] = {}
        if not self._may(named, wish, why):
            self._refuse([named], wish, why)
        others = [self._catalog.model(name) for name in self._catalog.fallbacks.get(named.name, ())]
        roles = [(named, Role.FIRST), *((model, Role.FALLBACK) for model in others if self._may(model, wish, why))]
        return self._route(roles, wish, prices, cascade=None, reason="the caller named the model")

    def _may(self, model: Model, wish: Wish, why: dict[str, str]) -> bool:
        if model.tier_rank > self._catalog.tier_rank(wish.tier):
            why[model.name] = f"is for tier {model.tier}"
        elif not (found := able(model, self._needs(model, wish))).deployments:
            why[model.name] = found.reason
        else:
            return True
        return False

    def _needs(self, model: Model, wish: Wish) -> Needs:
        tokens = self._input_tokens(model, wish) + self._output_max(model, wish)
        return Needs(wish.needs, tokens, wish.allowed_providers, open_only=wish.open_models_only)

    def _refuse(self, models: list[Model], wish: Wish, why: dict[str, str]) -> None:
        small = [model for model in models if why.get(model.name) == WINDOW_TOO_SMALL]
        if small:
            largest = max(small, key=lambda model: self._room(model, wish))
            raise ContextTooLong(
                input_tokens=self._input_tokens(largest, wish), input_tokens_max=max(0, self._room(largest, wish))
            )
        raise NoCandidate(why=why)

    def _route(
        self, roles: list[tuple[Model, Role]], wish: Wish, prices: Prices, *, cascade: Cascade | None, reason: str
    ) -> Route:
        candidates = tuple(self._candidate(model, role, wish, prices) for model, role in roles)
        asked = [each for each in candidates if each.role is not Role.FALLBACK]
        spare = [each for each in candidates if each.role is Role.FALLBACK]
        # Failed calls are not billed, so a fallback costs at most what it costs more than the candidate whose place it takes.
        last = max([asked[-1], *spare], key=lambda each: each.worst_case_usd_nanos)
        # Who is asked twice at once may be paid twice.
        worst = [each for each in (*asked[:-1], last) for _ in range(2 if self._hedged(each) else 1)]
        opening = [each for each in asked if each.role in (Role.FIRST, Role.PEER)]
        return Route(
            candidates=candidates,
            strategy="cascade" if cascade else "fixed",
            reason=reason,
            worst_case_usd_nanos=min(NANOS_MAX, sum(each.worst_case_usd_nanos for each in worst)),
            likely_usd_nanos=sum(each.likely_usd_nanos for each in opening),
            worst_case_tokens=sum(each.input_tokens + each.output_tokens_max for each in worst),
            calls_max=cascade.calls_max if cascade else min(32, sum(tries(m) for m, _ in roles)),
            accept_confidence=cascade.accept_confidence if cascade else 0.0,
            cost_usd_nanos_max=wish.cost_usd_nanos_max,
            requested_model=wish.model or AUTO_MODEL,
        )

    def _hedged(self, candidate: Candidate) -> bool:
        return len(candidate.deployments) != 1 and self._catalog.model(candidate.model).hedge is not None

    def _candidate(self, model: Model, role: Role, wish: Wish, prices: Prices) -> Candidate:
        found = able(model, self._needs(model, wish)).deployments
        priced = [each for each in found if prices.knows(model, each)] if len(found) > 1 else found
        tokens, output_max, likely = self._input_tokens(model, wish), self._output_max(model, wish), self._likely(model, wish)
        bound = tokens + tokens * model.token_margin_pct // 100 + wish.images * _IMAGE_TOKENS
        may = (wish.cache_writes, wish.audio, bool(wish.images))
        tier = wish.service_tier
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
            likely_usd_nanos=min(NANOS_MAX, price.text(tokens, likely, service_tier=tier)),
            price_source=price.source,
            price_unknown=any(cost[0].unknown for cost in costs),
            deployments=_named(model, [cost[2] for cost in costs]),
        )

    def _input_tokens(self, model: Model, wish: Wish) -> int:
        return wish.input_tokens.get(model.encoding, wish.bytes_bound)

    def _output_max(self, model: Model, wish: Wish) -> int:
        return min(wish.output_tokens_max or self._catalog.output_tokens_default, model.output_limit(wish.task))

    def _room(self, model: Model, wish: Wish) -> int:
        return model.context_window_tokens - self._output_max(model, wish)

    def _likely(self, model: Model, wish: Wish) -> int:
        return min(self._lengths.likely(model.name, wish.task), self._output_max(model, wish))


def tries(model: Model) -> int:
    """How many calls may be made to a model where each of its deployments fails as often as it may."""
    return sum(each.retries + 1 for each in model.deployments if not each.batch)


def _named(model: Model, deployments: list[Deployment]) -> tuple[str, ...]:
    """The deployments by name; none where they are all that the model has."""
    return () if len(deployments) == len(model.deployments) else tuple(each.name for each in deployments)


def _by_price(prices: Prices) -> Cascade:
    """Where farthing.yaml writes no cascade: from the cheapest model to the dearest."""
    steps = prices.cheap_to_dear()
    return Cascade((steps[0], steps[-1]) if len(steps) > 2 else tuple(steps), (), accept_confidence=0.7, calls_max=6)


def _roles(models: list[Model], cascade: Cascade) -> list[tuple[Model, Role]]:
    """Agreeing models open side by side; the others follow as escalations."""
    opening = [model for model in models if model.name in cascade.agreement] or models[:1]
    roles = [(model, Role.PEER if number else Role.FIRST) for number, model in enumerate(opening)]
    return roles + [(model, Role.ESCALATION) for model in models if model not in opening]
