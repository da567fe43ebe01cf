"""RPCs that take opinions in, score answers, report on quality and recommend models."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.edge import messages
from farthing_router.edge.price_messages import moment
from farthing_router.learning.feedback import Feedback, Given
from farthing_router.learning.learner import Learner
from farthing_router.learning.metrics import Answered
from farthing_router.learning.outcomes import Source
from farthing_router.learning.recommending import QUALITY_LOSS_MAX, Recommendations, Recommended
from farthing_router.learning.reports import ModelReport, QualityReports
from farthing_router.learning.scoring import FittedScores, Score, scored
from farthing_router.pricing.price_book import PriceBook

_RANGE_DAYS = 30
_RANGE_DAYS_MAX = 400


def learning_rpcs(learner: Learner, *, book: PriceBook, clock: Clock) -> LearningRpcs:
    """The RPCs over what is learned."""
    recommendations = Recommendations(store=learner.store, arms=learner.arms, catalog=book.catalog, prices_of=book.prices)
    return LearningRpcs(
        feedback=learner.feedback,
        fitted=learner.fitted,
        reports=learner.reports,
        recommendations=recommendations,
        clock=clock,
    )


class LearningRpcs:
    """Feedback and quality."""

    def __init__(
        self,
        *,
        feedback: Feedback,
        fitted: FittedScores,
        reports: QualityReports,
        recommendations: Recommendations,
        clock: Clock,
    ) -> None:
        self._feedback = feedback
        self._recommendations = recommendations
        self._fitted = fitted
        self._reports = reports
        self._clock = clock

    async def RecordFeedback(self, request: Any, context: Any) -> Any:
        """Takes an opinion in."""
        taken = await self._feedback.take(_given(request))
        return router_pb2.RecordFeedbackResponse(
            quality=taken.quality, model=taken.model, model_quality=taken.model_quality, repeated=taken.repeated
        )

    async def ScoreQuality(self, request: Any, context: Any) -> Any:
        """Scores an answer."""
        messages.check_json(request.messages, request.parameters)
        fitted = self._fitted.of(messages.organization(request.scope))
        return _score(scored(_answered(request), fitted=fitted, task=request.task))

    async def GetQualityReport(self, request: Any, context: Any) -> Any:
        """Reports on quality."""
        start, end = time_range(request, self._clock.now())
        report = await self._reports.report(request.scope, model=request.model, task=request.task, start=start, end=end)
        return router_pb2.GetQualityReportResponse(
            models=[_model(each) for each in report.models],
            correlation=report.agreement.pearson,
            rank_correlation=report.agreement.spearman,
            correlated_answers=report.agreement.answers,
            calibration_error=report.agreement.error,
        )

    async def RecommendModels(self, request: Any, context: Any) -> Any:
        """Recommends cheaper models."""
        start, end = time_range(request, self._clock.now())
        loss_max = request.quality_loss_max if request.HasField("quality_loss_max") else QUALITY_LOSS_MAX
        found, passed = await self._recommendations.find(request.scope, start=start, end=end, quality_loss_max=loss_max)
        return router_pb2.RecommendModelsResponse(recommendations=[_recommended(each) for each in found], passed_over=passed)


def time_range(request: Any, now: datetime) -> tuple[datetime, datetime]:
    """The range that is asked about: the last 30 days unless said otherwise. Raises FieldInvalid."""
    end = moment(request, "end_time") or now
    start = moment(request, "start_time") or end - timedelta(days=_RANGE_DAYS)
    if start >= end:
        raise FieldInvalid(field="end_time", problem="must be after start_time")
    if end - start > timedelta(days=_RANGE_DAYS_MAX):
        raise FieldInvalid(field="start_time", problem=f"must be at most {_RANGE_DAYS_MAX} days before end_time")
    return start, end


def _given(request: Any) -> Given:
    opinion = request.WhichOneof("opinion")
    score = request.score if opinion == "score" else None
    if opinion == "thumb":
        score = float(request.thumb == router_pb2.THUMB_UP)
    return Given(
        request_id=request.request_id,
        scope=request.scope,
        answered_request_id=request.answered_request_id,
        source=Source(request.source or router_pb2.FEEDBACK_SOURCE_USER),
        stamp=request.SerializeToString(deterministic=True),
        score=score,
        correction=request.correction,
    )


def _answered(request: Any) -> Answered:
    wants = request.parameters.response_format_json
    return Answered(
        prompt=messages.prompt_text(request.messages),
        answer=BoughtAnswer(text=request.answer.content, finish_reason=request.answer.finish_reason or "stop"),
        wants_json=bool(wants) and '"text"' not in wants,
        calls_tools='"tool_calls"' in request.answer.extra_json,
        others=list(request.others),
        reference=request.reference,
    )


def _score(given: Score) -> Any:
    return router_pb2.ScoreQualityResponse(
        score=given.value,
        parts=[
            router_pb2.QualityPart(name=each.name, value=each.value, weight=each.weight, reason=each.reason)
            for each in given.parts
        ],
        calibrated=given.opinions > 0,
        opinions=given.opinions,
    )


def _recommended(given: Recommended) -> Any:
    saving, loss = given.saving_usd_nanos, given.quality_loss
    return router_pb2.ModelRecommendation(
        task=given.task,
        model=given.model,
        recommended_model=given.cheaper,
        requests=given.requests,
        cost_usd_nanos=given.cost_usd_nanos,
        saving_usd_nanos=round(saving.value),
        saving_usd_nanos_lower=round(saving.lower),
        saving_usd_nanos_upper=round(saving.upper),
        quality_loss=loss.value,
        quality_loss_lower=loss.lower,
        quality_loss_upper=loss.upper,
        confidence=given.confidence,
        reason=given.reason,
    )


def _model(given: ModelReport) -> Any:
    return router_pb2.ModelQuality(
        model=given.model,
        task=given.task,
        quality=given.quality.value,
        quality_lower=given.quality.lower,
        quality_upper=given.quality.upper,
        answers=given.answers,
        opinions=given.opinions,
        trend_per_30_days=given.trend_per_day * 30,
        trend_significant=given.trend_significant,
        days=[
            router_pb2.QualityPoint(
                day=_stamp(each.day), quality=each.sums.quality / each.sums.answers, answers=each.sums.answers
            )
            for each in given.days
        ],
    )


def _stamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at.astimezone(UTC))
    return stamp
