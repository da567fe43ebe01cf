"""Choosing among the models of a catalog: who may and can serve a request, who keeps its limits, and who is best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from farthing_router.catalog import Catalog, Model
from farthing_router.deployments.declared import Deployment
from farthing_router.deployments.eligible import WINDOW_TOO_SMALL
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.routing.advisers import Advisers, asked
from farthing_router.routing.costing import Costs, input_tokens
from farthing_router.routing.deciding import Intent
from farthing_router.routing.ports import Known, Option
from farthing_router.routing.routes import Candidate, ContextTooLong, NoCandidate, Role, Wish
from farthing_router.routing.strategies import ranked
from farthing_router.routing.thinking import Thinking
from farthing_router.routing.thresholds import Limits, meets
from farthing_router.routing.weighing import Asked, Weigher

Served = list[tuple[Model, list[Deployment]]]
"""Models, each with the deployments that serve."""
_NO_PRICE = "its price is not known"


class Chooser:
    """Chooses models."""

    def __init__(self, catalog: Catalog, costs: Costs, weigher: Weigher, advisers: Advisers) -> None:
        self._catalog = catalog
        self._costs = costs
        self._weigher = weigher
        self._advisers = advisers

    def serving(self, about: Thinking, models: Iterable[Model], wish: Wish, limits: Limits) -> Served:
        """Those that may and can serve a request."""
        reach, served = self._catalog.tier_rank(wish.tier), []
        for model in models:
            if model.tier_rank > reach:
                about.why[model.name] = f"is for tier {model.tier}"
            elif denied := limits.hindrance(model.name):
                about.why[model.name] = denied
            elif not (found := self._costs.able(model, wish)).deployments:
                about.why[model.name] = found.reason
            else:
                served.append((model, found.deployments))
        return served

    def within(
        self, about: Thinking, served: Served, intent: Intent, wish: Wish, *, limits: Limits | None = None
    ) -> list[Option]:
        """Those that keep the limits, as options; where nobody is in time, the fastest of the others."""
        strategy, limits = intent.action.strategy, limits or intent.limits
        every = strategy in ("balanced", "learned")
        needed = Asked(
            latency=every or strategy == "fastest" or limits.latency_ms_max is not None,
            quality=every or strategy == "quality" or bool(limits.floors),
        )
        options = self.options(about, served, wish, needed)
        kept = []
        for option in options:
            if under := meets(option, limits.floors, lambda name: self.known(about, name)):
                about.why[option.model] = under
            else:
                kept.append(option)
        return _in_time(about, kept, limits.latency_ms_max)

    def options(self, about: Thinking, served: Served, wish: Wish, needed: Asked) -> list[Option]:
        """Those with a price, as options."""
        baseline = wish.baseline_model or about.prices.baseline_model()
        options = self._weigher.options(served, wish, about.prices, baseline=baseline, asked=needed)
        if len(options) < len(served):
            priced = {each.model for each in options}
            about.why.update({model.name: _NO_PRICE for model, _ in served if model.name not in priced})
        about.options = options
        return options

    def known(self, about: Thinking, model: str) -> Known | None:
        """What is known of a model's quality for a request, looked up once."""
        if model not in about.qualities:
            about.qualities[model] = self._weigher.quality(model, about.wish)
        return about.qualities[model]

    def best(self, about: Thinking, options: list[Option], intent: Intent, wish: Wish) -> list[Candidate]:
        """The best by what a strategy looks for, and who stands in when it fails; nobody where no cost is within the cap."""
        order, found = self._in_order(about, options, intent, wish), list[Candidate]()
        spares = self._catalog.fallbacks
        for option in order:
            candidate = self.affordable(about, option.model, Role.FALLBACK if found else Role.FIRST, intent, wish)
            if candidate is None:
                continue
            if not found:
                found.append(self._predicted(candidate, option))
                if spares.get(candidate.model):
                    named = [each for each in order if each.model in spares[candidate.model]]
                    return found + self._spares(about, named, intent, wish)
            elif candidate.provider != found[0].provider:
                return [found[0], self._predicted(candidate, option)]
            elif len(found) == 1:
                found.append(self._predicted(candidate, option))
        return found

    def affordable(self, about: Thinking, model: str, role: Role, intent: Intent, wish: Wish) -> Candidate | None:
        """A model as a candidate; None where it has no price for this request, or may cost more than the cap."""
        try:
            candidate = self._costs.candidate(self._catalog.models[model], role, wish, about.prices)
        except PriceUnknown as error:
            about.why[model] = error.message
            return None
        return candidate if within_cap(about, candidate, intent) else None

    def refusal(self, about: Thinking, models: Sequence[Model], wish: Wish) -> NoCandidate | ContextTooLong:
        """Why nobody serves: the prompt is too long where that is what stops somebody, else what stops each."""
        small = [model for model in models if about.why.get(model.name) == WINDOW_TOO_SMALL]
        if small:
            largest = max(small, key=lambda model: self._costs.room(model, wish))
            room = max(0, self._costs.room(largest, wish))
            return ContextTooLong(input_tokens=input_tokens(largest, wish), input_tokens_max=room)
        return NoCandidate(why={model.name: about.why[model.name] for model in models if model.name in about.why})

    def _spares(self, about: Thinking, options: list[Option], intent: Intent, wish: Wish) -> list[Candidate]:
        found = [(self.affordable(about, each.model, Role.FALLBACK, intent, wish), each) for each in options]
        return [self._predicted(candidate, each) for candidate, each in found if candidate is not None]

    def _in_order(self, about: Thinking, options: list[Option], intent: Intent, wish: Wish) -> list[Option]:
        if intent.action.strategy != "learned":
            return ranked(options, intent.action.strategy, weights=intent.action.weights)
        learned = self._advisers.learned
        if learned is None or not options:
            about.notes.append("nothing is learned here: balanced")
            return ranked(options, "balanced")
        point = self.point_usd_nanos(intent, wish)
        choice = asked("learned", lambda: learned.choose(wish, options, usd_nanos_per_quality_point=point), otherwise=None)
        first = [each for each in options if choice is not None and each.model == choice.model]
        if choice is None or not first:
            about.notes.append("too little is learned yet: balanced")
            return ranked(options, "balanced")
        about.notes.append(choice.reason)
        return first + ranked([each for each in options if each is not first[0]], "balanced")

    def point_usd_nanos(self, intent: Intent, wish: Wish) -> int:
        """What a point of quality may cost now; 0 where it has no price."""
        pacing, base = self._advisers.pacing, intent.action.usd_nanos_per_quality_point
        if pacing is None:
            return base
        return asked("pacing", lambda: pacing.usd_nanos_per_quality_point(wish, base_usd_nanos=base), otherwise=base)

    def _predicted(self, candidate: Candidate, option: Option) -> Candidate:
        return replace(
            candidate,
            predicted_quality=option.quality if option.quality_known else None,
            predicted_latency_ms=option.latency_ms if option.latency_known else None,
        )


def within_cap(about: Thinking, candidate: Candidate, intent: Intent) -> bool:
    """Whether a call can cost no more than all attempts together may."""
    cap = intent.limits.cost_usd_nanos_max
    if cap and candidate.worst_case_usd_nanos > cap:
        about.why[candidate.model] = f"may cost {candidate.worst_case_usd_nanos} nanodollars, more than {cap}"
        return False
    return True


def _in_time(about: Thinking, options: list[Option], latency_ms_max: int | None) -> list[Option]:
    if latency_ms_max is None or not options:
        return options
    kept = [each for each in options if each.latency_ms <= latency_ms_max]
    if not kept:
        kept = ranked(options, "fastest")[:1]
        about.notes.append(f"nobody is likely to answer within {latency_ms_max} ms: the fastest is asked")
    for each in options:
        if each not in kept:
            about.why[each.model] = f"will likely take {each.latency_ms} ms, more than {latency_ms_max}"
    return kept
