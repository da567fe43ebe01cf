"""Models and policies on the plane of cost and quality, which of them nothing beats, and where on its curve a calibration might stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from farthing_core.scopes import parse_scope

from farthing_router.calibration.kept import Point, Report
from farthing_router.learning.outcomes import Sums
from farthing_router.learning.reports import mean_quality
from farthing_router.performance.decisions import DecisionStore, SummaryAsked
from farthing_router.performance.dependence import Days
from farthing_router.performance.sums import PerformanceStore, Range, SumsAsked
from farthing_router.routing.ports import InForce

_ROWS_MAX = 5_000
_TASKS_MAX = 50
_NEARLY = 0.98


class InForceCurves(Protocol):
    """Calibrations in force, with what their fits said."""

    def in_force(self, scope: str, task: str) -> InForce | None:
        """The calibration by which answers are judged; None without any."""
        ...

    def report(self, organization: str, calibration_id: str) -> Report | None:
        """What its fit said."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """A model or a policy on the plane; fields as the contract explains them."""

    name: str
    cost_usd_nanos_per_answer: int
    quality: float
    quality_lower: float
    quality_upper: float
    answers: int
    on_pareto_front: bool = False

    @property
    def cost_usd_nanos_per_quality_point(self) -> int:
        """Cost for each hundredth of quality, rounded up; 0 where quality is nothing."""
        return ceil(self.cost_usd_nanos_per_answer / (self.quality * 100)) if self.quality > 0 else 0


@dataclass(frozen=True, slots=True)
class Threshold:
    """A point on the curve of a calibration, and what speaks for it."""

    calibration_id: str
    advice: str
    point: Point


class CostQuality:
    """Analyses what quality costs."""

    def __init__(self, performance: PerformanceStore, decisions: DecisionStore, *, days: Days, curves: InForceCurves) -> None:
        self._performance = performance
        self._decisions = decisions
        self._days = days
        self._curves = curves

    async def analyze(self, scope: str, task: str, within: Range) -> tuple[list[Placed], list[Threshold]]:
        """Models and, of a whole organisation, policies, cheapest first; and advice on thresholds. Raises StoreUnavailable."""
        parsed = parse_scope(scope)
        days = await self._days(scope, model="", task=task, start=within.start, end=within.end)
        known: dict[str, Sums] = {}
        for day in days:
            known.setdefault(day.model, Sums()).add(day.sums)
        points = await self._models(parsed.organization, task, within, known)
        if len(parsed.ancestors) == 1:
            points += await self._policies(parsed.organization, task, within)
        points.sort(key=lambda each: (each.cost_usd_nanos_per_answer, -each.quality, each.name))
        tasks = [task] if task else ["", *dict.fromkeys(day.task for day in days)][:_TASKS_MAX]
        return front(points), self._advice(parsed.path, parsed.organization, tasks)

    async def _models(self, organization: str, task: str, within: Range, known: dict[str, Sums]) -> list[Placed]:
        only = {"task": task} if task else {}
        asked = SumsAsked(organization, within, ("model",), only, histograms=False, count_max=_ROWS_MAX)
        called = {each.labels["model"]: each for each in await self._performance.sums(asked)}
        points = []
        for model, sums in known.items():
            calls = called.get(model)
            if sums.requests:
                cost = -(-sums.cost_usd_nanos // sums.requests)
            elif calls is not None and calls.answers:
                cost = -(-calls.cost_usd_nanos // calls.answers)
            else:
                continue
            if sums.answers:
                points.append(_placed(model, cost, sums))
        return points

    async def _policies(self, organization: str, task: str, within: Range) -> list[Placed]:
        by = ("strategy", "calibration_id")
        asked = SummaryAsked(organization, within.start, within.end, by, task=task, count_max=_ROWS_MAX)
        points = []
        for each in await self._decisions.summarize(asked):
            if not each.quality_answers:
                continue
            strategy, calibration_id = each.labels["strategy"], each.labels["calibration_id"]
            sums = Sums(each.quality_answers, each.quality_sum, each.quality_squares)
            cost = -(-each.cost_usd_nanos // each.decisions)
            points.append(_placed(f"{strategy} ({calibration_id})" if calibration_id else f"{strategy} (policy)", cost, sums))
        return points

    def _advice(self, scope: str, organization: str, tasks: Sequence[str]) -> list[Threshold]:
        found: dict[str, list[Threshold]] = {}
        for task in tasks:
            calibration = self._curves.in_force(scope, task)
            if calibration is None or calibration.calibration_id in found:
                continue
            report = self._curves.report(organization, calibration.calibration_id)
            found[calibration.calibration_id] = thresholds(calibration.calibration_id, report) if report is not None else []
        return [each for advice in found.values() for each in advice]


def front(points: Sequence[Placed]) -> list[Placed]:
    """The points, with those marked that no other one beats: at most as dear and at least as good, and better in one of the two."""

    def beaten(one: Placed) -> bool:
        return any(
            other.cost_usd_nanos_per_answer <= one.cost_usd_nanos_per_answer
            and other.quality >= one.quality
            and (other.cost_usd_nanos_per_answer, -other.quality) != (one.cost_usd_nanos_per_answer, -one.quality)
            for other in points
        )

    return [replace(each, on_pareto_front=not beaten(each)) for each in points]


def thresholds(calibration_id: str, report: Report) -> list[Threshold]:
    """Where a calibration stands and where else on its curve it might, cheapest first."""
    if not report.curve:
        return []
    strong = report.strong_model
    now = min(report.curve, key=lambda each: abs(each.threshold - report.threshold))
    chosen = {now: f"in force now: {_figures(now, strong)}"}
    equal = [each for each in report.curve if each.quality_share >= 1]
    if equal:
        cheapest = min(equal, key=lambda each: each.cost_share)
        chosen.setdefault(cheapest, f"as good as {strong}: {_figures(cheapest, strong)}")
    nearly = [each for each in report.curve if each.quality_share >= _NEARLY]
    if nearly:
        cheapest = min(nearly, key=lambda each: each.cost_share)
        chosen.setdefault(cheapest, f"at least {_NEARLY:.0%} of {strong}: {_figures(cheapest, strong)}")
    bend = _bend(report.curve)
    chosen.setdefault(bend, f"beyond this, quality becomes dear: {_figures(bend, strong)}")
    return [
        Threshold(calibration_id, advice, point)
        for point, advice in sorted(chosen.items(), key=lambda each: each[0].cost_share)
    ]


def _bend(curve: Sequence[Point]) -> Point:
    """The point that lies highest above the line from the cheapest to the best."""
    first, last = min(curve, key=lambda each: each.cost_share), max(curve, key=lambda each: each.quality_share)
    width = last.cost_share - first.cost_share
    if width <= 0:
        return first
    slope = (last.quality_share - first.quality_share) / width
    between = [each for each in curve if each.cost_share <= last.cost_share]
    return max(
        between, key=lambda each: each.quality_share - first.quality_share - slope * (each.cost_share - first.cost_share)
    )


def _figures(point: Point, strong_model: str) -> str:
    return f"{point.cost_share:.0%} of {strong_model}'s bill for {point.quality_share:.1%} of its quality"


def _placed(name: str, cost_usd_nanos: int, sums: Sums) -> Placed:
    quality = mean_quality(sums)
    return Placed(name, cost_usd_nanos, quality.value, quality.lower, quality.upper, sums.answers)
