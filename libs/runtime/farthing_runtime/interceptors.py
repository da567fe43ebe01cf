"""What every handler wears, in process and on the wire alike: validation, a deadline, a request id, and its errors' statuses.

The dressing is put on once, when a service is registered. gRPC's own interceptors would cost a lookup and several awaits a
call, and a local channel would need a second implementation of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import protovalidate
import structlog
from farthing_core.errors import FarthingError
from google.rpc import status_pb2
from grpc_status import rpc_status

from farthing_runtime.local_context import LocalAbort
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import code_of, error_info, internal, invalid_argument, simple_status, status_of

REQUEST_ID_KEY = "x-request-id"
_request_id: ContextVar[str] = ContextVar("farthing_request_id", default="")
_log = structlog.get_logger()
_VIOLATIONS_MAX = 10


class Validator:
    """Checks messages against the rules in their protos. The only place that knows protovalidate."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    def violations(self, message: Any) -> list[tuple[str, str]]:
        """(field path, problem) of what is wrong, at most a handful; empty when all is well."""
        found = self._validator.collect_violations(message)
        return [(_path(violation.proto.field), violation.proto.message) for violation in found[:_VIOLATIONS_MAX]]


def dress(handler: grpc.RpcMethodHandler, binding: ServiceBinding, validator: Validator) -> grpc.RpcMethodHandler:
    """The handler in its dressing. Every message of a stream of requests is validated as it comes; a stream of answers to it lasts as long
    as its caller wants it to.
    """
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary, _dress_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream, _dress_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary, _dress_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream, _dress_stream),
    }
    make, behaviour, wrap = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
    check: Callable[[Any], list[tuple[str, str]]] | None = validator.violations
    if handler.request_streaming:
        behaviour, check = _checking(behaviour, validator), None
    return make(
        wrap(behaviour, binding, check),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _dress_unary(
    behaviour: Callable[..., Awaitable[Any]], binding: ServiceBinding, check: Any
) -> Callable[..., Awaitable[Any]]:
    table, deadline_s = binding.status_table, binding.deadline_s

    async def call(request: Any, context: Any) -> Any:
        _bind_request_id(request, context)
        if check is not None and (wrong := check(request)):
            return await _abort(context, invalid_argument(wrong))
        try:
            if context.time_remaining() is None:
                async with asyncio.timeout(deadline_s):
                    return await behaviour(request, context)
            return await behaviour(request, context)
        except _Invalid as error:
            return await _abort(context, invalid_argument(error.wrong))
        except (FarthingError, TimeoutError, NotImplementedError) as error:
            return await _abort(context, _status(error, table, deadline_s))
        except (LocalAbort, grpc.aio.AbortError):
            raise
        except Exception as error:
            return await _abort(context, _unexpected(error, binding))

    return call


def _dress_stream(
    behaviour: Callable[..., AsyncIterator[Any]], binding: ServiceBinding, check: Any
) -> Callable[..., AsyncIterator[Any]]:
    table, deadline_s = binding.status_table, binding.deadline_s

    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        _bind_request_id(request, context)
        if check is not None and (wrong := check(request)):
            await _abort(context, invalid_argument(wrong))
        responses = behaviour(request, context)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s if check is not None and context.time_remaining() is None else None
        try:
            while True:
                async with asyncio.timeout_at(ends_at):
                    try:
                        response = await anext(responses)
                    except StopAsyncIteration:
                        return
                yield response
        except _Invalid as error:
            await _abort(context, invalid_argument(error.wrong))
        except (FarthingError, TimeoutError, NotImplementedError) as error:
            await _abort(context, _status(error, table, deadline_s))
        except (LocalAbort, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(context, _unexpected(error, binding))
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    return call


def guard(handler: grpc.RpcMethodHandler, proves: Callable[[Any], bool]) -> grpc.RpcMethodHandler:
    """A dressed handler of one request and one response that strangers are refused by, before anything of the request is looked at."""

    async def call(request: Any, context: Any) -> Any:
        if not proves(context.invocation_metadata()):
            text = "only services of this suite may call this"
            return await _abort(context, simple_status(grpc.StatusCode.PERMISSION_DENIED, "PEERS_ONLY", text))
        return await handler.unary_unary(request, context)

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )


def _checking(behaviour: Callable[..., Any], validator: Validator) -> Callable[..., Any]:
    """A behaviour whose stream of requests ends with INVALID_ARGUMENT at the first message that breaks a rule."""

    async def checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            if wrong := validator.violations(request):
                raise _Invalid(wrong)
            yield request

    return lambda requests, context: behaviour(checked(requests), context)


class _Invalid(Exception):
    """A message of a stream that breaks a rule."""

    def __init__(self, wrong: list[tuple[str, str]]) -> None:
        super().__init__("invalid message in a stream")
        self.wrong = wrong


def _status(error: Exception, table: Any, deadline_s: float) -> status_pb2.Status:
    if isinstance(error, FarthingError):
        return status_of(error, table)
    if isinstance(error, NotImplementedError):
        return simple_status(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", "this method is not part of this service yet")
    return simple_status(
        grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", f"took longer than the default deadline of {deadline_s:g} s"
    )


def _unexpected(error: Exception, binding: ServiceBinding) -> status_pb2.Status:
    _log.error("unexpected error", service=binding.name, request_id=_request_id.get(), exc_info=error)
    return internal()


async def _abort(context: Any, status: status_pb2.Status) -> Any:
    code = code_of(status)
    if code is grpc.StatusCode.INTERNAL:
        _log.error("answered INTERNAL", request_id=_request_id.get())
    else:
        info = error_info(status)
        _log.debug("refused", code=code.name, reason=info.reason if info else "", request_id=_request_id.get())
    await context.abort_with_status(rpc_status.to_status(status))


def _bind_request_id(request: Any, context: Any) -> None:
    """Whose work this is, for the log: as the metadata says, or the request itself; a call made on the way inherits it."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            _request_id.set(str(value))
            return
    given = getattr(request, "request_id", "")
    if given:
        _request_id.set(given)


def _path(field: Any) -> str:
    """A violation's path as people write it: `messages[3].role`."""
    parts: list[str] = []
    for element in field.elements if field is not None else ():
        text = element.field_name
        subscript = element.subscript
        if subscript is not None:
            key = getattr(subscript, "value", subscript)
            text += f"[{key}]"
        parts.append(text)
    return ".".join(parts) or "request"
