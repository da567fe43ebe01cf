"""Performance through the router's stub: what calls leave behind, now and over a range."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import running_replay
from farthing_runtime.status import error_info, rich_status
from google.protobuf.timestamp_pb2 import Timestamp

SCOPE = "organizations/acme/workspaces/w"
CATALOG = """\
version: 1
providers:
  replay: {{base_url: "{url}", api_key_optional: true, retries: 0}}
  gone: {{base_url: "http://127.0.0.1:9/v1", api_key_optional: true, retries: 0}}
models:
  small: {{provider: replay, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
  large: {{provider: replay, price: {{input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "20"}}}}
  away: {{provider: gone, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "1"}}}}
routing: {{fallbacks: {{away: [small]}}}}
"""
RECORDINGS = Recordings(
    [
        Recorded("small", "question", "Press the green button, then wait a moment.", 10, 8),
        Recorded("large", "question", "Because the second clause overrides the first.", 100, 50),
    ]
)


@pytest.fixture
async def router(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setenv("FARTHING_ROUTER_PERFORMANCE_FLUSH_S", "0.02")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_replay(RECORDINGS, None))
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        channel_of = await stack.enter_async_context(api("router", config_file=path))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


async def ask(stub: Any, model: str, *, scope: str = SCOPE, task: str = "chat", stream: bool = False) -> None:
    messages = [chat_pb2.ChatMessage(role="user", content="question")]
    plan = router_pb2.PlanRouteRequest(scope=scope, messages=messages, task=task, model=model)
    route = (await stub.PlanRoute(plan)).route
    given: Any = {"request_id": str(uuid.uuid4()), "scope": scope, "route": route, "messages": messages, "task": task}
    if stream:
        async for _ in stub.StreamGenerate(router_pb2.StreamGenerateRequest(**given)):
            pass
    else:
        await stub.Generate(router_pb2.GenerateRequest(**given))


async def performances(stub: Any, attempts: int, **fields: Any) -> list[Any]:
    """How things do, once so many calls are counted."""
    async with asyncio.timeout(10):
        while True:
            answer = await stub.GetPerformance(router_pb2.GetPerformanceRequest(**{"scope": SCOPE, **fields}))
            if sum(each.attempts for each in answer.performances) >= attempts:
                return list(answer.performances)
            await asyncio.sleep(0.01)


async def test_calls_are_told_apart_by_provider_and_model_with_all_that_is_known_of_them(router: Any) -> None:
    for _ in range(3):
        await ask(router, "small")
    await ask(router, "large", stream=True)
    await ask(router, "away")
    found = {each.model: each for each in await performances(router, 6)}
    assert [found[name].provider for name in ("small", "large", "away")] == ["replay", "replay", "gone"]
    large, small, away = found["large"], found["small"], found["away"]
    assert (large.attempts, large.cost_usd_nanos) == (1, 100 * 10_000 + 50 * 20_000)
    assert large.cost_usd_nanos_per_thousand_tokens == -(-large.cost_usd_nanos * 1000 // 150)
    assert 0 < large.first_token_ms_p50 <= large.latency_ms_p50 <= large.latency_ms_p99 < 10_000
    assert large.output_tokens_per_s > 0
    assert (small.attempts, small.failures, small.input_tokens, small.output_tokens) == (4, 0, 40, 32)
    assert not small.HasField("first_token_ms_p50")
    assert (away.attempts, away.failures, away.error_rate, away.latency_ms_p50) == (1, 1, 1.0, 0)
    assert sum(away.failures_by_kind.values()) == 1
    assert next(iter(found)) == "large"


async def test_what_is_asked_for_is_filtered_and_grouped(router: Any) -> None:
    for task in ("chat", "chat", "ads"):
        await ask(router, "small", task=task)
    await ask(router, "large")
    by_task = await performances(router, 4, group_by=[router_pb2.PERFORMANCE_DIMENSION_TASK])
    assert {each.task: (each.attempts, each.model) for each in by_task} == {"chat": (3, ""), "ads": (1, "")}
    by_deployment = await performances(router, 3, model="small", group_by=[router_pb2.PERFORMANCE_DIMENSION_DEPLOYMENT])
    assert [(each.attempts, bool(each.deployment)) for each in by_deployment] == [(3, True)]
    assert not await performances(router, 0, provider="nobody")


async def test_case_35_another_organisations_calls_never_show_but_in_everybodys_sum(router: Any) -> None:
    await ask(router, "small")
    await ask(router, "large", scope="organizations/globex")
    assert [each.model for each in await performances(router, 1)] == ["small"]
    assert not await performances(router, 0, scope="organizations/acm")
    everybody = {each.model: each.attempts for each in await performances(router, 2, scope="")}
    assert everybody == {"small": 1, "large": 1}


def report(start_s: float, end_s: float, **fields: Any) -> Any:
    start, end = Timestamp(seconds=int(start_s)), Timestamp(seconds=int(end_s))
    return router_pb2.GetPerformanceReportRequest(scope=SCOPE, start_time=start, end_time=end, **fields)


async def test_a_report_says_step_by_step_what_the_whole_range_says(router: Any) -> None:
    for model in ("small", "small", "large"):
        await ask(router, model)
    await performances(router, 3)
    now = time.time()
    for step_h in (0, 1, 6, 24):
        answer = await router.GetPerformanceReport(report(now - 5 * 86_400, now + 86_400, step_h=step_h))
        assert {each.model: each.attempts for each in answer.total} == {"small": 2, "large": 1}
        steps = [each for step in answer.steps for each in step.performances]
        assert sum(each.cost_usd_nanos for each in steps) == sum(each.cost_usd_nanos for each in answer.total)
        assert all(step.start_time.seconds % 3600 == 0 for step in answer.steps)
    empty = await router.GetPerformanceReport(report(now - 90_000, now - 86_400))
    assert not empty.total
    assert not empty.steps


async def test_a_range_that_cannot_be_is_refused_and_names_its_field(router: Any) -> None:
    now = time.time() // 86_400 * 86_400
    for asked, field in (
        (report(now, now - 3600), "end_time"),
        (report(now - 86_400 * 300, now, step_h=1), "step_h"),
        (report(now - 86_400 * 60 + 3600, now), "start_time"),
        (report(now - 86_400 * 60, now - 86_400 * 50, step_h=12), "start_time"),
        (report(now - 86_400 * 60, now - 86_400 * 50 + 7200), "end_time"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.GetPerformanceReport(asked)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(rich_status(caught.value)).metadata["field"] == field
    assert not (await router.GetPerformanceReport(report(now - 86_400 * 60, now - 86_400 * 50, step_h=24))).steps
