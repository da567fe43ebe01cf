"""A gateway in front of an orchestrator and a router that say what each test tells them to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.errors import FarthingError
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import StatusRow
from grpc import StatusCode

MESSAGES = [{"role": "user", "content": "hello"}]
REASONS = {
    "BUDGET_EXHAUSTED": StatusCode.RESOURCE_EXHAUSTED,
    "BUDGET_DEGRADED": StatusCode.RESOURCE_EXHAUSTED,
    "RATE_LIMITED": StatusCode.RESOURCE_EXHAUSTED,
    "MODEL_UNKNOWN": StatusCode.INVALID_ARGUMENT,
    "SCOPE_FORBIDDEN": StatusCode.PERMISSION_DENIED,
    "ENTRY_UNKNOWN": StatusCode.NOT_FOUND,
    "CONTEXT_TOO_LONG": StatusCode.FAILED_PRECONDITION,
    "PEER_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": StatusCode.DEADLINE_EXCEEDED,
    "ABORTED": StatusCode.ABORTED,
    "DATA_LOST": StatusCode.DATA_LOSS,
}
FAILURES: dict[str, type[FarthingError]] = {reason: type(reason, (FarthingError,), {}) for reason in REASONS}
TABLE = {FAILURES[reason]: StatusRow(code, reason) for reason, code in REASONS.items()}


class FakeOrchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Answers with `answer`, streams `pieces` before it, raises `failure` where it is set (in a stream after the pieces)."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.answer = orchestrator_pb2.CompleteResponse(model="small")
        self.answer.answer.content = "Hello, you."
        self.answer.answer.finish_reason = "stop"
        self.answer.usage.input_tokens, self.answer.usage.output_tokens = 10, 4
        self.answer.usage.cached_input_tokens, self.answer.usage.reasoning_tokens = 2, 1
        self.answer.receipt.cost_usd_nanos, self.answer.receipt.baseline_usd_nanos = 1_500, 2_000_000_000
        self.pieces = ["Hello", ", you."]
        self.extras = ["", ""]
        self.failure: Exception | None = None
        self.finishes = True
        self.holds: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    def fails(self, reason: str, *, retry_after_s: float | None = None, **facts: object) -> None:
        """From now on it refuses for this reason."""
        self.failure = FAILURES[reason]("as the test says", subject="organizations/acme", **facts)
        if retry_after_s is not None:
            self.failure.retry_after_s = retry_after_s  # type: ignore[attr-defined]

    async def Complete(self, request: Any, context: Any) -> Any:
        self.seen.append(request)
        await self._hold()
        if self.failure is not None:
            raise self.failure
        return self._finished(request)

    async def StreamComplete(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.seen.append(request.request)
        for content, extra_json in zip(self.pieces, self.extras, strict=True):
            delta = orchestrator_pb2.StreamCompleteResponse.Delta(content=content, extra_json=extra_json, model="small")
            yield orchestrator_pb2.StreamCompleteResponse(delta=delta)
        await self._hold()
        if self.failure is not None:
            raise self.failure
        if self.finishes:
            yield orchestrator_pb2.StreamCompleteResponse(finished=self._finished(request.request))

    async def _hold(self) -> None:
        self.begun.set()
        if self.holds is None:
            return
        try:
            await self.holds.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _finished(self, request: Any) -> Any:
        answer = orchestrator_pb2.CompleteResponse()
        answer.CopyFrom(self.answer)
        answer.receipt.request_id, answer.receipt.scope = request.request_id, request.scope
        return answer


class FakeRouter(router_pb2_grpc.RouterServiceServicer):
    """Lists `names`, two a page."""

    names = ("large", "org/small", "tiny")

    async def ListModels(self, request: Any, context: Any) -> Any:
        start = int(request.page_token or 0)
        models = [router_pb2.Model(model=name, provider="p") for name in self.names[start : start + 2]]
        token = str(start + 2) if start + 2 < len(self.names) else ""
        return router_pb2.ListModelsResponse(models=models, next_page_token=token)


class Answer:
    """What came back over HTTP."""

    def __init__(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        self.status = status
        self.headers = headers
        self.raw = raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def events(self) -> list[Any]:
        """The data of each server-sent event; every one ends in an empty line."""
        assert self.raw.endswith(b"\n\n")
        data = [event.removeprefix(b"data: ") for event in self.raw.removesuffix(b"\n\n").split(b"\n\n")]
        return [each.decode() if each == b"[DONE]" else json.loads(each) for each in data]


class Gateway:
    """A running gateway with its fake peers: `await gateway.chat(stream=True)`."""

    def __init__(self, suite: Any, session: aiohttp.ClientSession, orchestrator: FakeOrchestrator) -> None:
        self.suite = suite
        self.url = suite.endpoints["http"]
        self.session = session
        self.orchestrator = orchestrator

    async def chat(self, *, headers: Mapping[str, str] | None = None, raw: bytes | None = None, **body: Any) -> Answer:
        data = raw if raw is not None else json.dumps({"model": "small", "messages": MESSAGES, **body}).encode()
        return await self.send("POST", "/v1/chat/completions", data=data, headers=headers)

    async def send(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, self.url + path, **options) as response:
            return Answer(response.status, response.headers, await response.read())


@pytest.fixture
def gateway(suite: Any) -> Callable[..., Any]:
    """Hosts a gateway: `async with gateway(FARTHING_GATEWAY_AUTH="required") as running:`."""

    @asynccontextmanager
    async def host(*, without: str = "", **environment: str) -> AsyncIterator[Gateway]:
        orchestrator = FakeOrchestrator()
        name = "farthing.orchestrator.v1.OrchestratorService"
        add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
        peers: dict[str, Any] = {"orchestrator": ServiceBinding(name, add, orchestrator, TABLE)}
        add = router_pb2_grpc.add_RouterServiceServicer_to_server
        peers["router"] = ServiceBinding("farthing.router.v1.RouterService", add, FakeRouter(), {})
        if without:
            peers[without] = ()
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(suite("gateway", environment=environment, peers=peers))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            yield Gateway(running, session, orchestrator)

    return host
