"""From chosen models to a route: who is bought from a Batch API, how many calls it takes, and the most that it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from farthing_core.auto_models import AUTO_MODEL
from farthing_core.money import NANOS_MAX

from farthing_router.catalog import Cascade, Catalog
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.routing.costing import BATCH, Costs, tries
from farthing_router.routing.deciding import Intent
from farthing_router.routing.ports import InForce
from farthing_router.routing.routes import Candidate, Role, Route, Wish
from farthing_router.routing.thinking import Thinking
from farthing_router.routing.thresholds import tightest

_CANDIDATES_MAX = 16
_CALLS_MAX = 32
_ASKED = (Role.FIRST, Role.PEER, Role.ESCALATION)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is to be asked, and how answers are judged: by a cascade's confidence, by a calibration, or not at all."""

    candidates: Sequence[Candidate]
    strategy: str
    cascade: Cascade | None = None
    calibration: InForce | None = None
    quality_min: float = 0.0
    point_usd_nanos: int = 0


class Assembler:
    """Makes routes."""

    def __init__(self, catalog: Catalog, costs: Costs) -> None:
        self._catalog = catalog
        self._costs = costs

    def route(self, plan: Plan, about: Thinking, intent: Intent, wish: Wish) -> Route:
        """The route of a plan. Raises PriceUnknown."""
        calls_max = tightest(_CALLS_MAX if plan.cascade is None else plan.cascade.calls_max, intent.limits.calls_max)
        few = _within_calls(plan.candidates, calls_max)
        chosen = self._with_batches(few, about, intent, wish)[:_CANDIDATES_MAX]
        calls_max = tightest(self._usual_calls(plan, chosen), intent.limits.calls_max)
        billed = self._billed(chosen, plan)
        lost = self._lost(chosen, billed=len(billed), calls_max=calls_max)
        worst = sum(each.worst_case_usd_nanos for each in billed) + lost * max(each.lost_usd_nanos for each in chosen)
        judged = plan.cascade is not None
        assignment, rule = intent.assignment, intent.rule
        cap, checked = intent.limits.cost_usd_nanos_max, intent.calibration_id if intent.model else ""
        return Route(
            candidates=tuple(chosen),
            strategy=plan.strategy,
            reason=_reason(plan, about, intent),
            worst_case_usd_nanos=min(worst, cap or NANOS_MAX),  # no call is made that could cost more than the cap leaves
            likely_usd_nanos=sum(each.likely_usd_nanos for each in chosen if each.role in (Role.FIRST, Role.PEER)),
            worst_case_tokens=sum(each.input_tokens + each.output_tokens_max for each in billed)
            + lost * max(each.input_tokens + each.likely_output_tokens for each in chosen),
            calls_max=calls_max,
            accept_confidence=_accept_confidence(plan, intent) if judged else 0.0,
            rule_id=rule.rule_id if rule is not None else "",
            rule_version=rule.version if rule is not None else 0,
            calibration_id=plan.calibration.calibration_id if plan.calibration is not None else checked,
            experiment_id=assignment.experiment_id if assignment is not None else "",
            arm=assignment.arm if assignment is not None else "",
            on_trial=assignment.on_trial if assignment is not None else False,
            complexity=about.looks.score() if wish.request_id or about.looks.known else 0.0,
            cost_usd_nanos_max=cap,
            usd_nanos_per_quality_point=plan.point_usd_nanos,
            requested_model=wish.model or AUTO_MODEL,
            quality_min=plan.quality_min,
        )

    def _usual_calls(self, plan: Plan, chosen: Sequence[Candidate]) -> int:
        return min(_CALLS_MAX, self._possible_calls(chosen)) if plan.cascade is None else plan.cascade.calls_max

    def _possible_calls(self, chosen: Sequence[Candidate]) -> int:
        return sum(1 if each.service_tier == BATCH else tries(self._catalog.models[each.model]) for each in chosen)

    def _with_batches(self, chosen: list[Candidate], about: Thinking, intent: Intent, wish: Wish) -> list[Candidate]:
        """Those whose answer may come from a Batch API in time, and is cheaper there, are bought there; who is asked last stands in itself
        where its batch fails."""
        stages = 1 + sum(each.role is Role.ESCALATION for each in chosen)
        if wish.service_tier or not wish.timeout_ms:
            return chosen
        found, last = list[Candidate](), max((n for n, each in enumerate(chosen) if each.role in _ASKED), default=0)
        spare: list[Candidate] = []
        for number, live in enumerate(chosen):
            batch = self._batch(live, about, intent, wish, stages=stages) if live.role in _ASKED else None
            found.append(batch or live)
            if batch is not None and number == last:
                spare = [replace(live, role=Role.FALLBACK)]
        asked = [each for each in found if each.role in _ASKED]
        return asked + spare + [each for each in found if each.role not in _ASKED]

    def _batch(self, live: Candidate, about: Thinking, intent: Intent, wish: Wish, *, stages: int) -> Candidate | None:
        model = self._catalog.models[live.model]
        deployments = self._costs.able(model, wish, batch=True).deployments
        waits_s = [each.wire.batch.turnaround_s for each in deployments if each.wire.batch is not None]
        if not waits_s or max(waits_s) * stages * 1000 > wish.timeout_ms:
            return None
        try:
            batch = self._costs.candidate(model, live.role, wish, about.prices, batch=True)
        except PriceUnknown:
            return None
        cap = intent.limits.cost_usd_nanos_max
        if batch.likely_usd_nanos >= live.likely_usd_nanos or (cap and batch.worst_case_usd_nanos > cap):
            return None
        return replace(batch, predicted_quality=live.predicted_quality)

    def _billed(self, chosen: Sequence[Candidate], plan: Plan) -> list[Candidate]:
        """The dearest set of answers that may be bought. Failed calls give none, so a fallback costs at most what it costs more than the
        candidate whose place it takes; of a calibration's dear models only one is bought.
        """
        asked = [each for each in chosen if each.role in _ASKED]
        spare = [each for each in chosen if each.role is Role.FALLBACK]
        if plan.calibration is not None:
            opening = [each for each in asked if each.role is not Role.ESCALATION]
            ends = [each for each in asked if each.role is Role.ESCALATION]
        else:
            opening, ends = asked[:-1], asked[-1:]
        last = max([*ends, *spare], key=lambda each: each.worst_case_usd_nanos * (1 + self._hedged(each)))
        # Who is asked twice at once may be paid twice.
        return [each for each in (*opening, last) for _ in range(2 if self._hedged(each) else 1)]

    def _lost(self, chosen: Sequence[Candidate], *, billed: int, calls_max: int) -> int:
        """How many other calls may be lost on their way: nobody knows what they cost, so each is charged as an answer of likely length."""
        return max(0, min(calls_max, self._possible_calls(chosen)) - billed)

    def _hedged(self, candidate: Candidate) -> bool:
        hedges = self._catalog.models[candidate.model].hedge is not None and candidate.service_tier != BATCH
        return hedges and len(candidate.deployments) != 1


def _within_calls(candidates: Sequence[Candidate], calls_max: int) -> list[Candidate]:
    """As many as there are calls for: second opinions go first, then the steps between the cheapest and the last."""
    asked = [each for each in candidates if each.role in _ASKED]
    while len(asked) > calls_max:
        peers = [each for each in asked if each.role is Role.PEER]
        asked.remove(peers[-1] if peers else asked[-2] if len(asked) > 2 else asked[-1])
    return asked + [each for each in candidates if each.role is Role.FALLBACK]


def _accept_confidence(plan: Plan, intent: Intent) -> float:
    stated = intent.action.accept_confidence
    if stated is not None:
        return stated
    return plan.cascade.accept_confidence if plan.cascade is not None else 0.0


def _reason(plan: Plan, about: Thinking, intent: Intent) -> str:
    asked = sum(each.role in _ASKED for each in plan.candidates)
    what = f"{plan.strategy} of {asked}" if plan.cascade is not None else "" if plan.strategy == "fixed" else plan.strategy
    return "; ".join(each for each in (what, intent.by, *about.notes) if each)
