"""Translates: messages in, the pipeline's call, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

from farthing.orchestrator.v1 import orchestrator_pb2_grpc

from farthing_orchestrator import receipts
from farthing_orchestrator.journey import Completed
from farthing_orchestrator.pipeline import Pipeline
from farthing_orchestrator.ports import Refused

_Result = TypeVar("_Result")


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """`farthing.orchestrator.v1.OrchestratorService`."""

    def __init__(self, pipeline: Pipeline, requests: receipts.Requests) -> None:
        self._pipeline = pipeline
        self._requests = requests

    async def Complete(self, request: Any, context: Any) -> Any:
        """Answers a request."""
        ask = self._requests.ask(request, prefix="")
        return receipts.response(await _passing_on(self._pipeline.complete(ask, time_left_s=context.time_remaining())))

    async def StreamComplete(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answers a request piece by piece."""
        ask = self._requests.ask(request.request, prefix="request.")
        async with aclosing(self._pipeline.stream(ask, time_left_s=context.time_remaining())) as items:
            try:
                async for item in items:
                    if isinstance(item, Completed):
                        for event in receipts.ending(item):
                            yield event
                    else:
                        yield receipts.delta(item)
            except Refused as refused:
                raise refused.passed_on from refused

    async def EstimateCost(self, request: Any, context: Any) -> Any:
        """Says what would happen."""
        ask = self._requests.ask(request.request, prefix="request.")
        journey, checked = await _passing_on(self._pipeline.estimate(ask, time_left_s=context.time_remaining()))
        return receipts.estimate(journey, checked)


async def _passing_on(work: Awaitable[_Result]) -> _Result:
    """What a peer refused reaches the caller in the peer's own words."""
    try:
        return await work
    except Refused as refused:
        raise refused.passed_on from refused
