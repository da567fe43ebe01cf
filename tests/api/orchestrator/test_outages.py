"""What a request costs is not lost with the ledger's database: its settlement waits for it, beside the answer that was delivered."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_runtime.postgres import Cluster

ORGANIZATION = "organizations/acme"
SCOPE = f"{ORGANIZATION}/workspaces/search/projects/ranker/users/ann"
EVERYTHING = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
CATALOG = """\
version: 1
providers:
  own: {{base_url: "{url}/v1", api_key_optional: true}}
models:
  only: {{provider: own, tier: free, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
"""
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "only",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Press Reset."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
}


@asynccontextmanager
async def provider(meanwhile: Callable[[], None]) -> AsyncIterator[str]:
    """A provider in whose calls something happens."""

    async def chat(request: web.Request) -> web.Response:
        await asyncio.to_thread(meanwhile)
        return web.Response(text=json.dumps(ANSWER), content_type="application/json")

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def server(session_dir: Path) -> AsyncIterator[Cluster]:
    """A Postgres of this test's own."""
    cluster = Cluster(session_dir / f"orc-{uuid.uuid4().hex[:8]}")
    with cluster.in_use():
        await asyncio.to_thread(cluster.start)
        yield cluster
        await asyncio.to_thread(cluster.stop_if_last)


async def until_settled(stub: Any, budget_id: str, cost: int) -> None:
    """Returns when a budget says that so much is spent and nothing held."""
    asked = budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget_id)
    async with asyncio.timeout(60):
        while True:
            try:
                found = (await stub.GetBudget(asked)).budget
                if (found.spent_usd_nanos, found.held_usd_nanos) == (cost, 0):
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.05)


async def test_case_9_an_answer_that_was_bought_while_the_database_went_is_delivered_and_settled_when_it_is_back(
    suite: Any, server: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "farthing.yaml"
    async with provider(server.stop_if_last) as url:
        path.write_text(CATALOG.format(url=url))
        async with suite(*EVERYTHING, database_url=server.url("farthing"), config_file=path) as running:
            ledger = budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))
            orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(running.mesh.channel("orchestrator"))
            create = budget_pb2.CreateBudgetRequest(
                request_id=str(uuid.uuid4()), scope=ORGANIZATION, period=budget_pb2.PERIOD_YEAR, limit_usd_nanos=10**12
            )
            budget_id = (await ledger.CreateBudget(create)).budget.budget_id
            request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=SCOPE, model="only")
            request.messages.add(role="user", content="How do I reset my password?")
            answer = await orchestrator.Complete(request, timeout=60.0)
            assert answer.answer.content == "Press Reset."
            assert answer.receipt.cost_usd_nanos == 100 * 1_000 + 20 * 2_000
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ledger.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget_id))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await asyncio.to_thread(server.start)
            await until_settled(ledger, budget_id, answer.receipt.cost_usd_nanos)
            assert not (await ledger.VerifyLedger(budget_pb2.VerifyLedgerRequest(scope=ORGANIZATION))).differences
