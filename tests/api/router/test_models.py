"""Models and deployments through the router's stub: how they are doing, and being told to do otherwise."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.protobuf.field_mask_pb2 import FieldMask

from tests.fake_providers.dialects import OpenAI
from tests.fake_providers.server import FakeProvider

SCOPE = "organizations/acme"
CATALOG = """\
version: 1
providers:
  one: {{base_url: "http://name:secret@127.0.0.1:{port}/v1", api_key_optional: true, retries: 0}}
  two: {{base_url: "http://127.0.0.1:{port}/v1", api_key_optional: true, retries: 0}}
models:
  m:
    price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}
    deployments:
      - {{name: sick, provider: one, upstream_model: error-401, region: eu, weight: 9, capabilities: [json, vision]}}
      - {{name: well, provider: two, upstream_model: good, weight: 1}}
    tasks: {{caption: {{output_tokens_max: 20}}}}
  other: {{provider: two, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
routing: {{fallbacks: {{m: [other]}}}}
"""


@pytest.fixture
async def router(api: Any, tmp_path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(FakeProvider(OpenAI()).running())
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(port=provider.port))
        channel_of = await stack.enter_async_context(api("router", config_file=path))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


async def answered(stub: Any) -> Any:
    messages = [chat_pb2.ChatMessage(role="user", content="what is it?")]
    plan = router_pb2.PlanRouteRequest(scope=SCOPE, model="m", messages=messages, input_tokens={"o200k": 10})
    route = (await stub.PlanRoute(plan)).route
    request = router_pb2.GenerateRequest(request_id=str(uuid.uuid4()), scope=SCOPE, route=route, messages=messages)
    return await stub.Generate(request)


async def shown(stub: Any) -> dict[str, Any]:
    found = await stub.GetModel(router_pb2.GetModelRequest(model="m"))
    return {each.deployment: each for each in found.deployments}


def update(deployment: str, *paths: str, **fields: Any) -> Any:
    return router_pb2.UpdateDeploymentRequest(
        request_id=str(uuid.uuid4()),
        deployment=router_pb2.Deployment(deployment=deployment, **fields),
        update_mask=FieldMask(paths=paths),
    )


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return caught.value.code(), info.reason


async def test_a_model_is_shown_with_its_deployments_and_how_they_are_doing(router: Any) -> None:
    found = await router.GetModel(router_pb2.GetModelRequest(model="m"))
    assert (found.model.model, found.model.deployments, list(found.fallbacks)) == ("m", 2, ["other"])
    assert dict(found.model.output_tokens_max_by_task) == {"caption": 20}
    assert sorted(found.model.capabilities) == ["json", "streaming", "vision"]
    sick, well = found.deployments
    assert (sick.provider, sick.region, sick.weight, sick.wire, list(sick.capabilities)) == (
        "one",
        "eu",
        9,
        "openai",
        ["json", "vision"],
    )
    assert sick.host.startswith("127.0.0.1:")
    assert "secret" not in str(found)
    assert sick.health == well.health == router_pb2.DEPLOYMENT_HEALTH_HEALTHY
    assert not well.HasField("latency_ms")
    for _ in range(20):
        answer = await answered(router)
        assert answer.answer.content == "forty-two"
    sick, well = (await shown(router)).values()
    assert (sick.health, sick.cooldown_reason) == (
        router_pb2.DEPLOYMENT_HEALTH_OPEN,
        "its circuit is open (auth: 401: bad key)",
    )
    assert sick.HasField("cooldown_end_time")
    assert (well.health, well.requests_remaining, well.price_source) == (
        router_pb2.DEPLOYMENT_HEALTH_HEALTHY,
        59,
        "farthing.yaml",
    )
    assert well.HasField("latency_ms")
    assert await refused(router.GetModel(router_pb2.GetModelRequest(model="ghost"))) == (
        grpc.StatusCode.NOT_FOUND,
        "MODEL_UNKNOWN",
    )


async def test_a_deployment_is_taken_out_of_use_and_back_and_weighed_anew(router: Any) -> None:
    changed = (await router.UpdateDeployment(update("sick", enabled=False, weight=2.5))).deployment
    assert (changed.weight, changed.enabled, changed.health) == (2.5, False, router_pb2.DEPLOYMENT_HEALTH_DISABLED)
    for _ in range(10):
        assert [each.deployment for each in (await answered(router)).attempts] == ["well"]
    assert await refused(router.UpdateDeployment(update("well", "enabled"))) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LAST_DEPLOYMENT",
    )
    changed = (await router.UpdateDeployment(update("sick", "enabled", enabled=True))).deployment
    assert (changed.weight, changed.enabled) == (2.5, True)
    again = update("sick", "weight", weight=4)
    await router.UpdateDeployment(again)
    await router.UpdateDeployment(again)
    assert (await shown(router))["sick"].weight == 4


async def test_what_cannot_be_said_of_a_deployment_is_refused(router: Any) -> None:
    asked = update("sick", "weight", weight=4)
    await router.UpdateDeployment(asked)
    asked.deployment.weight = 5
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert await refused(router.UpdateDeployment(asked)) == (invalid, "REQUEST_ID_REUSED")
    assert await refused(router.UpdateDeployment(update("ghost", "enabled"))) == (
        grpc.StatusCode.NOT_FOUND,
        "DEPLOYMENT_UNKNOWN",
    )
    assert (await refused(router.UpdateDeployment(update("sick", "health"))))[0] is invalid
    assert (await refused(router.UpdateDeployment(update("sick", "weight", weight=-1))))[0] is invalid
