"""Calls that stay in the process: a server that is a table of handlers, and a channel that goes straight to it.

Generated stubs and servicers notice no difference: the same handlers with the same dressing (validation, deadlines, statuses),
and every message is serialised and parsed, so nothing mutable is ever shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from farthing_runtime.local_calls import LocalDuplexCall, LocalGatheringCall, LocalStreamCall, LocalUnaryCall


class LocalServer:
    """The handlers of every service of this process, by full method name."""

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def add(self, method: str, handler: grpc.RpcMethodHandler) -> None:
        """Takes the handler of a method such as `/farthing.budget.v1.BudgetService/GetBudget`."""
        self._handlers[method] = handler

    def remove_service(self, service: str) -> None:
        """Forgets a service: calls to it are UNAVAILABLE from now on, as with a server that has stopped."""
        for method in [name for name in self._handlers if name.startswith(f"/{service}/")]:
            del self._handlers[method]

    def handler(self, method: str) -> grpc.RpcMethodHandler | None:
        """The handler of a method, if its service is up."""
        return self._handlers.get(method)


class LocalChannel(grpc.aio.Channel):
    """A channel to a LocalServer."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Nothing to close: calls in flight belong to their callers."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Always READY."""
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits for ever, since nothing changes; cancel it."""
        await asyncio.Event().wait()

    async def channel_ready(self) -> None:
        """At once."""

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for a method with one request and one response."""
        return _Multicallable(LocalUnaryCall, self._server, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for a method with one request and a stream of responses."""
        return _Multicallable(LocalStreamCall, self._server, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for a method with a stream of requests, given as an iterator, and one response."""
        return _ManyRequests(LocalGatheringCall, self._server, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for a method with a stream of requests, given as an iterator, and a stream of responses."""
        return _ManyRequests(LocalDuplexCall, self._server, method, request_serializer, response_deserializer)


class _Multicallable(grpc.aio.UnaryUnaryMultiCallable, grpc.aio.UnaryStreamMultiCallable):
    """Makes a call object per request, with `grpc.aio`'s signature."""

    def __init__(self, kind: Any, server: LocalServer, method: str, serialise: Any, parse: Any) -> None:
        self._kind = kind
        self._server = server
        self._method = method
        self._serialise = serialise
        self._parse = parse

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._kind(self._server, self._method, self._serialise(request), self._parse, timeout, metadata)


class _ManyRequests(grpc.aio.StreamStreamMultiCallable, grpc.aio.StreamUnaryMultiCallable):
    """Makes a call object per stream of requests, with `grpc.aio`'s signature."""

    def __init__(self, kind: Any, server: LocalServer, method: str, serialise: Any, parse: Any) -> None:
        self._kind = kind
        self._server = server
        self._method = method
        self._serialise = serialise
        self._parse = parse

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        if request_iterator is None:
            raise TypeError(f"{self._method} takes its requests from an iterator in process")
        return self._kind(self._server, self._method, (request_iterator, self._serialise), self._parse, timeout, metadata)
