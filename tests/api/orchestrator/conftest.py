"""A whole suite in front of a replay server: what the orchestrator's tests talk to."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import Behaviour, running_replay
from farthing_runtime.status import error_info, retry_after_s, rich_status

SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"
EVERYTHING = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
CATALOG = """\
version: 1
providers:
  replay: {{base_url: "{url}", api_key_optional: true, retries: 1, timeout_s: 5}}
  own: {{base_url: "{url}", hosted: false, retries: 0}}
models:
  small:
    provider: replay
    tier: free
    price: {{input_usd_per_million_tokens: "0.15", output_usd_per_million_tokens: "0.60"}}
    context_window_tokens: 4000
  large:
    provider: replay
    tier: premium
    price: {{input_usd_per_million_tokens: "5", output_usd_per_million_tokens: "15"}}
    capabilities: [tools, json, streaming]
  open:
    provider: own
    tier: free
    price: {{input_usd_per_million_tokens: "0", output_usd_per_million_tokens: "0"}}
  unpriced: {{provider: replay}}
routing:
  baseline_model: large
  cascades: [{{steps: [small, large]}}]
{more}"""
GOOD = "Open Settings, choose Security, and press Reset password; a link arrives by mail."
HEDGED = "I'm not sure, please contact support."


def recorded(prompt: str, *, small: str = GOOD, large: str = GOOD) -> list[Recorded]:
    """What both models (and the open one) said to a prompt."""
    return [Recorded(model, prompt, answer, 100, 20) for model, answer in (("small", small), ("large", large), ("open", small))]


EASY = "How do I reset my password?"
ALIKE = "How can I reset my password?"
HARD = "Why does clause 7 of the contract not apply to resellers?"
PERSONAL = "Write to ann@example.com that the order has left."
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RECORDINGS = Recordings(
    [
        *recorded(EASY),
        *recorded(ALIKE),
        *recorded(HARD, small=HEDGED, large="Because resellers are named in clause 9, which takes precedence."),
        *recorded("Write to [EMAIL_1] that the order has left.", small="Sent to [EMAIL_1]: your order has left the warehouse."),
        Recorded("large", "only large knows", GOOD, 100, 20),
        Recorded(
            "large",
            "call a tool",
            "",
            50,
            10,
            finish_reason="tool_calls",
            tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        ),
    ]
)


def complete_request(prompt: str, **fields: Any) -> Any:
    """A request of one user turn."""
    request = orchestrator_pb2.CompleteRequest(**{"request_id": str(uuid.uuid4()), "scope": SCOPE, **fields})
    request.messages.add(role="user", content=prompt)
    return request


@pytest.fixture
def whole(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts the suite on recordings: `async with whole(policy="…", targets=[…]) as channel_of:`."""

    @asynccontextmanager
    async def host(
        *, more: str = "", targets: tuple[str, ...] = EVERYTHING, behaviour: Behaviour | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(running_replay(RECORDINGS, behaviour))
            path = tmp_path / "farthing.yaml"
            path.write_text(CATALOG.format(url=url, more=more))
            yield await stack.enter_async_context(api(*targets, config_file=path, **options))

    return host


TOKEN_USD_NANOS = 1_000
"""What every token of an answer of the dear models costs in `METERED`; prompts are free there, so that a budget is counted in tokens."""
METERED = """\
version: 1
providers:
  far: {{base_url: "{url}", api_key_optional: true, retries: 0, timeout_s: {timeout_s}}}
  spare: {{base_url: "{url}", api_key_optional: true, retries: 0, timeout_s: {timeout_s}}}
  own: {{base_url: "{url}", api_key_optional: true, hosted: false, retries: 0}}
models:
  cheap: {{provider: far, price: {{input_usd_per_million_tokens: "0", output_usd_per_million_tokens: "0.1"}}}}
  dear:
    provider: far
    output_tokens_max: 32000
    price: {{input_usd_per_million_tokens: "0", output_usd_per_million_tokens: "1"}}
  other: {{provider: spare, price: {{input_usd_per_million_tokens: "0", output_usd_per_million_tokens: "1"}}}}
  open: {{provider: own, price: {{input_usd_per_million_tokens: "0", output_usd_per_million_tokens: "0"}}}}
routing:
  baseline_model: dear
  cascades: [{{steps: [cheap, dear]}}]
  fallbacks: {{dear: [other]}}
policy:
  cache: {{mode: "off"}}
  privacy: {{mask: false}}
{policy}
"""


class Upstream:
    """A provider that speaks as many tokens as it is told to, one a chunk, and sees who hangs up.

    `script` is by model: tokens to speak, or "hang", "refuse" (a malformed request) and "drop" (the connection ends). With `pause_after` it
    stops after so many tokens until `go` is set (where it `breaks`, the connection ends then), and
    after `stop_after` tokens it says nothing more until somebody hangs up.
    """

    def __init__(self) -> None:
        self.script: dict[str, int | str] = {"cheap": 20, "dear": 20, "other": 20, "open": 20}
        self.text = " abc"
        self.pause_after: int | None = None
        self.stop_after: int | None = None
        self.breaks = False
        self.go = asyncio.Event()
        self.paused = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.spoken = 0
        self.bodies: list[dict[str, Any]] = []

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        body = await request.json()
        self.bodies.append(body)
        told = self.script[body["model"]]
        try:
            if told == "hang":
                self.paused.set()
                await self.go.wait()
            if told == "refuse":
                return web.json_response({"error": {"message": "no such thing"}}, status=400)
            if told == "drop":
                assert request.transport is not None
                request.transport.abort()
            tokens = min(int(told) if isinstance(told, int) else 1, body["max_tokens"])
            return await (self._stream if body.get("stream") else self._whole)(request, tokens)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise

    async def _whole(self, request: web.Request, tokens: int) -> web.StreamResponse:
        message = {"role": "assistant", "content": self.text * tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": tokens}})

    async def _stream(self, request: web.Request, tokens: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def say(**body: Any) -> None:
            await response.write(b"data: " + json.dumps({"choices": [], **body}).encode() + b"\n\n")

        self.spoken = 0
        for _ in range(tokens):
            if self.spoken == self.pause_after:
                self.paused.set()
                await self.go.wait()
                if self.breaks:
                    assert request.transport is not None
                    request.transport.abort()
            if self.spoken == self.stop_after:
                await asyncio.Event().wait()
            await say(choices=[{"index": 0, "delta": {"content": self.text}, "finish_reason": None}])
            self.spoken += 1
        await say(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        await say(usage={"prompt_tokens": 10, "completion_tokens": tokens})
        await response.write(b"data: [DONE]\n\n")
        return response


class Desk:
    """A whole suite in front of an Upstream, with the ledger at hand."""

    def __init__(self, channel_of: Any, upstream: Upstream) -> None:
        self.upstream = upstream
        self.orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
        self.ledger = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))

    def ask(self, *, tokens_max: int = 300, **fields: Any) -> Any:
        """A request for an answer of the dear model."""
        request = complete_request("speak", **{"model": "dear", **fields})
        request.parameters.output_tokens_max = tokens_max
        return request

    def stream(self, request: Any) -> Any:
        """The call that streams the answer to a request."""
        return self.orchestrator.StreamComplete(orchestrator_pb2.StreamCompleteRequest(request=request))

    async def limit(self, tokens: int, **terms: Any) -> str:
        """A monthly budget on the organisation with room for so many tokens of the dear model; its id."""
        request = budget_pb2.CreateBudgetRequest(
            request_id=str(uuid.uuid4()),
            scope="organizations/acme",
            period=budget_pb2.PERIOD_MONTH,
            limit_usd_nanos=tokens * TOKEN_USD_NANOS,
            **terms,
        )
        return str((await self.ledger.CreateBudget(request)).budget.budget_id)

    async def budget(self, budget_id: str) -> Any:
        """A budget with its balance."""
        request = budget_pb2.GetBudgetRequest(scope="organizations/acme", budget_id=budget_id)
        return (await self.ledger.GetBudget(request)).budget

    async def spend(self, tokens: int) -> None:
        """Somebody else spends so many tokens of the dear model."""
        line = budget_pb2.UsageLine(model="dear", provider="far", cost_usd_nanos=tokens * TOKEN_USD_NANOS, outcome="accepted")
        usage = budget_pb2.UsageRecord(task="chat", lines=[line])
        request = budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope="organizations/acme", usage=usage)
        await self.ledger.RecordUsage(request)

    async def teach(self, *, tokens: int, tokens_max: int, answers: int = 1_000) -> None:
        """Lets the ledger learn that answers of the dear model to such requests have so many tokens."""
        asked = orchestrator_pb2.EstimateCostRequest(request=self.ask(tokens_max=tokens_max))
        estimate = await self.orchestrator.EstimateCost(asked)
        sizing = budget_pb2.Sizing(
            input_tokens=estimate.route.candidates[0].input_tokens,
            output_usd_nanos_per_million_tokens=10**6 * TOKEN_USD_NANOS,
            output_tokens_max=tokens_max,
            model="dear",
            task="chat",
        )
        line = budget_pb2.UsageLine(model="dear", provider="far", output_tokens=tokens, outcome="accepted")
        usage = budget_pb2.UsageRecord(task="chat", lines=[line])
        ids = [str(uuid.uuid4()) for _ in range(answers)]
        held = [
            budget_pb2.ReserveBudgetRequest(request_id=each, scope=SCOPE, amount_usd_nanos=10**12, tokens=10**6, sizing=sizing)
            for each in ids
        ]
        ended = [budget_pb2.SettleReservationRequest(request_id=each, scope=SCOPE, usage=usage) for each in ids]
        for operations in (
            [budget_pb2.ReservationOperation(reserve=each) for each in held],
            [budget_pb2.ReservationOperation(settle=each) for each in ended],
        ):
            results = (await self.ledger.BatchReserve(budget_pb2.BatchReserveRequest(operations=operations))).results
            assert not [result.message for result in results if result.code]

    async def reservation(self, request: Any) -> Any:
        """The hold of a request with the entries of its life."""
        asked = budget_pb2.GetReservationRequest(request_id=request.request_id, scope=request.scope)
        return await self.ledger.GetReservation(asked)

    async def ended(self, request: Any) -> list[str]:
        """The kinds of the entries of a hold, once it has ended."""
        open_states = (budget_pb2.RESERVATION_STATE_RESERVED, budget_pb2.RESERVATION_STATE_DISPATCHED)
        async with asyncio.timeout(10):
            while (found := await self.reservation(request)).reservation.state in open_states:
                await asyncio.sleep(0.01)
        return [entry.kind for entry in found.entries]

    async def usage(self, *, requests: int = 1, **fields: Any) -> Any:
        """The sums of usage by groups, once so many requests are written down."""
        async with asyncio.timeout(10):
            while True:
                rows = (await self.ledger.QueryUsage(budget_pb2.QueryUsageRequest(scope="organizations/acme", **fields))).rows
                if sum(row.requests for row in rows) >= requests:
                    return rows
                await asyncio.sleep(0.01)


class Refusal:
    """A status with its details."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        status = rich_status(error)
        assert status is not None, error
        info = error_info(status)
        assert info is not None
        self.code, self.reason, self.facts, self.message = error.code(), info.reason, dict(info.metadata), status.message
        self.retry_after_s = retry_after_s(status)


async def refusal(call: Any) -> Refusal:
    """How a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Refusal(caught.value)


async def heard(call: Any) -> tuple[str, Any]:
    """The text of a stream, and its end: the whole with its receipt, or its refusal."""
    text, end = [], None
    try:
        async for event in call:
            if event.WhichOneof("event") == "delta":
                text.append(event.delta.content)
            else:
                end = event.finished
    except grpc.aio.AioRpcError as error:
        end = Refusal(error)
    return "".join(text), end


@asynccontextmanager
async def serving_upstream(folder: Path, *, policy: str = "", timeout_s: float = 20) -> AsyncIterator[tuple[Upstream, Path]]:
    """An Upstream until the block ends, and the farthing.yaml that names it."""
    upstream = Upstream()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", upstream.chat)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        path = folder / "farthing.yaml"
        path.write_text(METERED.format(url=url, timeout_s=timeout_s, policy=policy))
        yield upstream, path
    finally:
        upstream.go.set()
        await runner.cleanup()


@pytest.fixture
def desk(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts the suite on an Upstream: `async with desk(policy="  budget: {on_cancel: drain}") as at:`."""

    @asynccontextmanager
    async def host(
        *, policy: str = "", timeout_s: float = 20, targets: tuple[str, ...] = EVERYTHING, **options: Any
    ) -> AsyncIterator[Desk]:
        async with (
            serving_upstream(tmp_path, policy=policy, timeout_s=timeout_s) as (upstream, path),
            api(*targets, config_file=path, **options) as channel_of,
        ):
            yield Desk(channel_of, upstream)

    return host
