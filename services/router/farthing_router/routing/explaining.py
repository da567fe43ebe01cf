"""Why a request is routed as it is: the rule, how hard the prompt looks, and what speaks for or against every model of the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from farthing_router.catalog import Model
from farthing_router.pricing.price_book import Prices
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.routing.deciding import Intent
from farthing_router.routing.planning import Planner, thinking
from farthing_router.routing.ports import Option
from farthing_router.routing.routes import Candidate, ContextTooLong, NoCandidate, Role, Route, Wish
from farthing_router.routing.rules import Rule
from farthing_router.routing.strategies import ranked, score
from farthing_router.routing.thinking import Thinking
from farthing_router.routing.thresholds import Limits
from farthing_router.routing.weighing import Asked

_REFUSALS = (NoCandidate, ContextTooLong, PriceUnknown)
_PARTS = {
    Role.FIRST: "is asked first",
    Role.PEER: "is asked beside the first: their agreement is evidence",
    Role.ESCALATION: "is asked when the answers so far are not good enough",
    Role.FALLBACK: "is asked only when the ones before it failed",
}


@dataclass(frozen=True, slots=True)
class Consideration:
    """What is known of a model for one request, and why it is a candidate or not."""

    model: str
    provider: str
    chosen: bool
    reason: str
    likely_usd_nanos: int | None = None
    predicted_latency_ms: int | None = None
    predicted_quality: float | None = None
    quality_source: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A route, None where nobody may or can serve the request, and what led to it."""

    route: Route | None
    rule: Rule | None
    complexity: float
    complexity_reasons: tuple[str, ...]
    considerations: tuple[Consideration, ...]
    reason: str


def explain(planner: Planner, wish: Wish, prices: Prices) -> Explanation:
    """What would be planned for a request, and why. Raises ModelUnknown, and FieldInvalid for a tier that is none."""
    about, route = thinking(wish, prices), None
    try:
        route = planner.think(about)
        reason = f"{' → '.join(each.model for each in route.candidates)}: {route.reason}"
    except _REFUSALS as error:
        reason = error.message
    looks = about.looks.found()
    return Explanation(
        route=route,
        rule=about.intent.rule if about.intent is not None else None,
        complexity=looks.score,
        complexity_reasons=looks.reasons,
        considerations=tuple(_considered(planner, about, route)),
        reason=reason,
    )


def _considered(planner: Planner, about: Thinking, route: Route | None) -> list[Consideration]:
    """Every model of the catalog: first those of the route in its order, then the others by name."""
    chooser, intent = planner.chooser, about.intent
    wish = intent.wish if intent is not None and intent.wish is not None else about.wish
    why, limits = dict(about.why), intent.limits if intent is not None and not intent.model else Limits()
    models = planner.catalog.models
    fresh = Thinking(about.wish, about.prices, about.looks)
    # Anything may be asked about here, also what the decision itself did not need.
    served = chooser.serving(fresh, models.values(), wish, limits)
    options = {each.model: each for each in chooser.options(fresh, served, wish, Asked())}
    parts = {each.model: each for each in reversed(route.candidates)} if route is not None else {}
    order = [*dict.fromkeys(each.model for each in route.candidates)] if route is not None else []
    order += [name for name in sorted(models) if name not in parts]
    places = _places(list(options.values()), intent)
    return [
        _one(models[name], parts.get(name), options.get(name), why.get(name) or fresh.why.get(name) or places.get(name, ""))
        for name in order
    ]


def _one(model: Model, candidate: Candidate | None, option: Option | None, reason: str) -> Consideration:
    return Consideration(
        model=model.name,
        provider=candidate.provider if candidate is not None else model.provider,
        chosen=candidate is not None,
        reason=_PARTS[candidate.role] if candidate is not None else reason or "is not part of the cascade",
        likely_usd_nanos=candidate.likely_usd_nanos if candidate else option.likely_usd_nanos if option else None,
        predicted_latency_ms=option.latency_ms if option is not None and option.latency_known else None,
        predicted_quality=option.quality if option is not None else None,
        quality_source=option.quality_source if option is not None else "",
    )


def _places(options: list[Option], intent: Intent | None) -> dict[str, str]:
    """The place of each option by what the strategy looks for; nothing where it does not put models in order."""
    if intent is None or intent.model or intent.action.strategy == "cascade":
        return dict.fromkeys((each.model for each in options), "the caller named another" if intent and intent.model else "")
    strategy = "balanced" if intent.action.strategy == "learned" else intent.action.strategy
    weights = intent.action.weights
    found = {}
    for number, each in enumerate(ranked(options, strategy, weights=weights), start=1):
        scored = f", score {score(each, weights):.2f}" if strategy == "balanced" and weights is not None else ""
        found[each.model] = f"place {number} of {len(options)} by {strategy}{scored}"
    return found
