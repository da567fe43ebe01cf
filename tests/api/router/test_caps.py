"""Case 29: fan-out, retries and escalation are capped per request, in calls and in cost. A provider counts what reaches it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc

SCOPE = "organizations/acme"
CATALOG = """\
version: 1
providers: {{p: {{base_url: "{url}", api_key_optional: true, retries: 5}}}}
models:
  one: {{provider: p, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "1"}}}}
  two: {{provider: p, price: {{input_usd_per_million_tokens: "2", output_usd_per_million_tokens: "2"}}}}
  three: {{provider: p, price: {{input_usd_per_million_tokens: "4", output_usd_per_million_tokens: "4"}}}}
  four: {{provider: p, price: {{input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "10"}}}}
  spare: {{provider: p, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "1"}}}}
routing:
  cascades: [{{steps: [one, three, four], agreement: [one, two], calls_max: 20}}]
  fallbacks: {{four: [spare]}}
"""


class Provider:
    """Answers with doubt, so that everything escalates, or fails, so that everything is tried again."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.fails = False

    async def chat(self, request: web.Request) -> web.Response:
        """`POST /v1/chat/completions`."""
        model = (await request.json())["model"]
        self.calls[model] += 1
        if self.fails:
            return web.json_response({"error": {"message": "overloaded"}}, status=503, headers={"retry-after": "0"})
        message = {"role": "assistant", "content": f"I'm not sure, but {model} it is."}
        usage = {"prompt_tokens": 10, "completion_tokens": 10}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})


@pytest.fixture
def capped(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts the router in front of a provider that counts: `async with capped() as (router, provider):`."""

    @asynccontextmanager
    async def host() -> AsyncIterator[tuple[Any, Provider]]:
        provider, application = Provider(), web.Application()
        application.router.add_post("/v1/chat/completions", provider.chat)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1"))
        try:
            async with api("router", config_file=path) as channel_of:
                yield router_pb2_grpc.RouterServiceStub(channel_of("router")), provider
        finally:
            await runner.cleanup()

    return host


async def planned(router: Any, **caps: int) -> Any:
    messages = [chat_pb2.ChatMessage(role="user", content="Which one?")]
    parameters = chat_pb2.Parameters(output_tokens_max=100)
    request = router_pb2.PlanRouteRequest(
        scope=SCOPE, messages=messages, parameters=parameters, input_tokens={"o200k": 10}, **caps
    )
    route = (await router.PlanRoute(request)).route
    given = {"request_id": str(uuid.uuid4()), "scope": SCOPE, "route": route, "messages": messages, "parameters": parameters}
    return router_pb2.GenerateRequest(**given)


@pytest.mark.parametrize("calls_max", [1, 2, 3, 4])
async def test_case_29_no_more_calls_are_made_than_a_request_may_make(capped: Any, calls_max: int) -> None:
    async with capped() as (router, provider):
        answered = await router.Generate(await planned(router, calls_max=calls_max))
        assert provider.calls.total() == len(answered.attempts) <= calls_max
        provider.fails = True
        provider.calls.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.Generate(await planned(router, calls_max=calls_max))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert 1 <= provider.calls.total() <= calls_max


async def test_case_29_nothing_is_bought_that_could_cost_more_than_a_request_may_cost(capped: Any) -> None:
    async with capped() as (router, provider):
        free = await planned(router)
        worst = {each.model: each.worst_case_usd_nanos for each in free.route.candidates}
        everything = await router.Generate(free)
        assert [attempt.model for attempt in everything.attempts] == ["one", "two", "three", "four"]
        provider.calls.clear()
        capped_route = await planned(router)
        cap = worst["one"] + worst["two"] + worst["three"]
        capped_route.route.cost_usd_nanos_max = cap
        answered = await router.Generate(capped_route)
        assert set(provider.calls) == {"one", "two", "three"}
        assert answered.cost_usd_nanos <= cap
        assert "four: another call could cost more than cost_usd_nanos_max leaves" in answered.reason


async def test_case_29_retries_and_fallbacks_stay_within_the_cost_too(capped: Any) -> None:
    async with capped() as (router, provider):
        provider.fails = True
        asked = await planned(router)
        worst = {each.model: each.worst_case_usd_nanos for each in asked.route.candidates}
        asked.route.cost_usd_nanos_max = max(worst["one"], worst["two"]) - 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.Generate(asked)
        assert set(provider.calls) <= {"one", "spare"}
        assert "another call could cost more than cost_usd_nanos_max leaves" in str(caught.value.details())
