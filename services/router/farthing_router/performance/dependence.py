"""What an organisation's dependence on providers is reckoned from: sums of calls and decisions, minutes of outage, and the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from farthing_router.catalog import Catalog, Model
from farthing_router.learning.outcomes import Day
from farthing_router.learning.outcomes import Sums as QualityTotals
from farthing_router.performance.decisions import DecisionStore, DecisionSums, SummaryAsked
from farthing_router.performance.diversification import Advice, State, Target, Targets, Traffic, Workload, advise, hhi
from farthing_router.performance.labels import OTHER
from farthing_router.performance.sums import OutageMinutes, PerformanceStore, Range, Sums, SumsAsked
from farthing_router.pricing.price_book import PriceBook, Prices
from farthing_router.pricing.prices import PriceUnknown

_ROWS_MAX = 20_000
_TASKS_MAX = 30
_PRIOR_MINUTES = 1_000
_PRIOR_OUTAGE_MINUTES = 1.0
"""Before anything is seen a provider is taken to be away a thousandth of the time; a day of calls counts more than that."""
_NEEDED = frozenset({"tools", "vision", "json"})


class Days(Protocol):
    """What is known of answers by day, model and task."""

    async def __call__(self, scope: str, *, model: str, task: str, start: datetime, end: datetime) -> Sequence[Day]:
        """The sums of a scope; of all models and tasks where those are empty. Raises StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """A provider's part, as the contract explains it."""

    provider: str
    cost_share: float
    attempts_share: float
    unavailability: float
    irreplaceable_share: float


@dataclass(frozen=True, slots=True)
class Dependence:
    """How far everything depends on whom, and what to change."""

    hhi: float
    attempts_hhi: float
    shares: Sequence[Share]
    advice: Sequence[Advice]
    risk: float
    risk_after_advice: float


class Diversification:
    """Analyses dependence."""

    def __init__(self, performance: PerformanceStore, decisions: DecisionStore, *, days: Days, book: PriceBook) -> None:
        self._performance = performance
        self._decisions = decisions
        self._days = days
        self._book = book

    async def analyze(self, organization: str, within: Range) -> Dependence:
        """An organisation's dependence in a range. Raises StoreUnavailable."""
        asked = SumsAsked(organization, within, ("provider", "model", "task"), histograms=False, count_max=_ROWS_MAX)
        sums = await self._performance.sums(asked)
        by = ("task", "strategy", "served_model", "candidates")
        decided = await self._decisions.summarize(SummaryAsked(organization, within.start, within.end, by, count_max=_ROWS_MAX))
        outages = await self._performance.outages(organization, start=within.start, end=within.end)
        days = await self._days(f"organizations/{organization}", model="", task="", start=within.start, end=within.end)
        facts = _Facts(self._book.catalog, self._book.prices(organization), sums, decided, outages, days)
        return await asyncio.to_thread(facts.dependence)


class _Facts:
    """All that was read, brought together."""

    def __init__(
        self,
        catalog: Catalog,
        prices: Prices,
        sums: Sequence[Sums],
        decided: Sequence[DecisionSums],
        outages: Sequence[OutageMinutes],
        days: Sequence[Day],
    ) -> None:
        self._catalog = catalog
        self._prices = prices
        self._sums = sums
        self._decided = decided
        self._known: dict[tuple[str, str], QualityTotals] = {}
        for day in days:
            self._known.setdefault((day.model, day.task), QualityTotals()).add(day.sums)
        seen = {each.provider: each for each in outages}
        named = {each.labels["provider"] for each in sums} | {p for m in catalog.models.values() for p in _sellers(m)}
        self._unavailability = {name: unavailability(seen.get(name)) for name in named}

    def dependence(self) -> Dependence:
        """The analysis."""
        state = State(self._traffic(), self._workloads(), self._unavailability)
        advice, after = advise(state, self._targets(state))
        costs, attempts = state.costs(), state.attempts()
        spent, made = sum(costs.values()), sum(attempts.values())
        stuck = self._irreplaceable()
        shares = [
            Share(
                provider=name,
                cost_share=costs[name] / spent if spent else 0.0,
                attempts_share=attempts[name] / made if made else 0.0,
                unavailability=self._unavailability[name],
                irreplaceable_share=stuck[name] / attempts[name] if attempts[name] else 0.0,
            )
            for name in sorted(costs, key=lambda name: (-costs[name], -attempts[name], name))
        ]
        return Dependence(state.hhi(), hhi(attempts.values()), shares, advice, state.risk(), after.risk())

    def _traffic(self) -> tuple[Traffic, ...]:
        return tuple(
            Traffic(
                each.labels["task"],
                each.labels["provider"],
                each.labels["model"],
                each.attempts,
                each.cost_usd_nanos,
                self._quality(each.labels["model"], each.labels["task"]),
            )
            for each in self._sums
        )

    def _workloads(self) -> tuple[Workload, ...]:
        """Requests by the providers that they may be sent to: those of the models that were planned, of what they fall back on today."""
        loads = []
        for each in self._decided:
            planned = tuple(name for name in each.labels["candidates"].split("\n") if name in self._catalog.models)
            if each.labels["strategy"] == "fixed" and planned:
                planned = (planned[0], *self._catalog.fallbacks.get(planned[0], ()))
            served = each.labels["served_model"]
            if not planned and served in self._catalog.models:
                planned = (served, *self._catalog.fallbacks.get(served, ()))
            if not planned:
                continue
            reachable = frozenset(seller for name in planned for seller in _sellers(self._catalog.models[name]))
            answering, task = served if served in self._catalog.models else planned[0], each.labels["task"]
            for provider, share in self._sold_by(answering, task).items():
                loads.append(Workload(task, provider, reachable, each.decisions * share))
        return tuple(loads)

    def _sold_by(self, model: str, task: str) -> dict[str, float]:
        """Which part of a model's answers to a task each provider gave."""
        here = [each for each in self._sums if (each.labels["model"], each.labels["task"]) == (model, task) and each.answers]
        answers = sum(each.answers for each in here)
        if not answers:
            return {self._catalog.models[model].provider: 1.0}
        return {each.labels["provider"]: each.answers / answers for each in here}

    def _targets(self, state: State) -> Targets:
        """For the dearest tasks, by provider: the cheapest and the best model of every other one that can do what its models do."""
        costs: dict[str, int] = {}
        rows: dict[tuple[str, str], list[Sums]] = {}
        for each in self._sums:
            task, provider = each.labels["task"], each.labels["provider"]
            costs[task] = costs.get(task, 0) + each.cost_usd_nanos
            rows.setdefault((task, provider), []).append(each)
        tasks = set(sorted(costs, key=lambda task: -costs[task])[:_TASKS_MAX]) - {OTHER}
        return {place: self._target(*place, here) for place, here in rows.items() if place[0] in tasks}

    def _target(self, task: str, provider: str, here: Sequence[Sums]) -> list[Target]:
        able: dict[str, list[Target]] = {}
        answers = max(1, sum(each.answers for each in here))
        tokens = [sum(getattr(each, name) for each in here) // answers for name in ("input_tokens", "output_tokens")]
        for model in self._catalog.models.values():
            if model.provider == provider or not all(self._can_replace(model, each) for each in here):
                continue
            try:
                cost = self._prices.of(model).text(*tokens)
            except PriceUnknown:
                continue
            able.setdefault(model.provider, []).append(
                Target(model.provider, model.name, cost, self._quality(model.name, task))
            )
        chosen: list[Target] = []
        for targets in able.values():
            cheapest = min(targets, key=lambda each: (each.usd_nanos_per_call, each.model))
            best = max(targets, key=lambda each: (each.quality or 0.0, -each.usd_nanos_per_call))
            chosen += dict.fromkeys((cheapest, best))
        return chosen

    def _irreplaceable(self) -> dict[str, float]:
        """By provider, the calls that no other provider in the catalog could have served."""
        stuck: dict[str, float] = {}
        for each in self._sums:
            provider = each.labels["provider"]
            others = (
                model
                for model in self._catalog.models.values()
                if set(_sellers(model)) - {provider} and self._can_replace(model, each)
            )
            stuck[provider] = stuck.get(provider, 0.0) + (each.attempts if next(others, None) is None else 0)
        return stuck

    def _can_replace(self, model: Model, calls: Sums) -> bool:
        """Whether a model could have served these calls: as far as users' tiers, what requests needed and the longest prompt go."""
        own = self._catalog.models.get(calls.labels["model"])
        known = self._known.get((calls.labels["model"], calls.labels["task"]))
        declared = own.capabilities & _NEEDED if own is not None else frozenset()
        needs = known.needs if known is not None and known.requests else declared
        room = model.context_window_tokens - min(model.output_limit(calls.labels["task"]), self._catalog.output_tokens_default)
        reachable = own is None or model.tier_rank <= own.tier_rank
        return reachable and needs <= model.capabilities and calls.input_tokens_max <= room

    def _quality(self, model: str, task: str) -> float | None:
        known = self._known.get((model, task))
        return known.quality / known.answers if known is not None and known.answers else None


def unavailability(seen: OutageMinutes | None) -> float:
    """The share of time in which a provider mostly fails: what was seen, drawn to a prior, so that nobody is taken to be always there."""
    minutes, away = (seen.minutes, seen.outage_minutes) if seen is not None else (0, 0)
    return (away + _PRIOR_OUTAGE_MINUTES) / (minutes + _PRIOR_MINUTES)


def sentence(advice: Advice, names: Mapping[str, str]) -> str:
    """An advice in words; `names` are the names of tasks that have none."""
    share = f"{advice.share:.0%}".replace("%", " %")
    task = names.get(advice.task, advice.task)
    return f"let {advice.target.model} ({advice.target.provider}) answer {share} of {task}, with {advice.from_provider} as its fallback"


def _sellers(model: Model) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.provider for each in model.deployments))
