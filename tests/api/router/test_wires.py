"""A model on each wire, from farthing.yaml to an answer with its cost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc

from tests.fake_providers.dialects import Anthropic, Azure, Cohere, OpenAI
from tests.fake_providers.server import FakeProvider

ID = "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1"
SCOPE = "organizations/acme"
WIRES = {"openai": (OpenAI, "/v1"), "azure": (Azure, ""), "anthropic": (Anthropic, ""), "cohere": (Cohere, "")}
COST_USD_NANOS = 10 * 1000 + 3 * 2000


@pytest.fixture
async def router(api: Any, tmp_path: Path) -> AsyncIterator[Any]:
    providers, models = {}, {}
    price = {
        "input_usd_per_million_tokens": "1",
        "output_usd_per_million_tokens": "2",
        "cached_input_usd_per_million_tokens": "1",
    }
    async with AsyncExitStack() as stack:
        for wire, (dialect, path) in WIRES.items():
            provider = await stack.enter_async_context(FakeProvider(dialect()).running())
            url = f"http://127.0.0.1:{provider.port}{path}"
            providers[wire] = {"wire": wire, "base_url": url, "api_key_optional": True, "retries": 0}
            for behaviour in ("good", "tools", "error-401", "too-long"):
                window = 8192 if behaviour == "too-long" else 128_000
                models[f"{wire}-{behaviour}"] = {
                    "provider": wire,
                    "upstream_model": behaviour,
                    "price": price,
                    "context_window_tokens": window,
                }
        written = tmp_path / "farthing.yaml"
        written.write_text(json.dumps({"version": 1, "providers": providers, "models": models}))
        channel_of = await stack.enter_async_context(api("router", config_file=written))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


async def asked(stub: Any, model: str, *others: str) -> Any:
    messages = [chat_pb2.ChatMessage(role="user", content="what is it?")]
    request = router_pb2.PlanRouteRequest(scope=SCOPE, messages=messages, input_tokens={"o200k": 10}, model=model)
    route = (await stub.PlanRoute(request)).route
    for other in others:
        candidate = route.candidates.add()
        candidate.CopyFrom(route.candidates[0])
        candidate.model, candidate.role = other, router_pb2.CANDIDATE_ROLE_FALLBACK
        candidate.ClearField("deployments")
        route.calls_max += 1
        route.worst_case_usd_nanos += candidate.worst_case_usd_nanos
    return {"request_id": ID, "scope": SCOPE, "route": route, "messages": messages}


@pytest.mark.parametrize("wire", WIRES)
async def test_every_wire_answers_and_streams_and_is_charged(router: Any, wire: str) -> None:
    given = await asked(router, f"{wire}-good")
    answer = await router.Generate(router_pb2.GenerateRequest(**given))
    assert (answer.answer.content, answer.cost_usd_nanos) == ("forty-two", COST_USD_NANOS)
    events = [event async for event in router.StreamGenerate(router_pb2.StreamGenerateRequest(**given))]
    assert [event.delta.content for event in events if event.HasField("delta")] == ["forty", "-two"]
    assert events[-1].finished.cost_usd_nanos == COST_USD_NANOS


@pytest.mark.parametrize("wire", WIRES)
async def test_every_wire_calls_tools(router: Any, wire: str) -> None:
    answer = await router.Generate(router_pb2.GenerateRequest(**await asked(router, f"{wire}-tools")))
    calls = json.loads(answer.answer.extra_json)["tool_calls"]
    assert (answer.answer.finish_reason, [each["function"]["name"] for each in calls]) == ("tool_calls", ["weather", "time"])


@pytest.mark.parametrize("fault", ["error-401", "too-long"])
@pytest.mark.parametrize("wire", WIRES)
async def test_what_is_wrong_with_one_deployment_fails_over_to_another_wire(router: Any, wire: str, fault: str) -> None:
    other = "cohere-good" if wire == "openai" else "openai-good"
    answer = await router.Generate(router_pb2.GenerateRequest(**await asked(router, f"{wire}-{fault}", other)))
    assert (answer.answer.content, answer.model) == ("forty-two", other)
    assert len(answer.attempts) == 2
