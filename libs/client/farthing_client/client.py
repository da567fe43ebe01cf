"""Requests to a suite over gRPC."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

Prompt = str | Sequence[Mapping[str, str]]
"""A user's text, or messages with `role` and `content`."""
_DETAILS_KEY = "grpc-status-details-bin"
_TRIES = 3
_BACKOFF_S = 0.2


class Failure(Exception):
    """A request that was refused or lost: gRPC's code, Farthing's reason (`BUDGET_EXHAUSTED` …), and facts such as which budget."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, facts: Mapping[str, str]) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.facts = dict(facts)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `receipt` is the itemised account, a `farthing.orchestrator.v1.Receipt`; `extra_json` holds tool calls and the like."""

    text: str
    model: str
    finish_reason: str
    extra_json: str
    receipt: Any

    @property
    def cost_usd_nanos(self) -> int:
        """What it cost."""
        return int(self.receipt.cost_usd_nanos)

    @property
    def saved_usd_nanos(self) -> int:
        """What it would have cost without Farthing, less what it cost."""
        return int(self.receipt.baseline_usd_nanos - self.receipt.cost_usd_nanos)


class Farthing:
    """A connection to a suite, for one scope.

    `async with Farthing("localhost:50051", scope="organizations/acme") as farthing: …`. Every call has a deadline; only what is safe to
    repeat is tried again when the suite is unavailable.
    """

    def __init__(self, address: str, *, scope: str, timeout_s: float = 120.0) -> None:
        self._scope = scope
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def complete(self, prompt: Prompt, *, model: str = "farthing/auto", task: str = "", **fields: Any) -> Answer:
        """The answer to a prompt. `fields` are further fields of `CompleteRequest`. Raises Failure."""
        request = self._request(prompt, model=model, task=task, **fields)
        return _answer(await _called(lambda: self._stub.Complete(request, timeout=self._timeout_s), tries=1))

    async def stream(
        self, prompt: Prompt, *, model: str = "farthing/auto", task: str = "", **fields: Any
    ) -> AsyncIterator[str | Answer]:
        """Pieces of the answer as they come; the last item is the whole Answer with its receipt. Raises Failure."""
        request = orchestrator_pb2.StreamCompleteRequest(request=self._request(prompt, model=model, task=task, **fields))
        call = self._stub.StreamComplete(request, timeout=self._timeout_s)
        try:
            async for event in call:
                yield event.delta.content if event.WhichOneof("event") == "delta" else _answer(event.finished)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        finally:
            call.cancel()

    async def estimate(self, prompt: Prompt, *, model: str = "farthing/auto", task: str = "", **fields: Any) -> Any:
        """What the request would do and cost, an `EstimateCostResponse`; nothing is called or held. Raises Failure."""
        request = orchestrator_pb2.EstimateCostRequest(request=self._request(prompt, model=model, task=task, **fields))
        return await _called(lambda: self._stub.EstimateCost(request, timeout=self._timeout_s), tries=_TRIES)

    def _request(self, prompt: Prompt, **fields: Any) -> Any:
        values = {"request_id": str(uuid.uuid4()), "scope": self._scope, **fields}
        request = orchestrator_pb2.CompleteRequest(**values)
        for message in [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt:
            request.messages.add(**message)
        return request


async def _called(call: Callable[[], Awaitable[Any]], *, tries: int) -> Any:
    for number in range(1, tries + 1):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or number == tries:
                raise _failure(error) from error
            await asyncio.sleep(_BACKOFF_S * number)
    raise AssertionError


def _answer(response: Any) -> Answer:
    given = response.answer
    return Answer(given.content, response.model, given.finish_reason, given.extra_json, response.receipt)


def _failure(error: grpc.aio.AioRpcError) -> Failure:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(info.DESCRIPTOR):
                    detail.Unpack(info)
                    return Failure(error.code(), info.reason, status.message, info.metadata)
    return Failure(error.code(), error.code().name, error.details() or "", {})
