"""RPCs that analyse what was recorded: cost against quality, and dependence on providers."""

from __future__ import annotations

from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock

from farthing_router.edge import messages, ranges
from farthing_router.performance.cost_quality import CostQuality, Placed, Threshold
from farthing_router.performance.dependence import Dependence, Diversification, sentence
from farthing_router.performance.diversification import Advice, level
from farthing_router.performance.sums import Range

_NO_TASK = {"": "requests without a task"}


class AnalysisRpcs:
    """Analyses."""

    def __init__(self, *, cost_quality: CostQuality, diversification: Diversification, clock: Clock) -> None:
        self._cost_quality = cost_quality
        self._diversification = diversification
        self._clock = clock

    async def AnalyzeCostQuality(self, request: Any, context: Any) -> Any:
        """What quality costs."""
        within = Range(*ranges.hours(request, now=self._clock.now()))
        points, advice = await self._cost_quality.analyze(request.scope, request.task, within)
        return router_pb2.AnalyzeCostQualityResponse(
            points=[_point(each) for each in points], advice=[_threshold(each) for each in advice]
        )

    async def AnalyzeDiversification(self, request: Any, context: Any) -> Any:
        """Dependence on providers."""
        within = Range(*ranges.hours(request, now=self._clock.now()))
        return _dependence(await self._diversification.analyze(messages.organization(request.scope), within))


def _point(given: Placed) -> Any:
    return router_pb2.CostQualityPoint(
        name=given.name,
        cost_usd_nanos_per_answer=given.cost_usd_nanos_per_answer,
        quality=given.quality,
        quality_lower=given.quality_lower,
        quality_upper=given.quality_upper,
        cost_usd_nanos_per_quality_point=given.cost_usd_nanos_per_quality_point,
        on_pareto_front=given.on_pareto_front,
        answers=given.answers,
    )


def _threshold(given: Threshold) -> Any:
    return router_pb2.ThresholdAdvice(
        calibration_id=given.calibration_id,
        advice=given.advice,
        cost_share=given.point.cost_share,
        quality_share=given.point.quality_share,
        threshold=given.point.threshold,
    )


def _dependence(given: Dependence) -> Any:
    return router_pb2.AnalyzeDiversificationResponse(
        hhi=given.hhi,
        attempts_hhi=given.attempts_hhi,
        level=level(given.hhi),
        shares=[
            router_pb2.ProviderShare(
                provider=each.provider,
                cost_share=each.cost_share,
                attempts_share=each.attempts_share,
                unavailability=each.unavailability,
                irreplaceable_share=each.irreplaceable_share,
            )
            for each in given.shares
        ],
        advice=[_advice(each) for each in given.advice],
        risk=given.risk,
        risk_after_advice=given.risk_after_advice,
    )


def _advice(given: Advice) -> Any:
    return router_pb2.DiversificationAdvice(
        advice=sentence(given, _NO_TASK),
        from_provider=given.from_provider,
        to_model=given.target.model,
        task=given.task,
        share=given.share,
        hhi_reduction=given.hhi_reduction,
        risk_reduction=given.risk_reduction,
        cost_usd_nanos_change=given.cost_usd_nanos_change,
        quality_change=given.quality_change,
    )
