"""RPCs about performance: now, and over a range."""

from __future__ import annotations

from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock

from farthing_router.edge import messages, ranges
from farthing_router.performance.meter import Meter
from farthing_router.performance.reports import Performance, Reports, Wanted, steps_of
from farthing_router.performance.sums import DIMENSIONS, Range

_WINDOW_H = 24
_DIMENSION = {
    router_pb2.PERFORMANCE_DIMENSION_PROVIDER: "provider",
    router_pb2.PERFORMANCE_DIMENSION_MODEL: "model",
    router_pb2.PERFORMANCE_DIMENSION_DEPLOYMENT: "deployment",
    router_pb2.PERFORMANCE_DIMENSION_TASK: "task",
}
_SAME = (
    "attempts",
    "failures",
    "cancelled",
    "error_rate",
    "output_tokens_per_s",
    "cost_usd_nanos",
    "input_tokens",
    "output_tokens",
    "cost_usd_nanos_per_thousand_tokens",
    "failures_by_kind",
    "quality",
    "quality_answers",
    "cost_usd_nanos_per_quality_point",
)


class PerformanceRpcs:
    """Performance."""

    def __init__(self, *, reports: Reports, meter: Meter, clock: Clock) -> None:
        self._reports = reports
        self._meter = meter
        self._clock = clock

    async def GetPerformance(self, request: Any, context: Any) -> Any:
        """How things do now."""
        wanted = _wanted(request, ("provider", "model"))
        found = await self._reports.now(wanted, window_h=request.window_h or _WINDOW_H)
        return router_pb2.GetPerformanceResponse(performances=[_message(each) for each in found], dropped=self._meter.dropped)

    async def GetPerformanceReport(self, request: Any, context: Any) -> Any:
        """How things did."""
        start, end = ranges.hours(request, now=self._clock.now())
        within = Range(start, end, ranges.step(request.step_h, start, end))
        steps, total = await self._reports.over(_wanted(request, ("model",)), within)
        answer = router_pb2.GetPerformanceReportResponse(total=[_message(each) for each in total])
        for began, performances in steps_of(steps, within):
            step = answer.steps.add(performances=[_message(each) for each in performances])
            step.start_time.FromDatetime(began)
        return answer


def _wanted(request: Any, group_by: tuple[str, ...]) -> Wanted:
    only = {name: value for name in DIMENSIONS if (value := getattr(request, name, ""))}
    asked = tuple(dict.fromkeys(_DIMENSION[each] for each in request.group_by))
    return Wanted(messages.organization(request.scope), asked or group_by, only)


def _message(given: Performance) -> Any:
    fields: dict[str, Any] = {**given.labels, **{name: getattr(given, name) for name in _SAME}}
    made = router_pb2.Performance(**fields)
    made.latency_ms_p50, made.latency_ms_p90, made.latency_ms_p99 = given.latency_ms
    if given.first_token_ms is not None:
        made.first_token_ms_p50, made.first_token_ms_p90 = given.first_token_ms
    return made
