"""RPCs that list and sum up routing decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_runtime import pages

from farthing_router.edge import messages, ranges
from farthing_router.performance.decision_log import DecisionLog
from farthing_router.performance.decisions import Decision, DecisionsAsked, DecisionStore, DecisionSums, SummaryAsked

_PAGE_SIZE = 100
_SAME = tuple(
    name
    for name in Decision._fields
    if name in router_pb2.Decision.DESCRIPTOR.fields_by_name and name not in ("candidates", "confidence", "quality")
)
_LABEL_OF = {
    router_pb2.DECISION_DIMENSION_STRATEGY: "strategy",
    router_pb2.DECISION_DIMENSION_RULE: "rule_id",
    router_pb2.DECISION_DIMENSION_CALIBRATION: "calibration_id",
    router_pb2.DECISION_DIMENSION_EXPERIMENT: "experiment_id",
    router_pb2.DECISION_DIMENSION_ARM: "arm",
    router_pb2.DECISION_DIMENSION_SERVED_MODEL: "served_model",
    router_pb2.DECISION_DIMENSION_TASK: "task",
    router_pb2.DECISION_DIMENSION_REASON: "reason",
}


class DecisionRpcs:
    """Decisions."""

    def __init__(self, *, store: DecisionStore, log: DecisionLog, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._clock = clock

    async def ListDecisions(self, request: Any, context: Any) -> Any:
        """Lists decisions."""
        size = request.page_size or _PAGE_SIZE
        found = await self._store.find(_asked(request, size + 1))
        last = found[size - 1] if len(found) > size else None
        token = pages.token(request, (last.decided_at.isoformat(), last.decision_id)) if last else ""
        return router_pb2.ListDecisionsResponse(decisions=[_message(each) for each in found[:size]], next_page_token=token)

    async def SummarizeDecisions(self, request: Any, context: Any) -> Any:
        """Sums up decisions."""
        start, end = ranges.hours(request, now=self._clock.now())
        step = ranges.step(request.step_h, start, end)
        asked = SummaryAsked(
            organization=messages.organization(request.scope),
            start=start,
            end=end,
            group_by=tuple(_LABEL_OF[each] for each in request.group_by) or ("strategy",),
            step=step,
            task=request.task,
            shadows=request.shadows,
        )
        found = await self._store.summarize(asked)
        totals: dict[int, int] = {}
        for each in found:
            totals[each.step] = totals.get(each.step, 0) + each.decisions
        summaries = [_summary(each, start + each.step * (step or timedelta()), totals[each.step]) for each in found]
        return router_pb2.SummarizeDecisionsResponse(summaries=summaries, dropped=self._log.dropped)


def _asked(request: Any, count_max: int) -> DecisionsAsked:
    return DecisionsAsked(
        organization=messages.organization(request.scope),
        scope=request.scope,
        count_max=count_max,
        model=request.model,
        task=request.task,
        strategy=request.strategy,
        experiment_id=request.experiment_id,
        request_id=request.request_id,
        start=ranges.moment(request, "start_time"),
        end=ranges.moment(request, "end_time"),
        before=_before(request),
    )


def _before(request: Any) -> tuple[datetime, str] | None:
    keys = pages.keys(request, count=2)
    if keys is None:
        return None
    try:
        return datetime.fromisoformat(keys[0]).astimezone(UTC), str(UUID(keys[1]))
    except ValueError as error:
        raise FieldInvalid(field="page_token", problem="is not one of ours") from error


def _message(given: Decision) -> Any:
    made = router_pb2.Decision(
        candidates=given.candidates,
        confidence=given.confidence,
        quality=given.quality,
        **{name: getattr(given, name) for name in _SAME},
    )
    made.create_time.FromDatetime(given.decided_at)
    return made


def _summary(given: DecisionSums, start: datetime, total: int) -> Any:
    made = router_pb2.DecisionSummary(
        decisions=given.decisions,
        share=given.decisions / total,
        escalated=given.escalated,
        escalated_share=given.escalated / given.decisions,
        failed=given.failed,
        attempts=given.attempts,
        cost_usd_nanos=given.cost_usd_nanos,
        mean_cost_usd_nanos=-(-given.cost_usd_nanos // given.decisions),
        mean_latency_ms=round(given.latency_ms / given.decisions),
        quality_answers=given.quality_answers,
        **given.labels,  # type: ignore[arg-type]
    )
    if given.confidence_answers:
        made.mean_confidence = given.confidence_sum / given.confidence_answers
    if given.quality_answers:
        made.mean_quality = given.quality_sum / given.quality_answers
    made.start_time.FromDatetime(start)
    return made
