"""RPCs on private statistics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from farthing.privacy.v1 import privacy_pb2
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_privacy.statistics import Measure, PrivateStatistics, Question


class StatisticsRpcs:
    """Questions with noise, and the account that pays for them."""

    def __init__(self, statistics: PrivateStatistics) -> None:
        self._statistics = statistics

    async def QueryPrivately(self, request: Any, context: Any) -> Any:
        """Answers a question with noise."""
        question = Question(
            request_id=request.request_id,
            scope=parse_scope(request.scope),
            measure=Measure(request.measure),
            start_time=_moment(request, "start_time"),
            end_time=_moment(request, "end_time"),
            epsilon_micros=request.epsilon_micros,
            contribution_max=request.contribution_max,
        )
        release = await self._statistics.answer(question)
        return privacy_pb2.QueryPrivatelyResponse(
            value=release.value,
            noise_half_width_95=release.noise_half_width_95,
            epsilon_left_micros=release.epsilon_left_micros,
        )

    async def GetPrivacyBudget(self, request: Any, context: Any) -> Any:
        """Says what is left."""
        account = await self._statistics.account(parse_scope(request.scope))
        return privacy_pb2.GetPrivacyBudgetResponse(
            epsilon_total_micros=account.total_micros, epsilon_spent_micros=account.spent_micros
        )


def _moment(request: Any, field: str) -> datetime | None:
    if not request.HasField(field):
        return None
    try:
        moment: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldInvalid(field=field, problem="must lie in the years 1 to 9999") from error
    return moment
