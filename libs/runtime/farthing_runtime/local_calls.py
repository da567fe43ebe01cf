"""One call that stays in the process: its deadline, its outcome, and what its handler sees of it.

A call runs in the task that awaits it; it starts when it is awaited or iterated, not before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing, suppress
from typing import Any, Protocol

import grpc

from farthing_runtime.local_context import LocalAbort, LocalContext

MESSAGE_BYTES_MAX = 48 * 1024 * 1024
"""The largest message, here and on the wire."""


class Handlers(Protocol):
    """Where a call finds its handler."""

    def handler(self, method: str) -> Any:
        """The handler of a method, None when its service is not up."""
        ...


class _LocalCall:
    """What both kinds of call share: the deadline, the outcome, cancellation."""

    def __init__(self, server: Handlers, method: str, request: Any, parse: Any, timeout_s: float | None, metadata: Any) -> None:
        self._server = server
        self._method = method
        self._request = request
        self._parse = parse
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._metadata = tuple(metadata or ())
        self._context: LocalContext | None = None
        self._failure: grpc.aio.AioRpcError | None = None
        self._done = False
        self._cancelled = False
        self._late = False
        self._cancelling = 0
        self._task: asyncio.Task[Any] | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    def _begin(self) -> tuple[grpc.RpcMethodHandler, Any, LocalContext]:
        if self._cancelled:
            raise asyncio.CancelledError
        handler = self._server.handler(self._method)
        if handler is None:
            raise _error(grpc.StatusCode.UNAVAILABLE, f"no service in this process answers {self._method}")
        request = self._read(handler)
        self._context = LocalContext(deadline_s=self._deadline_s, metadata=self._metadata)
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        return handler, request, self._context

    def _read(self, handler: grpc.RpcMethodHandler) -> Any:
        return handler.request_deserializer(_bounded(self._request))

    def _fail(self, error: BaseException) -> grpc.aio.AioRpcError | None:
        """Remembers how the call failed; returns what the caller should see, None to re-raise what came."""
        if isinstance(error, TimeoutError):
            error = _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        if isinstance(error, LocalAbort):
            error = _error(error.code(), error.details() or "", error.trailing_metadata())
        if isinstance(error, grpc.aio.AioRpcError):
            self._failure = error
            return error
        self._cancelled = isinstance(error, asyncio.CancelledError)
        return None

    def _end(self) -> None:
        self._done = True
        self._task = None
        for callback in self._callbacks:
            callback(self)

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        if self._failure is not None:
            return self._failure.trailing_metadata()
        return grpc.aio.Metadata(*(self._context.trailing_metadata() if self._context else ()))

    async def code(self) -> grpc.StatusCode:
        if self._cancelled:
            return grpc.StatusCode.CANCELLED
        return self._failure.code() if self._failure else grpc.StatusCode.OK

    async def details(self) -> str:
        return (self._failure.details() or "") if self._failure else ""

    def cancel(self) -> bool:
        if self._done:
            return False
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._done

    def time_remaining(self) -> float | None:
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def wait_for_connection(self) -> None:
        return None

    def _timeout(self) -> asyncio.Timeout:
        if self._deadline_s is None:
            return asyncio.timeout(None)
        return asyncio.timeout(max(0.0, self._deadline_s - time.monotonic()))


class LocalUnaryCall(_LocalCall, grpc.aio.UnaryUnaryCall):
    """One request, one response."""

    _response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._run().__await__()

    def _behaviour(self, handler: grpc.RpcMethodHandler) -> Any:
        return handler.unary_unary

    async def _run(self) -> Any:
        if self._done:
            if self._failure is not None:
                raise self._failure
            return self._response
        alarm = None
        try:
            handler, request, context = self._begin()
            alarm = self._set_alarm()
            response = await self._behaviour(handler)(request, context)
            self._response = self._parse(handler.response_serializer(response))
        except BaseException as error:
            seen = self._fail(self._rung(error))
            if seen is None or seen is error:
                raise
            raise seen from error
        finally:
            if alarm is not None:
                alarm.cancel()
            self._end()
        return self._response

    def _set_alarm(self) -> asyncio.TimerHandle | None:
        """Cancels the task at the deadline. What asyncio.timeout does, for a third of its cost: there are a dozen calls a request."""
        if self._deadline_s is None or self._task is None:
            return None
        return self._task.get_loop().call_later(max(0.0, self._deadline_s - time.monotonic()), self._ring, self._task)

    def _ring(self, task: asyncio.Task[Any]) -> None:
        self._late = True
        task.cancel()

    def _rung(self, error: BaseException) -> BaseException:
        """A cancellation by our own alarm is a timeout; one from outside stays a cancellation."""
        if not self._late or not isinstance(error, asyncio.CancelledError):
            return error
        task = asyncio.current_task()
        if task is not None and task.uncancel() > self._cancelling:
            return error
        return TimeoutError()


class LocalStreamCall(_LocalCall, grpc.aio.UnaryStreamCall):
    """One request, a stream of responses; the handler advances only as far as the caller reads."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._responses: AsyncGenerator[Any, None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def cancel(self) -> bool:
        """Ends the call, also between two responses: there the handler waits to be asked for the next, and is told that nobody will."""
        under_way = super().cancel()
        if under_way and self._task is None and self._responses is not None and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(self._responses))
        return under_way

    async def _close(self, responses: AsyncGenerator[Any, None]) -> None:
        with suppress(RuntimeError):  # its caller asked for the next response in the meantime, and learns of the end by that
            await responses.aclose()

    def _behaviour(self, handler: grpc.RpcMethodHandler) -> Any:
        return handler.unary_stream

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._responses is None:
            self._responses = self._run()
        return self._responses

    async def read(self) -> Any:
        """The next response, or `grpc.aio.EOF`."""
        try:
            return await anext(self.__aiter__())
        except StopAsyncIteration:
            return grpc.aio.EOF

    async def _run(self) -> AsyncGenerator[Any, None]:
        produced: Any = None
        try:
            handler, request, context = self._begin()
            produced = self._behaviour(handler)(request, context)
            while True:
                self._task = asyncio.current_task()
                async with self._timeout():
                    try:
                        response = await anext(produced)
                    except StopAsyncIteration:
                        break
                self._task = None
                yield self._parse(handler.response_serializer(response))
        except GeneratorExit:
            self._cancelled = True
            raise
        except BaseException as error:
            seen = self._fail(error)
            if seen is None or seen is error:
                raise
            raise seen from error
        finally:
            if produced is not None:
                await produced.aclose()
            self._end()


class LocalDuplexCall(LocalStreamCall):
    """A stream of requests, a stream of responses."""

    def _behaviour(self, handler: grpc.RpcMethodHandler) -> Any:
        return handler.stream_stream

    def _read(self, handler: grpc.RpcMethodHandler) -> Any:
        return _read_all(handler, *self._request)


class LocalGatheringCall(LocalUnaryCall):
    """A stream of requests, one response."""

    def _behaviour(self, handler: grpc.RpcMethodHandler) -> Any:
        async def gather(requests: AsyncGenerator[Any, None], context: LocalContext) -> Any:
            async with aclosing(requests):
                return await handler.stream_unary(requests, context)

        return gather

    def _read(self, handler: grpc.RpcMethodHandler) -> Any:
        return _read_all(handler, *self._request)


async def _read_all(handler: grpc.RpcMethodHandler, requests: Any, serialise: Any) -> AsyncGenerator[Any, None]:
    """The requests of an iterator, of either kind, as the wire would bring them."""
    if hasattr(requests, "__aiter__"):
        async for request in requests:
            yield handler.request_deserializer(_bounded(serialise(request)))
    else:
        for request in requests:
            yield handler.request_deserializer(_bounded(serialise(request)))


def _bounded(request: bytes) -> bytes:
    if len(request) > MESSAGE_BYTES_MAX:
        raise _error(grpc.StatusCode.RESOURCE_EXHAUSTED, f"message of {len(request)} bytes; at most {MESSAGE_BYTES_MAX}")
    return request


def _error(code: grpc.StatusCode, details: str, trailing: Any = None) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing or grpc.aio.Metadata(), details=details)
