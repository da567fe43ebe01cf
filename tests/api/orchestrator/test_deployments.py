"""Every fault of a provider, through the whole suite: none reaches the caller while one deployment is healthy."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2

from tests.fake_providers.dialects import OpenAI
from tests.fake_providers.server import FakeProvider

SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"
BEFORE_THE_FIRST_PIECE = (
    "error-401",
    "error-402",
    "error-403",
    "error-404",
    "error-413",
    "error-429",
    "error-429-and-when",
    "error-500",
    "error-501",
    "error-503",
    "error-504",
    "error-529",
    "out-of-quota",
    "too-long",
    "redirects",
    "huge-header",
    "hangs",
    "no-http",
    "reset-first",
    "login-page",
    "gzip-bomb",
    "garbage",
    "other-json",
    "drips",
)
WITHIN_THE_ANSWER = ("no-utf8", "truncated", "error-within", "reset-midway", "endless")
AFTER_THE_FIRST_PIECE = ("no-utf8", "truncated", "error-within", "reset-midway", "stalls", "endless", "endless-line")
MAY_BE_BILLED = {"hangs", "drips", "garbage", "error-504", "truncated"}
FAULTS = dict.fromkeys((*BEFORE_THE_FIRST_PIECE, *WITHIN_THE_ANSWER, *AFTER_THE_FIRST_PIECE))
HEAD = """\
version: 1
providers:
  sick:
    {{base_url: "http://127.0.0.1:{port}/v1", api_key_optional: true, retries: 0, timeout_s: 1, idle_timeout_s: 1}}
  well: {{base_url: "http://127.0.0.1:{port}/v1", api_key_optional: true, retries: 0}}
policy: {{cache: {{mode: "off"}}}}
models:
"""
MODEL = """\
  "{fault}":
    price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}
    deployments:
      - {{name: "sick {fault}", provider: sick, upstream_model: "{fault}", context_window_tokens: 8000}}
      - {{name: "well {fault}", provider: well, upstream_model: good, weight: 0}}
"""


HEDGED = """\
  hedged:
    price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}
    hedge: {{quantile: 0.95, calls_share_max: 0.5}}
    deployments:
      - {{name: moody, provider: sick, upstream_model: moody, weight: 1000000}}
      - {{name: steady, provider: well, upstream_model: good, weight: 0.001}}
"""


class Moody(FakeProvider):
    """Answers well until it is tired; then the model `moody` says nothing until whoever asked hangs up."""

    tired = False

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self.tired and (await request.json())["model"] == "moody":
            await asyncio.Event().wait()
        return await super()._chat(request)


class Desk:
    """A whole suite in front of a provider with every fault."""

    def __init__(self, channel: Any, provider: Moody) -> None:
        self.orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel("orchestrator"))
        self.ledger = budget_pb2_grpc.BudgetServiceStub(channel("budget"))
        self.provider = provider

    async def complete(self, model: str) -> Any:
        return await self.orchestrator.Complete(request(model))

    async def heard(self, model: str) -> tuple[str, Any]:
        """The text of a stream, and its end: the whole, or its error."""
        text: list[str] = []
        try:
            async for event in self.orchestrator.StreamComplete(orchestrator_pb2.StreamCompleteRequest(request=request(model))):
                if event.WhichOneof("event") == "delta":
                    text.append(event.delta.content)
                else:
                    return "".join(text), event.finished
        except grpc.aio.AioRpcError as error:
            return "".join(text), error
        return "".join(text), None


def request(model: str) -> Any:
    made = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=SCOPE, model=model)
    made.messages.add(role="user", content="what is it?")
    made.parameters.output_tokens_max = 100
    return made


@pytest.fixture
async def desk(suite: Any, tmp_path: Path) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        provider = Moody(OpenAI())
        await stack.enter_async_context(provider.running())
        path = tmp_path / "farthing.yaml"
        models = "".join(MODEL.format(fault=fault) for fault in FAULTS) + HEDGED.format()
        path.write_text(HEAD.format(port=provider.port) + models)
        names = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
        running = await stack.enter_async_context(suite(*names, config_file=path))
        yield Desk(running.mesh.channel, provider)


async def each(faults: Sequence[str], ask: Callable[[str], Awaitable[Any]]) -> dict[str, Any]:
    """What came of every fault; some at the same time."""
    found: dict[str, Any] = {}
    gate = asyncio.Semaphore(8)

    async def one(fault: str) -> None:
        async with gate:
            found[fault] = await ask(fault)

    await asyncio.gather(*map(one, faults))
    return found


async def test_no_fault_reaches_the_caller_while_one_deployment_is_healthy(desk: Desk) -> None:
    faults = (*BEFORE_THE_FIRST_PIECE, *WITHIN_THE_ANSWER)
    for fault, answer in (await each(faults, desk.complete)).items():
        assert answer.answer.content == "forty-two", fault
        attempts = answer.receipt.attempts
        assert [attempt.deployment for attempt in attempts] == [f"sick {fault}", f"well {fault}"]
        assert answer.receipt.cost_usd_nanos == sum(attempt.cost_usd_nanos for attempt in attempts)
        if fault in MAY_BE_BILLED:
            assert attempts[0].usage.estimated, fault
            assert attempts[0].cost_usd_nanos > 0, fault
        if fault.startswith("error-4"):
            assert attempts[0].cost_usd_nanos == 0, fault
    async with asyncio.timeout(10):
        while True:
            by_deployment = budget_pb2.QueryUsageRequest(scope="organizations/acme", group_by=[budget_pb2.USAGE_GROUP_PROVIDER])
            rows = {row.provider: row.attempts for row in (await desk.ledger.QueryUsage(by_deployment)).rows}
            if rows == {"sick": len(faults), "well": len(faults)}:
                return
            await asyncio.sleep(0.02)


async def test_a_stream_is_spoken_by_another_deployment_where_one_fails_before_its_first_piece(desk: Desk) -> None:
    for fault, (text, end) in (await each(BEFORE_THE_FIRST_PIECE, desk.heard)).items():
        assert (text, end.answer.content) == ("forty-two", "forty-two"), (fault, end)
        assert [attempt.deployment for attempt in end.receipt.attempts] == [f"sick {fault}", f"well {fault}"]


async def test_case_30_a_stream_that_fails_after_its_first_piece_ends_with_an_error_and_never_as_if_it_were_whole(
    desk: Desk,
) -> None:
    for fault, (text, end) in (await each(AFTER_THE_FIRST_PIECE, desk.heard)).items():
        assert text.startswith("forty"), fault
        assert isinstance(end, grpc.aio.AioRpcError), fault
        assert end.code() is grpc.StatusCode.UNAVAILABLE, fault
        assert "broke" in (end.details() or ""), fault
    asked = [body["model"] for body in desk.provider.bodies]
    assert "good" not in asked


async def test_the_call_that_was_overtaken_is_on_the_receipt_and_in_the_ledger(desk: Desk) -> None:
    before = [await desk.complete("hedged") for _ in range(30)]
    desk.provider.tired = True
    answer = await desk.complete("hedged")
    assert answer.answer.content == "forty-two"
    lost, won = answer.receipt.attempts
    assert (lost.deployment, won.deployment) == ("moody", "steady")
    assert (lost.outcome, won.outcome) == (router_pb2.ATTEMPT_OUTCOME_CANCELLED, router_pb2.ATTEMPT_OUTCOME_ACCEPTED)
    assert lost.usage.estimated
    assert lost.cost_usd_nanos > 0
    assert answer.receipt.cost_usd_nanos == lost.cost_usd_nanos + won.cost_usd_nanos
    charged = sum(each.receipt.cost_usd_nanos for each in (*before, answer))
    asked = budget_pb2.QueryUsageRequest(scope="organizations/acme", group_by=[budget_pb2.USAGE_GROUP_PROVIDER])
    async with asyncio.timeout(10):
        while sum(row.cost_usd_nanos for row in (await desk.ledger.QueryUsage(asked)).rows) != charged:
            await asyncio.sleep(0.02)
