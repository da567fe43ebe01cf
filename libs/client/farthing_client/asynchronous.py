"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from farthing_client.answers import Completion, Estimate, Piece, completion_of, estimate_of, piece_of
from farthing_client.channels import (
    BACKOFF_S,
    CHANNEL_OPTIONS,
    DEFAULT_ADDRESS,
    DEFAULT_SCOPE,
    DEFAULT_TIMEOUT_S,
    ESTIMATE_ATTEMPTS_MAX,
    channel_target,
)
from farthing_client.failures import StreamBroken, failure_of, is_unavailable
from farthing_client.requests import Message, Options, request_of


class Farthing:
    """A suite, reached over gRPC: `async with Farthing("127.0.0.1:50051", scope="organizations/acme") as farthing:`.

    `scope` is charged where a request names none; `timeout_s` bounds a call that brings none of its own. `credentials` are gRPC's channel
    credentials for TLS; without them the connection is plain. Every method raises a FarthingFailure when the suite refuses.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        scope: str = DEFAULT_SCOPE,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._address = address
        self._scope = scope
        self._timeout_s = timeout_s
        self._credentials = credentials

    async def __aenter__(self) -> Self:
        target = channel_target(self._address)
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, self._credentials, options=CHANNEL_OPTIONS)
        self._stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._channel.close()

    async def complete(self, prompt: str | Sequence[Message], **options: Unpack[Options]) -> Completion:
        """An answer with its receipt. Never repeated by itself: asking twice may pay twice."""
        request = request_of(prompt, options, scope=self._scope)
        try:
            return completion_of(await self._stub.Complete(request, timeout=self._timeout(options)))
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from error

    def stream(self, prompt: str | Sequence[Message], **options: Unpack[Options]) -> AnswerStream:
        """An answer as it comes: `async with farthing.stream(…) as stream: async for piece in stream: …`."""
        request = request_of(prompt, options, scope=self._scope)
        wrapped = orchestrator_pb2.StreamCompleteRequest(request=request)
        return AnswerStream(self._stub.StreamComplete(wrapped, timeout=self._timeout(options)))

    async def estimate(self, prompt: str | Sequence[Message], **options: Unpack[Options]) -> Estimate:
        """What a request would do and cost, without asking a model. Tried again, within its time, when the suite is out of reach."""
        request = orchestrator_pb2.EstimateCostRequest(request=request_of(prompt, options, scope=self._scope))
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + self._timeout(options)
        for attempt in range(1, ESTIMATE_ATTEMPTS_MAX + 1):
            try:
                return estimate_of(await self._stub.EstimateCost(request, timeout=max(0.0, ends_at_s - loop.time())))
            except grpc.aio.AioRpcError as error:
                wait_s = BACKOFF_S * 2 ** (attempt - 1)
                last = attempt == ESTIMATE_ATTEMPTS_MAX or loop.time() + wait_s >= ends_at_s
                if last or not is_unavailable(error):
                    raise failure_of(error) from error
            await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _timeout(self, options: Options) -> float:
        return options.get("timeout_s", self._timeout_s)


class AnswerStream:
    """The pieces of one answer; afterwards `completion` is the whole of it with its receipt.

    Leaving the `async with` block early ends the call; what was delivered is charged.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._completion: Completion | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        try:
            async for event in self._call:
                if event.WhichOneof("event") == "finished":
                    self._completion = completion_of(event.finished)
                elif event.HasField("delta"):
                    yield piece_of(event.delta)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from error
        if self._completion is None:
            raise StreamBroken

    @property
    def completion(self) -> Completion:
        """The whole answer. Raises StreamBroken before the stream has come to its end."""
        if self._completion is None:
            raise StreamBroken
        return self._completion
