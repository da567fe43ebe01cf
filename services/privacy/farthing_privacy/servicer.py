"""Translates: messages in, the domain's call, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any, TypeVar

from farthing.privacy.v1 import privacy_pb2, privacy_pb2_grpc
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_privacy.masking import mask, unmask
from farthing_privacy.spans import Kind
from farthing_privacy.statistics import Measure, PrivateStatistics, Question

_Result = TypeVar("_Result")
_KINDS = {privacy_pb2.MaskKind.Value(f"MASK_KIND_{kind.name}"): kind for kind in Kind}
_KIND_VALUES = {kind: value for value, kind in _KINDS.items()}


class PrivacyServicer(privacy_pb2_grpc.PrivacyServiceServicer):
    """`farthing.privacy.v1.PrivacyService`."""

    def __init__(self, statistics: PrivateStatistics, *, executor: Executor, inline_characters_max: int) -> None:
        self._statistics = statistics
        self._executor = executor
        self._inline_characters_max = inline_characters_max

    async def MaskText(self, request: Any, context: Any) -> Any:
        """Masks texts."""
        texts, kinds = list(request.texts), [_KINDS[kind] for kind in request.kinds]
        masked = await self._run(lambda: mask(texts, kinds=kinds), texts)
        spans = [
            privacy_pb2.MaskedSpan(mask_token=piece.mask_token, original=piece.original, kind=_KIND_VALUES[piece.kind])
            for piece in masked.replaced
        ]
        return privacy_pb2.MaskTextResponse(texts=masked.texts, spans=spans)

    async def UnmaskText(self, request: Any, context: Any) -> Any:
        """Puts originals back."""
        texts, originals = list(request.texts), {span.mask_token: span.original for span in request.spans}
        return privacy_pb2.UnmaskTextResponse(texts=await self._run(lambda: unmask(texts, originals=originals), texts))

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

    async def _run(self, work: Callable[[], _Result], texts: Sequence[str]) -> _Result:
        """Small texts at once, large ones in a worker thread, so that they do not hold up the rest."""
        if sum(map(len, texts)) <= self._inline_characters_max:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _moment(request: Any, field: str) -> datetime | None:
    if not request.HasField(field):
        return None
    try:
        moment: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldInvalid(field=field, problem="must lie in the years 1 to 9999") from error
    return moment
