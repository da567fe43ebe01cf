"""A batch as a deployment of a model, from farthing.yaml to the attempt that it is charged as."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc

from tests.fake_providers.batch_server import FakeBatchProvider

ID = "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1"
SCOPE = "organizations/acme"
CATALOG = """\
version: 1
providers:
  live: {{base_url: "http://127.0.0.1:9/v1", api_key_optional: true}}
  batches: {{base_url: "{url}/v1", api_key_optional: true, batch: {{linger_s: 0.05, poll_s: 0.05}}}}
models:
  small:
    deployments: [{{provider: live}}, {{provider: batches}}]
    price:
      input_usd_per_million_tokens: "1"
      output_usd_per_million_tokens: "2"
      service_tiers: {{batch: {{input_usd_per_million_tokens: "0.50", output_usd_per_million_tokens: "1"}}}}
routing: {{detect_capabilities: false}}
"""


@pytest.fixture
async def router(api: Any, tmp_path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(FakeBatchProvider().running())
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=f"http://127.0.0.1:{provider.port}"))
        channel_of = await stack.enter_async_context(api("router", config_file=path))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


async def test_an_answer_that_is_bought_in_a_batch_is_charged_at_half_the_price(router: Any) -> None:
    messages = [chat_pb2.ChatMessage(role="user", content="hello")]
    planned = await router.PlanRoute(
        router_pb2.PlanRouteRequest(scope=SCOPE, model="small", messages=messages, input_tokens={"o200k": 10})
    )
    candidate = planned.route.candidates[0]
    candidate.service_tier = "batch"
    candidate.ClearField("deployments")
    answer = await router.Generate(
        router_pb2.GenerateRequest(request_id=ID, scope=SCOPE, route=planned.route, messages=messages)
    )
    assert answer.answer.content == "hello"
    (attempt,) = answer.attempts
    assert (attempt.deployment, attempt.service_tier) == ("batches/small", "batch")
    assert attempt.cost_usd_nanos == 10 * 500 + 3 * 1000
