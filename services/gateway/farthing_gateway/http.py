"""The HTTP edge: OpenAI's paths onto the orchestrator's RPCs. It translates and authenticates; it decides nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import orjson
import structlog
from aiohttp import web
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_runtime.registration import Mesh
from farthing_runtime.settings import SettingsInvalid
from farthing_runtime.status import code_of, error_info, peer_failure, status_of
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from farthing_gateway import messages, openai_shapes
from farthing_gateway.keys import SECRET_PREFIX, KeyInvalid, Keyring, scope_for
from farthing_gateway.settings import Settings
from farthing_gateway.status import ERROR_TYPES, HTTP_STATUS, STATUS_TABLE

_JSON = "application/json"
_log = structlog.get_logger()
_MODELS_TIMEOUT_S = 5.0
_NESTING_MAX = 200


class Edge:
    """The handlers."""

    def __init__(self, mesh: Mesh, keyring: Keyring, settings: Settings) -> None:
        self._orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(mesh.channel("orchestrator"))
        self._router = router_pb2_grpc.RouterServiceStub(mesh.channel("router"))
        self._keyring = keyring
        self._settings = settings

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        body = await self._body(request)
        scope = await self._scope(request)
        stream, options = body.get("stream"), body.get("stream_options")
        if stream is not None and not isinstance(stream, bool):
            raise FieldInvalid(field="stream", problem="must be true or false")
        with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        receipt_wanted = messages.wants_receipt(body, request.headers)
        asked = messages.complete_request(body, request.headers, scope)
        if stream:
            return await self._stream(request, asked, with_usage=with_usage, receipt_wanted=receipt_wanted)
        answer = await self._orchestrator.Complete(asked, timeout=self._settings.request_timeout_s)
        headers = openai_shapes.receipt_headers(answer.receipt)
        headers["x-farthing-model"] = answer.model
        receipt = _receipt(answer) if receipt_wanted else None
        raw = openai_shapes.chat_completion(answer, created=int(time.time()), receipt=receipt)
        return web.Response(body=raw, content_type=_JSON, headers=headers)

    async def _stream(self, request: web.Request, asked: Any, *, with_usage: bool, receipt_wanted: bool) -> web.StreamResponse:
        """Events as they come. What fails before the first is an HTTP error; what fails later an error event without an end marker."""
        call = self._orchestrator.StreamComplete(
            orchestrator_pb2.StreamCompleteRequest(request=asked), timeout=self._settings.request_timeout_s
        )
        chunks = openai_shapes.Chunks(request_id=asked.request_id, created=int(time.time()))
        headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-farthing-request-id": asked.request_id}
        response: web.StreamResponse | None = None
        try:
            async for event in call:
                if event.WhichOneof("event") == "delta":
                    data = chunks.delta(event.delta)
                else:
                    receipt = _receipt(event.finished) if receipt_wanted else None
                    data = chunks.end(event.finished, with_usage=with_usage, receipt=receipt)
                if response is None:
                    response = web.StreamResponse(headers=headers)
                    await response.prepare(request)
                await response.write(data)
        except grpc.aio.AioRpcError as error:
            if response is None:
                raise
            _, raw, _ = _told(peer_failure(error, peer="orchestrator"))
            await response.write(b"data: " + raw + b"\n\n")
        finally:
            call.cancel()
        assert response is not None
        await response.write_eof()
        return response

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models` and `GET /v1/models/{id}`."""
        await self._scope(request)
        answer = await self._router.ListModels(router_pb2.ListModelsRequest(), timeout=_MODELS_TIMEOUT_S)
        listed = [_model("farthing/auto", "farthing"), *(_model(model.model, model.provider) for model in answer.models)]
        wanted = request.match_info.get("model")
        if wanted is None:
            return web.Response(body=orjson.dumps({"object": "list", "data": listed}), content_type=_JSON)
        for model in listed:
            if model["id"] == wanted:
                return web.Response(body=orjson.dumps(model), content_type=_JSON)
        return _error(404, f"no model {wanted}", param="model", code="model_not_found")

    async def healthy(self, request: web.Request) -> web.StreamResponse:
        """`GET /healthz`: this process answers."""
        return web.Response(text="ok\n")

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """`GET /readyz`: the router answers, so requests can be served."""
        await self._router.ListModels(router_pb2.ListModelsRequest(page_size=1), timeout=_MODELS_TIMEOUT_S)
        return web.Response(text="ready\n")

    async def _scope(self, request: web.Request) -> str:
        """Who calls: the key's scope, or what a caller of this machine says. Raises KeyInvalid, ScopeForbidden, FieldInvalid."""
        given = request.headers.get("authorization", "")
        secret = given[7:].strip() if given[:7].lower() == "bearer " else ""
        # OpenAI's clients always send some key; without ours, only where none is needed.
        key = await self._keyring.whose(secret) if secret.startswith(SECRET_PREFIX) else None
        if key is None and self._settings.keys_required:
            raise KeyInvalid
        return scope_for(key, request.headers.get("x-farthing-scope", ""), default=self._settings.scope_default)

    async def _body(self, request: web.Request) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                raw = await request.read()
        except TimeoutError:
            raise FieldInvalid(field="body", problem=f"did not arrive within {self._settings.body_timeout_s:g} s") from None
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise FieldInvalid(field="body", problem=f"is not valid JSON in UTF-8: {error.msg}") from error
        if not isinstance(body, dict):
            raise FieldInvalid(field="body", problem="must be a JSON object")
        if raw.count(b"[") + raw.count(b"{") > _NESTING_MAX and _depth(body) > _NESTING_MAX:
            raise FieldInvalid(field="body", problem=f"is nested more than {_NESTING_MAX} levels deep")
        return body


@asynccontextmanager
async def serving(edge: Edge, settings: Settings) -> AsyncIterator[str]:
    """Serves HTTP until the block ends: then no new connections, and ten seconds for what is under way."""
    app = web.Application(client_max_size=settings.body_bytes_max)
    app.router.add_post("/v1/chat/completions", _guarded(edge.chat))
    app.router.add_get("/v1/models", _guarded(edge.models))
    app.router.add_get("/v1/models/{model:.+}", _guarded(edge.models))
    app.router.add_get("/healthz", _guarded(edge.healthy))
    app.router.add_get("/readyz", _guarded(edge.ready))
    app.router.add_route("*", "/{path:.*}", _not_there)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=10.0, keepalive_timeout=75.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.http_host, settings.http_port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            problem = f"cannot listen on {settings.http_host}:{settings.http_port}: {error.strerror}"
            raise SettingsInvalid(field="FARTHING_GATEWAY_HTTP_PORT", problem=problem) from error
        port = runner.addresses[0][1]
        host = f"[{settings.http_host}]" if socket.AF_INET6 in _families(runner) else settings.http_host
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _guarded(handler: Handler) -> Handler:
    """A handler whose failures become OpenAI's error objects."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except grpc.aio.AioRpcError as error:
            return _response(peer_failure(error, peer="farthing"))
        except FarthingError as error:
            return _response(error)
        except web.HTTPRequestEntityTooLarge as error:
            return _error(413, f"the body is too large: {error.text}", param="body", code="body_too_large")
        except (asyncio.CancelledError, ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            _log.error("unexpected error", path=request.path, exc_info=error)
            return _error(500, "internal error; the log of the gateway tells more", param=None, code="internal")

    return handle


async def _not_there(request: web.Request) -> web.StreamResponse:
    return _error(404, f"nothing at {request.method} {request.path}", param=None, code="not_found")


def _response(error: FarthingError) -> web.Response:
    status, raw, headers = _told(error)
    return web.Response(status=status, body=raw, content_type=_JSON, headers=headers)


def _told(error: FarthingError) -> tuple[int, bytes, dict[str, str]]:
    """(HTTP status, OpenAI's error object, headers) of a failure."""
    rich = status_of(error, STATUS_TABLE)
    status, info = HTTP_STATUS.get(code_of(rich), 500), error_info(rich)
    reason = info.reason if info else "UNKNOWN"
    param = (info.metadata.get("field") if info else None) or None
    if reason == "MODEL_UNKNOWN":
        status, reason = 404, "MODEL_NOT_FOUND"
    headers = {}
    wait_s = _retry_after_s(rich)
    if wait_s is not None:
        headers["retry-after"] = str(wait_s)
    kind = ERROR_TYPES.get(status, "server_error")
    return status, openai_shapes.error_body(rich.message, kind=kind, param=param, code=reason.lower()), headers


def _retry_after_s(rich: status_pb2.Status) -> int | None:
    for detail in rich.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            return max(1, int(retry.retry_delay.seconds + (retry.retry_delay.nanos > 0)))
    return None


def _error(status: int, message: str, *, param: str | None, code: str) -> web.Response:
    kind = ERROR_TYPES.get(status, "server_error")
    raw = openai_shapes.error_body(message, kind=kind, param=param, code=code)
    return web.Response(status=status, body=raw, content_type=_JSON)


def _receipt(answer: Any) -> Any:
    return json_format.MessageToDict(answer.receipt, preserving_proto_field_name=True)


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _depth(value: Any) -> int:
    """How deep a JSON value is nested, without recursion."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, depth = todo.pop()
        deepest = max(deepest, depth)
        children = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        todo += [(child, depth + 1) for child in children]
    return deepest


def _families(runner: web.AppRunner) -> set[int]:
    return {socket.AF_INET6 for address in runner.addresses if len(address) == 4}
