"""What a provider reports of its usage stands in the ledger's row, kind by kind, with where each figure is from."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc

EVERYTHING = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
CATALOG = """\
version: 1
providers: {{p: {{base_url: "{url}", api_key_optional: true, retries: 0}}}}
models:
  m: {{provider: p, price: {{input_usd_per_million_tokens: "2", output_usd_per_million_tokens: "8"}}}}
  unpriced: {{provider: p}}
routing: {{baseline_model: m, unknown_price: upper_bound}}
"""
USAGE = {
    "prompt_tokens": 5000,
    "completion_tokens": 800,
    "prompt_tokens_details": {"cached_tokens": 2048, "cache_write_tokens": 1000, "audio_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 512, "audio_tokens": 20},
}


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        prompt = (await request.json())["messages"][0]["content"]
        message = {"role": "assistant", "content": "Open Settings, choose Security, and press Reset password."}
        reported = {} if "silent" in prompt else {"usage": USAGE, "service_tier": "flex"}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **reported})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def settled(database_url: str, request_id: str) -> Any:
    """The ledger's row of a request, once it is there: answers do not wait for it."""
    connection = await asyncpg.connect(database_url)
    try:
        for _ in range(1_000):
            row = await connection.fetchrow("SELECT * FROM budget.usage WHERE request_id = $1::text::uuid", request_id)
            if row is not None:
                return row
            await asyncio.sleep(0.01)
    finally:
        await connection.close()
    raise AssertionError("nothing was settled in 10 s")


@pytest.mark.parametrize("model", ["m", "unpriced"])
async def test_every_kind_of_token_and_an_unknown_price_reach_the_ledger(
    api: Any, tmp_path: Path, database_url: str, model: str
) -> None:
    async with provider() as url:
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        async with api(*EVERYTHING, config_file=path) as channel_of:
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
            request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope="organizations/acme", model=model)
            request.messages.add(role="user", content="How do I reset my password?")
            answered = await stub.Complete(request)
            row = await settled(database_url, request.request_id)
    factor = 2 if model == "unpriced" else 1
    sent = (5000 - 2048 - 1000 - 30) * 2000 + 2048 * 2000 + 1000 * 2500 + 30 * 60 * 2000
    said = (800 - 20) * 8000 + 20 * 60 * 8000
    assert row["cost_usd_nanos"] == answered.receipt.cost_usd_nanos == factor * (sent + said)
    assert (row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]) == (5000, 2048, 800)
    assert (row["cache_write_5m_tokens"], row["cache_write_1h_tokens"], row["reasoning_tokens"]) == (1000, 0, 512)
    assert (row["audio_input_tokens"], row["audio_output_tokens"]) == (30, 20)
    assert (row["service_tier"], row["price_unknown"], row["tokens_source"]) == ("flex", True, 1)
    assert row["price_source"] == ("upper bound" if model == "unpriced" else "farthing.yaml")


async def test_usage_that_nobody_reported_is_marked_as_an_estimate(api: Any, tmp_path: Path, database_url: str) -> None:
    async with provider() as url:
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        async with api(*EVERYTHING, config_file=path) as channel_of:
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
            request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope="organizations/acme", model="m")
            request.messages.add(role="user", content="Be silent about your usage.")
            await stub.Complete(request)
            row = await settled(database_url, request.request_id)
    assert (row["tokens_source"], row["price_unknown"], row["service_tier"]) == (3, False, "")
    assert row["output_tokens"] > 0


async def test_an_estimate_and_a_bill_are_at_the_price_of_the_contract(api: Any, tmp_path: Path) -> None:
    async with provider() as url:
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        async with api(*EVERYTHING, config_file=path) as channel_of:
            price = router_pb2.Price(scope="organizations/acme", provider="p", discount_bps=5000, source="contract 7")
            price.effective_time.FromJsonString("2026-01-01T00:00:00Z")
            router = router_pb2_grpc.RouterServiceStub(channel_of("router"))
            await router.UpsertPrice(router_pb2.UpsertPriceRequest(request_id=str(uuid.uuid4()), price=price))
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
            worst, paid, baseline = [], [], []
            for organization in ("acme", "other"):
                request = orchestrator_pb2.CompleteRequest(
                    request_id=str(uuid.uuid4()), scope=f"organizations/{organization}", model="m"
                )
                request.messages.add(role="user", content="How do I reset my password?")
                estimate = await stub.EstimateCost(orchestrator_pb2.EstimateCostRequest(request=request))
                worst.append(estimate.worst_case_usd_nanos)
                receipt = (await stub.Complete(request)).receipt
                paid.append(receipt.cost_usd_nanos)
                baseline.append(receipt.baseline_usd_nanos)
    # What would have been paid without Farthing, the contract would have been taken off as well.
    assert [2 * each[0] for each in (worst, paid, baseline)] == [each[1] for each in (worst, paid, baseline)]
    assert baseline[0] > 0


async def test_case_4_the_alert_of_an_unknown_price_comes(api: Any, tmp_path: Path) -> None:
    async with provider() as url:
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        quick = {"FARTHING_BUDGET_ALERT_POLL_S": "0.05"}
        async with api(*EVERYTHING, config_file=path, environment=quick) as channel_of:
            ledger = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
            await ledger.CreateAlertRule(
                budget_pb2.CreateAlertRuleRequest(
                    request_id=str(uuid.uuid4()), scope="organizations/acme", kind=budget_pb2.ALERT_KIND_PRICE_UNKNOWN
                )
            )
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
            request = orchestrator_pb2.CompleteRequest(
                request_id=str(uuid.uuid4()), scope="organizations/acme", model="unpriced"
            )
            request.messages.add(role="user", content="How do I reset my password?")
            await stub.Complete(request)
            for _ in range(1_000):
                alerts = (await ledger.ListAlerts(budget_pb2.ListAlertsRequest(scope="organizations/acme"))).alerts
                if alerts:
                    break
                await asyncio.sleep(0.01)
    assert [(alert.kind, "unpriced" in alert.message) for alert in alerts] == [(budget_pb2.ALERT_KIND_PRICE_UNKNOWN, True)]
