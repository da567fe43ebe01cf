"""Cheaper models by workload: what would be saved, what quality would be lost, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

from farthing_core.scopes import parse_scope

from farthing_router.catalog import Catalog, Model
from farthing_router.learning.arms import Arms, Belief
from farthing_router.learning.outcomes import OutcomeStore, Sums
from farthing_router.pricing.price_book import Prices

QUALITY_LOSS_MAX = 0.02
_REQUESTS_MIN = 20
_SURE = 0.9
_KNOWN_OPINIONS, _KNOWN_ANSWERS = 30, 200
_LENGTH_DOUBT = 0.25
"""How far (one deviation) another model's answers may be longer or shorter than those it would take the place of."""
_RECOMMENDED_MAX = 200
_Z = 1.96
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Spread:
    """An expectation with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Recommended:
    """A cheaper model for a workload; `confidence` is how likely the loss stays within what may be lost."""

    task: str
    model: str
    cheaper: str
    requests: int
    cost_usd_nanos: int
    saving_usd_nanos: Spread
    quality_loss: Spread
    confidence: float
    reason: str


class Recommendations:
    """Looks through workloads (a task at a model) for cheaper models that may and can serve them. `prices_of` gives an organisation's."""

    def __init__(self, *, store: OutcomeStore, arms: Arms, catalog: Catalog, prices_of: Callable[[str], Prices]) -> None:
        self._store = store
        self._arms = arms
        self._catalog = catalog
        self._prices_of = prices_of

    async def find(
        self, scope: str, *, start: datetime, end: datetime, quality_loss_max: float
    ) -> tuple[list[Recommended], list[str]]:
        """The recommendations, the largest saving first, and the workloads that were passed over, with the reason.

        Raises StoreUnavailable.
        """
        workloads: dict[tuple[str, str], Sums] = {}
        for day in await self._store.days(scope, model="", task="", start=start, end=end):
            workloads.setdefault((day.task, day.model), Sums()).add(day.sums)
        found: list[Recommended] = []
        passed: list[str] = []
        for (task, model), sums in sorted(workloads.items(), key=lambda item: -item[1].cost_usd_nanos):
            if not sums.requests:
                continue
            best, why = self._best(parse_scope(scope).organization, (task, model), sums, quality_loss_max)
            found += [best] if best is not None else []
            passed += [f"{task or 'any task'} at {model}: {why}"] if best is None else []
        found.sort(key=lambda each: -each.saving_usd_nanos.value)
        return found[:_RECOMMENDED_MAX], passed[:_RECOMMENDED_MAX]

    def _best(self, organization: str, work: tuple[str, str], sums: Sums, loss_max: float) -> tuple[Recommended | None, str]:
        name = work[1]
        model = self._catalog.models.get(name)
        if model is None:
            return None, "it is not in the catalog any more"
        if sums.requests < _REQUESTS_MIN:
            return None, f"{sums.requests} of the {_REQUESTS_MIN} requests that are the least to go by"
        if not sums.cost_usd_nanos:
            return None, "it costs nothing"
        able = [other for other in self._catalog.models.values() if other is not model and _can(other, model, sums)]
        if not able:
            return None, "no other model may and can serve it"
        weighed = [each for other in able if (each := self._weigh(organization, work, other, sums, loss_max)) is not None]
        cheaper = [each for each in weighed if each.saving_usd_nanos.value > 0]
        if not cheaper:
            return None, "no model that may and can serve it is cheaper"
        good = [each for each in cheaper if each.quality_loss.value <= loss_max]
        if not good:
            least = min(cheaper, key=lambda each: each.quality_loss.value)
            return (
                None,
                f"every cheaper model loses more than {loss_max:.3f}; {least.cheaper} least, {least.quality_loss.value:.3f}",
            )
        sure = [each for each in good if each.confidence >= _SURE]
        return max(sure or good, key=lambda each: each.saving_usd_nanos.value), ""

    def _weigh(self, organization: str, work: tuple[str, str], other: Model, sums: Sums, loss_max: float) -> Recommended | None:
        task, name = work
        prices = self._prices_of(organization)
        own_price, price = prices.find(self._catalog.models[name]), prices.find(other)
        if price is None or own_price is None:
            return None
        # What was paid holds retries, caches and discounts: the cheaper price is put in proportion to it.
        read, said = -(-sums.input_tokens // sums.requests), -(-sums.output_tokens // sums.requests)
        would, does = price.text(read, said), own_price.text(read, said)
        cost = sums.cost_usd_nanos * would / does if does else 0.0
        answers = price.text(0, said) / max(1, would)
        saving = sums.cost_usd_nanos - cost
        doubt = _Z * cost * answers * _LENGTH_DOUBT
        belief = self._arms.belief(organization, task, name)
        rival = self._arms.belief(organization, task, other.name)
        context = belief.usual
        quality, deviation = belief.expect(context)
        rival_quality, rival_deviation = rival.expect(context)
        loss, spread = quality - rival_quality, math.hypot(deviation, rival_deviation)
        confidence = _NORMAL.cdf((loss_max - loss) / spread)
        return Recommended(
            task=task,
            model=name,
            cheaper=other.name,
            requests=sums.requests,
            cost_usd_nanos=sums.cost_usd_nanos,
            saving_usd_nanos=Spread(saving, saving - doubt, min(float(sums.cost_usd_nanos), saving + doubt)),
            quality_loss=Spread(loss, max(-1.0, loss - _Z * spread), min(1.0, loss + _Z * spread)),
            confidence=confidence,
            reason=_reason(rival, other.name, confidence=confidence),
        )


def _can(other: Model, model: Model, sums: Sums) -> bool:
    """Whether a model may and can serve whatever the workload asked of the one in use: nobody needs a higher tier, and all fits."""
    longest = sums.input_tokens_max * (100 + other.token_margin_pct) // 100
    answer = -(-sums.output_tokens // max(1, sums.requests))
    return (
        other.tier_rank <= model.tier_rank
        and sums.needs <= other.capabilities
        and longest + min(other.output_tokens_max, model.output_tokens_max) <= other.context_window_tokens
        and answer <= other.output_tokens_max
    )


def _reason(rival: Belief, name: str, *, confidence: float) -> str:
    rests = f"{rival.opinions} opinions and {rival.answers} scored answers of {name} at this task"
    if rival.opinions + rival.answers == 0:
        rests = f"no answer of {name} at this task yet, only what is known of it elsewhere"
    known = rival.opinions >= _KNOWN_OPINIONS or rival.answers >= _KNOWN_ANSWERS
    advice = "" if known and confidence >= _SURE else "; try it in an experiment first"
    return f"rests on {rests}{advice}"
