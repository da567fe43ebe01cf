"""The handlers of the HTTP edge: OpenAI's paths onto the orchestrator's RPCs. They translate and authenticate; they decide nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import orjson
import structlog
from aiohttp import web
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.errors import FieldInvalid
from farthing_runtime.registration import Mesh
from google.protobuf import json_format

from farthing_gateway import messages, openai_shapes
from farthing_gateway.edge.listener import Routes
from farthing_gateway.edge.refusals import JSON, HttpProblem, refusal, told
from farthing_gateway.keys import SECRET_PREFIX, Caller, KeyInvalid, Keyring, check_origin, scope_for
from farthing_gateway.settings import Settings

_log = structlog.get_logger()
_PEER_TIMEOUT_S = 5.0
_NESTING_MAX = 200
_MODEL_PAGES_MAX = 10
_MODELS_PATH = "/v1/models/"
_ANSWERED_NO = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)


class Edge:
    """The handlers."""

    def __init__(self, mesh: Mesh, keyring: Keyring, settings: Settings) -> None:
        self._orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(mesh.channel("orchestrator"))
        self._router = router_pb2_grpc.RouterServiceStub(mesh.channel("router"))
        self._keyring = keyring
        self._settings = settings

    def routes(self) -> Routes:
        """Path → method → handler."""
        return {
            "/v1/chat/completions": {"POST": self.chat},
            "/v1/models": {"GET": self.models},
            _MODELS_PATH: {"GET": self.model},
            "/healthz": {"GET": self.healthy},
            "/readyz": {"GET": self.ready},
        }

    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        caller = await self._caller(request)
        wish = messages.wish_of(await self._body(request), request.headers, caller)
        if wish.stream:
            return await self._stream(request, wish)
        try:
            answer = await self._orchestrator.Complete(wish.request, timeout=self._settings.request_timeout_s)
        except grpc.aio.AioRpcError as error:
            return refusal(error, request_id=wish.request.request_id)
        receipt = _receipt(answer) if wish.receipt else None
        raw = openai_shapes.chat_completion(answer, created=int(time.time()), receipt=receipt)
        return web.Response(body=raw, headers=openai_shapes.answer_headers(answer))

    async def _stream(self, request: web.BaseRequest, wish: messages.Wish) -> web.StreamResponse:
        """Events as they come. What fails before the first is an HTTP error; what fails later an error event without an end marker."""
        request_id, timeout_s = wish.request.request_id, self._settings.request_timeout_s
        call = self._orchestrator.StreamComplete(
            orchestrator_pb2.StreamCompleteRequest(request=wish.request), timeout=timeout_s
        )
        response: web.StreamResponse | None = None
        try:
            # The call has its own deadline; this one is for a client that stops reading.
            async with asyncio.timeout(timeout_s):
                async for data in _events(call, wish):
                    if response is None:
                        response = web.StreamResponse(headers=openai_shapes.stream_headers(request_id))
                        await response.prepare(request)
                    await response.write(data)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            if not isinstance(error, grpc.aio.AioRpcError | HttpProblem | TimeoutError):
                _log.error("unexpected error", request_id=request_id, exc_info=error)
            if response is None:
                return refusal(error, request_id=request_id)
            if isinstance(error, TimeoutError) and request.transport is not None:
                request.transport.abort()
                raise ConnectionError("the client stopped reading") from error
            await response.write(b"data: " + told(error)[1] + b"\n\n")
        finally:
            call.cancel()
        await response.write_eof()  # type: ignore[union-attr]
        return response  # type: ignore[return-value]

    async def models(self, request: web.BaseRequest) -> web.StreamResponse:
        """`GET /v1/models`."""
        await self._caller(request)
        return _json({"object": "list", "data": await self._listed()})

    async def model(self, request: web.BaseRequest) -> web.StreamResponse:
        """`GET /v1/models/{id}`; names may have slashes."""
        await self._caller(request)
        wanted = request.path.removeprefix(_MODELS_PATH)
        for model in await self._listed():
            if model["id"] == wanted:
                return _json(model)
        raise HttpProblem(404, f"no model {wanted[:200]}", code="model_not_found", param="model")

    async def _listed(self) -> list[dict[str, Any]]:
        listed, token = [_model("farthing/auto", "farthing")], ""
        for _ in range(_MODEL_PAGES_MAX):
            page = await self._router.ListModels(router_pb2.ListModelsRequest(page_token=token), timeout=_PEER_TIMEOUT_S)
            listed += [_model(model.model, model.provider) for model in page.models]
            token = page.next_page_token
            if not token:
                break
        return listed

    async def healthy(self, request: web.BaseRequest) -> web.StreamResponse:
        """`GET /healthz`: this process answers."""
        return web.Response(text="ok\n")

    async def ready(self, request: web.BaseRequest) -> web.StreamResponse:
        """`GET /readyz`: who is needed for an answer is there: the orchestrator, the router and, where keys are asked for, their store."""
        # The orchestrator has nothing to say of itself; that it refuses an empty request shows that it is there and costs nothing.
        empty = orchestrator_pb2.EstimateCostRequest()
        await _reached(self._orchestrator.EstimateCost(empty, timeout=_PEER_TIMEOUT_S))
        await _reached(self._router.ListModels(router_pb2.ListModelsRequest(page_size=1), timeout=_PEER_TIMEOUT_S))
        if self._settings.keys_required:
            await self._keyring.check_store()
        return web.Response(text="ready\n")

    async def _caller(self, request: web.BaseRequest) -> Caller:
        """Who calls: the key's scope, or what a caller of this machine says. Raises KeyInvalid, ScopeForbidden, FieldInvalid."""
        given = request.headers.get("authorization", "")
        secret = given[7:].strip() if given[:7].lower() == "bearer " else ""
        # OpenAI's clients always send some key; without ours, only where none is needed.
        key = await self._keyring.whose(secret) if secret.startswith(SECRET_PREFIX) else None
        if key is None:
            if self._settings.keys_required:
                raise KeyInvalid
            check_origin(request.headers.get("origin"))
        scope = scope_for(key, messages.header(request.headers, "x-farthing-scope"), default=self._settings.scope_default)
        return Caller(scope, key.key_id if key is not None else "")

    async def _body(self, request: web.BaseRequest) -> dict[str, Any]:
        try:
            if request.content.is_eof():
                raw = await request.read()
            else:
                async with asyncio.timeout(self._settings.body_timeout_s):
                    raw = await request.read()
        except TimeoutError:
            text = f"the body did not arrive within {self._settings.body_timeout_s:g} s"
            raise HttpProblem(408, text, code="body_timeout", param="body") from None
        except web.HTTPRequestEntityTooLarge:
            text = f"the body is too large: at most {self._settings.body_bytes_max} bytes"
            raise HttpProblem(413, text, code="body_too_large", param="body") from None
        except web.RequestPayloadError as error:
            raise FieldInvalid(field="body", problem="is not what its headers announce") from error
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise FieldInvalid(field="body", problem=f"is not valid JSON in UTF-8: {error.msg}") from error
        if not isinstance(body, dict):
            raise FieldInvalid(field="body", problem="must be a JSON object")
        if raw.count(b"[") + raw.count(b"{") > _NESTING_MAX and _depth(body) > _NESTING_MAX:
            raise FieldInvalid(field="body", problem=f"is nested more than {_NESTING_MAX} levels deep")
        return body


async def _events(call: Any, wish: messages.Wish) -> AsyncIterator[bytes]:
    """The server-sent events of a stream."""
    request_id, created = wish.request.request_id, int(time.time())
    chunks = openai_shapes.Chunks(request_id=request_id, created=created, with_usage=wish.with_usage)
    whole = False
    async for event in call:
        if event.WhichOneof("event") == "delta":
            yield chunks.delta(event.delta.content, event.delta.extra_json, event.delta.model)
        else:
            whole = True
            yield chunks.end(event.finished, receipt=_receipt(event.finished) if wish.receipt else None)
    if not whole:
        raise HttpProblem(502, "the stream ended before the answer did", code="stream_broken")


async def _reached(call: Awaitable[Any]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() not in _ANSWERED_NO:
            raise


def _json(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type=JSON)


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
