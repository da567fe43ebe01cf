"""Planning: which models are asked for a request, in which order, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from farthing_core.auto_models import AUTO_MODELS
from farthing_core.errors import FarthingError

from farthing_router.catalog import Cascade, Catalog
from farthing_router.pricing.price_book import Prices
from farthing_router.routing.advisers import Advisers, asked
from farthing_router.routing.assembling import Assembler, Plan
from farthing_router.routing.choosing import Chooser, within_cap
from farthing_router.routing.costing import Costs
from farthing_router.routing.deciding import Intent, Looks, as_asked, decide
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.ports import Assignment, InForce
from farthing_router.routing.routes import Candidate, NoCandidate, Role, Route, Wish
from farthing_router.routing.thinking import Thinking
from farthing_router.routing.thresholds import Limits, floor_of
from farthing_router.routing.weighing import PriceOrder, Weigher

_ACCEPT_CONFIDENCE = 0.7
_CALLS_MAX = 6


class Planner:
    """Plans routes over a catalog."""

    def __init__(self, catalog: Catalog, lengths: OutputLengths, *, advisers: Advisers | None = None) -> None:
        self.catalog = catalog
        self._advisers = advisers or Advisers()
        self.costs = Costs(catalog, lengths)
        self._order = PriceOrder(catalog)
        weigher = Weigher(self.costs, self._order, speeds=self._advisers.speeds, qualities=self._advisers.qualities)
        self.chooser = Chooser(catalog, self.costs, weigher, self._advisers)
        self._assembler = Assembler(catalog, self.costs)

    def plan(self, wish: Wish, prices: Prices) -> Route:
        """The route of a request at these prices. Raises ModelUnknown, PriceUnknown, NoCandidate, ContextTooLong."""
        return self.think(thinking(wish, prices))

    def think(self, about: Thinking) -> Route:
        """The same, leaving behind what was thought on the way."""
        assigned, assignments = None, self._advisers.assignments
        if assignments is not None and about.wish.model in AUTO_MODELS:
            assigned = asked("assignments", lambda: assignments.assign(about.wish), otherwise=None)
        if assigned is not None:
            try:
                return self._route(about, assigned)
            except FarthingError as error:
                about.notes.append(f"arm {assigned.arm} of an experiment takes no part: {error.message}"[:200])
                about.why.clear()
        return self._route(about, None)

    def shadows(self, wish: Wish, route: Route, prices: Prices) -> list[tuple[Route, str]]:
        """The routes to follow beside a route for comparison, each with its cause; what cannot be planned is left out."""
        found: list[tuple[Route, str]] = []
        nobody: Sequence[Assignment] = ()
        for each in self._advisers.shadowing:
            wanted = asked("shadowing", partial(each.shadows, wish, route), otherwise=nobody)
            for assignment in wanted:
                try:
                    found.append((self._route(thinking(wish, prices), assignment), assignment.cause))
                except FarthingError:
                    continue
        return found

    def _route(self, about: Thinking, assignment: Assignment | None) -> Route:
        intent = decide(about.wish, about.looks, self.catalog, self._advisers, assignment=assignment)
        about.intent = intent
        wish = intent.wish
        if wish is None:
            raise NoCandidate(why=dict.fromkeys(self.catalog.models, "no provider is allowed by the caller and by the rule"))
        if intent.model:
            return self._fixed(about, intent, wish)
        if intent.action.strategy == "cascade":
            return self._cascade(about, intent, wish)
        return self._single(about, intent, wish)

    def _fixed(self, about: Thinking, intent: Intent, wish: Wish) -> Route:
        """The named model, and those that stand in when it fails."""
        named = self.catalog.model(intent.model)
        if not self.chooser.serving(about, [named], wish, Limits()):
            raise self.chooser.refusal(about, [named], wish)
        first = self.costs.candidate(named, Role.FIRST, wish, about.prices)
        if not within_cap(about, first, intent):
            raise self.chooser.refusal(about, [named], wish)
        others = [self.catalog.models[name] for name in self.catalog.fallbacks.get(named.name, ())]
        served = self.chooser.serving(about, others, wish, Limits())
        spares = [self.chooser.affordable(about, model.name, Role.FALLBACK, intent, wish) for model, _ in served]
        return self._assembler.route(Plan([first, *(each for each in spares if each)], "fixed"), about, intent, wish)

    def _single(self, about: Thinking, intent: Intent, wish: Wish) -> Route:
        """The best by what the strategy looks for, and who stands in when it fails."""
        models = list(self.catalog.models.values())
        options = self.chooser.within(about, self.chooser.serving(about, models, wish, intent.limits), intent, wish)
        chosen = self.chooser.best(about, options, intent, wish)
        if not chosen:
            raise self.chooser.refusal(about, models, wish)
        point = self.chooser.point_usd_nanos(intent, wish) if intent.action.strategy == "learned" else 0
        plan = Plan(chosen, intent.action.strategy, quality_min=self._floor(about, intent), point_usd_nanos=point)
        return self._assembler.route(plan, about, intent, wish)

    def _cascade(self, about: Thinking, intent: Intent, wish: Wish) -> Route:
        """From cheap to dear: by a calibration, else as the rule or farthing.yaml says, else by price."""
        calibration = self._calibration(about, intent)
        cascade = self._steps(about, intent, wish)
        candidates = self._calibrated(about, intent, wish, calibration) if calibration is not None else []
        if not candidates:
            calibration, candidates = None, self._judged(about, intent, wish, cascade)
        plan = Plan(
            candidates,
            "cascade" if calibration is None else "calibrated",
            cascade=cascade,
            calibration=calibration,
            quality_min=self._floor(about, intent),
            point_usd_nanos=self.chooser.point_usd_nanos(intent, wish),
        )
        return self._assembler.route(plan, about, intent, wish)

    def _judged(self, about: Thinking, intent: Intent, wish: Wish, cascade: Cascade) -> list[Candidate]:
        models = [
            self.catalog.models[name]
            for name in dict.fromkeys((*cascade.agreement, *cascade.steps))
            if name in self.catalog.models
        ]
        served = self.chooser.serving(about, models, wish, intent.limits)
        if not served and wish.open_models_only:
            models = [model for model in self.catalog.models.values() if not all(each.hosted for each in model.deployments)]
            served = self.chooser.serving(about, models, wish, intent.limits)[:1]
        if intent.limits.floors or intent.limits.latency_ms_max:
            kept = {each.model for each in self.chooser.within(about, served, intent, wish)}
            served = [each for each in served if each[0].name in kept]
        candidates = [self.costs.candidate(model, Role.ESCALATION, wish, about.prices) for model, _ in served]
        candidates = [each for each in candidates if within_cap(about, each, intent)]
        if not candidates:
            raise self.chooser.refusal(about, models, wish)
        return _with_roles(candidates, [each.model for each in candidates if each.model in cascade.agreement])

    def _steps(self, about: Thinking, intent: Intent, wish: Wish) -> Cascade:
        """Whom a cascade goes through: the rule's models, farthing.yaml's where the rule leaves them, else the cheapest and dearest."""
        action, written = intent.action, self.catalog.cascade(wish.task)
        if action.models:
            return Cascade(action.models, (), accept_confidence=_ACCEPT_CONFIDENCE, calls_max=_CALLS_MAX)
        if written is not None:
            models = [self.catalog.models[name] for name in (*written.agreement, *written.steps)]
            if not (action.models_denied or action.allowed_providers):
                return written
            if len(self.chooser.serving(about, models, wish, intent.limits)) == len(models):
                return written
        steps = self._ends(about, intent, wish)
        return Cascade(steps, (), accept_confidence=_ACCEPT_CONFIDENCE, calls_max=_CALLS_MAX)

    def _ends(self, about: Thinking, intent: Intent, wish: Wish) -> tuple[str, ...]:
        """The cheapest and the dearest that serve a request and keep its limits; everybody with a price where nobody does."""
        names, models = self._order.names(about.prices), self.catalog.models
        if intent.limits.floors or intent.limits.latency_ms_max:
            served = self.chooser.serving(about, [models[name] for name in names], wish, intent.limits)
            kept = [each.model for each in self.chooser.within(about, served, intent, wish)]
            return tuple(dict.fromkeys((*kept[:1], *kept[-1:]))) or names
        ends = (self._first(about, intent, wish, names), self._first(about, intent, wish, names[::-1]))
        return tuple(dict.fromkeys(each for each in ends if each)) or names

    def _first(self, about: Thinking, intent: Intent, wish: Wish, names: Sequence[str]) -> str:
        """The first of some models that may and can serve a request; empty where none can."""
        models = self.catalog.models
        return next((name for name in names if self.chooser.serving(about, [models[name]], wish, intent.limits)), "")

    def _calibration(self, about: Thinking, intent: Intent) -> InForce | None:
        calibrations, wish = self._advisers.calibrations, about.wish
        if calibrations is None:
            return None
        if not intent.calibration_id:
            return asked("calibrations", lambda: calibrations.in_force(wish.scope, wish.task), otherwise=None)
        found = asked("calibrations", lambda: calibrations.named(wish.scope, intent.calibration_id), otherwise=None)
        if found is None:
            about.notes.append(f"calibration {intent.calibration_id} is not at hand")
        return found

    def _calibrated(self, about: Thinking, intent: Intent, wish: Wish, calibration: InForce) -> list[Candidate]:
        """The models of a calibration; nobody where not all that it opens with, and one of the strong ones, are for this request."""
        policy, limits = calibration.policy, intent.limits
        if policy.guarantee is not None:
            ratio = policy.guarantee.quality_ratio_min
            promised = [each for each in limits.floors if each.reference in policy.strong and each.least <= ratio]
            limits = replace(limits, floors=tuple(each for each in limits.floors if each not in promised))
        models = [self.catalog.models[name] for name in (*policy.opening, *policy.strong) if name in self.catalog.models]
        served = self.chooser.serving(about, models, wish, limits)
        if limits.floors or limits.latency_ms_max:
            kept = {each.model for each in self.chooser.within(about, served, intent, wish, limits=limits)}
            served = [each for each in served if each[0].name in kept]
        found = [self.chooser.affordable(about, model.name, Role.ESCALATION, intent, wish) for model, _ in served]
        candidates = [each for each in found if each is not None]
        names = {each.model for each in candidates}
        if not names.issuperset(policy.opening) or not names.intersection(policy.strong):
            about.notes.append(f"calibration {calibration.calibration_id} has models that are not for this request")
            return []
        return _with_roles(candidates, policy.opening)

    def _floor(self, about: Thinking, intent: Intent) -> float:
        return floor_of(intent.limits.floors, lambda name: self.chooser.known(about, name)) if intent.limits.floors else 0.0


def thinking(wish: Wish, prices: Prices) -> Thinking:
    """What a request's planning begins with."""
    return Thinking(as_asked(wish), prices, Looks(wish.prompt))


def _with_roles(candidates: Sequence[Candidate], opening: Sequence[str]) -> list[Candidate]:
    """Those that open are asked side by side, the first where none does; the others follow as escalations."""
    first = [each for each in candidates if each.model in opening] or list(candidates[:1])
    roles = [replace(each, role=Role.PEER if number else Role.FIRST) for number, each in enumerate(first)]
    return roles + [each for each in candidates if each not in first]
