"""Cases 28, 29 and 31 from the field, as far as deployments go. Case 30 is in tests/api/orchestrator/test_deployments.py."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.clock import ManualClock
from farthing_router.app import read_catalog
from farthing_router.catalog import parse_catalog
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.deployments.places import Place
from farthing_router.settings import Settings
from farthing_router.store.cooldowns_redis import RedisCooldowns
from farthing_router.upstreams import FailureKind, UpstreamFailed
from farthing_runtime.redis_client import open_redis
from farthing_runtime.settings import SettingsInvalid

from tests.fake_providers.dialects import OpenAI
from tests.fake_providers.server import FakeProvider

SCOPE = "organizations/acme"
PRICE = 'price: {input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}'


def catalog(port: int, deployments: str, *, retries: int = 5, more: str = "") -> str:
    return f"""\
version: 1
providers:
  p: {{base_url: "http://127.0.0.1:{port}/v1", api_key_optional: true, retries: {retries}, timeout_s: 1}}
models:
  m:
    {PRICE}
    deployments: [{deployments}]
    {more}
"""


@pytest.mark.parametrize(
    ("deployments", "more", "field"),
    [
        ("{provider: p}, {provider: p}", "", "models.m.deployments.1.name"),
        ("{provider: p, wieght: 3}", "", "models.m.deployments.0.wieght"),
        ("{provider: p, weight: -1}", "", "models.m.deployments.0.weight"),
        ("{provider: nobody}", "", "models.m.deployments.0.provider"),
        ("{provider: p, capabilities: [telepathy]}", "", "models.m.deployments.0.capabilities.0"),
        ("{provider: p}", "hedge: {quantile: 95}", "models.m.hedge.quantile"),
        ("{provider: p}", "tasks: {caption: {output_tokens_max: 5, tokens: 5}}", "models.m.tasks.caption.tokens"),
        ("", "", "models.m.provider"),
    ],
)
def test_case_28_a_mistake_about_a_deployment_is_a_start_up_error_that_names_the_field(
    tmp_path: Path, deployments: str, more: str, field: str
) -> None:
    path = tmp_path / "farthing.yaml"
    path.write_text(catalog(1, deployments, more=more))
    settings = Settings().model_copy(update={"config_file": path})
    with pytest.raises(SettingsInvalid) as caught:
        read_catalog(settings, lambda *_: None)
    assert caught.value.field == f"farthing.yaml: {field}"


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(OpenAI()).running() as running:
        yield running


async def planned(stub: Any) -> Any:
    messages = [chat_pb2.ChatMessage(role="user", content="what is it?")]
    plan = router_pb2.PlanRouteRequest(scope=SCOPE, model="m", messages=messages, input_tokens={"o200k": 10})
    return (await stub.PlanRoute(plan)).route


async def followed(stub: Any, route: Any) -> Any:
    messages = [chat_pb2.ChatMessage(role="user", content="what is it?")]
    request = router_pb2.GenerateRequest(request_id=str(uuid.uuid4()), scope=SCOPE, route=route, messages=messages)
    return await stub.Generate(request, timeout=20)


@pytest.mark.parametrize("calls_max", [1, 2, 5])
async def test_case_29_never_more_calls_than_the_route_allows_however_many_deployments_and_retries_there_are(
    suite: Any, tmp_path: Path, provider: FakeProvider, calls_max: int
) -> None:
    path = tmp_path / "farthing.yaml"
    path.write_text(
        catalog(provider.port, ", ".join(f"{{provider: p, name: d{n}, upstream_model: error-500}}" for n in range(4)))
    )
    async with suite("router", config_file=path) as running:
        stub = router_pb2_grpc.RouterServiceStub(running.mesh.channel("router"))
        route = await planned(stub)
        assert route.calls_max == 24
        route.calls_max = calls_max
        with pytest.raises(grpc.aio.AioRpcError, match="every attempt failed"):
            await followed(stub, route)
    assert len(provider.bodies) == calls_max


async def test_case_29_never_another_call_that_could_cost_more_than_the_request_may(
    suite: Any, tmp_path: Path, provider: FakeProvider
) -> None:
    path = tmp_path / "farthing.yaml"
    path.write_text(
        catalog(provider.port, ", ".join(f"{{provider: p, name: d{n}, upstream_model: garbage}}" for n in range(4)))
    )
    async with suite("router", config_file=path) as running:
        stub = router_pb2_grpc.RouterServiceStub(running.mesh.channel("router"))
        route = await planned(stub)
        route.cost_usd_nanos_max = 3 * route.candidates[0].worst_case_usd_nanos - 1
        with pytest.raises(grpc.aio.AioRpcError, match="could cost more than cost_usd_nanos_max leaves"):
            await followed(stub, route)
        # Nobody knows what an answer costs that was no answer: it counts as the most.
        assert len(provider.bodies) == 2


async def test_case_31_replicas_that_share_a_redis_rest_a_deployment_together(
    suite: Any, tmp_path: Path, provider: FakeProvider, redis_url: str
) -> None:
    path = tmp_path / "farthing.yaml"
    deployments = (
        "{provider: p, name: limited, upstream_model: error-429-and-when}, {provider: p, name: well, upstream_model: good}"
    )
    path.write_text(catalog(provider.port, deployments))
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(2):
            environment = {"FARTHING_ROUTER_COOLDOWNS_REFRESH_S": "0.05"}
            running = await stack.enter_async_context(
                suite("router", config_file=path, redis_url=redis_url, environment=environment)
            )
            stubs.append(router_pb2_grpc.RouterServiceStub(running.mesh.channel("router")))
        one, other = stubs
        while not any(body["model"] == "error-429-and-when" for body in provider.bodies):
            assert (await followed(one, await planned(one))).answer.content == "forty-two"
        async with asyncio.timeout(10):
            while (found := await health(other)).health != router_pb2.DEPLOYMENT_HEALTH_COOLING_DOWN:
                await asyncio.sleep(0.02)
        assert found.cooldown_reason == "cools down (rate_limited: 429: slow down)"
        assert found.HasField("cooldown_end_time")
        asked = len(provider.bodies)
        for _ in range(20):
            await followed(other, await planned(other))
        assert {body["model"] for body in provider.bodies[asked:]} == {"good"}


async def health(stub: Any) -> Any:
    found = await stub.GetModel(router_pb2.GetModelRequest(model="m"))
    return next(each for each in found.deployments if each.deployment == "limited")


async def test_case_31_the_longest_cooldown_wins_in_every_replica_and_ends_in_every_replica(redis_url: str) -> None:
    clock, replicas = ManualClock(), list[tuple[Cooldowns, Balancer]]()
    config = {
        "providers": {"p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True}},
        "models": {"m": {"deployments": [{"provider": "p", "name": name} for name in ("limited", "well")]}},
    }
    made = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
    async with AsyncExitStack() as stack:
        for seed in range(3):
            client = open_redis(redis_url, timeout_s=5.0)
            stack.push_async_callback(client.aclose)
            cooldowns = Cooldowns(clock=clock, store=RedisCooldowns(client, clock))
            replicas.append((cooldowns, Balancer(made, cooldowns=cooldowns, rng=Random(seed))))
        for (cooldowns, balancer), retry_after_s in zip(replicas, (20.0, 60.0, 5.0), strict=True):
            refused(balancer.places["limited"], clock, retry_after_s)
            await cooldowns.share()
        for cooldowns, _ in replicas:
            await cooldowns.share()
        clock.advance(59.9)
        assert [chosen(balancer, clock) for _, balancer in replicas] == [{"well"}] * 3
        clock.advance(0.2)
        for cooldowns, _ in replicas:
            await cooldowns.share()
        assert [chosen(balancer, clock) for _, balancer in replicas] == [{"limited", "well"}] * 3


def refused(place: Place, clock: ManualClock, retry_after_s: float) -> None:
    ticket = place.begin(clock.monotonic_s(), tokens=1, given_s=60.0)
    error = UpstreamFailed(what="slow down", retryable=True, retry_after_s=retry_after_s, kind=FailureKind.RATE_LIMITED)
    place.failed(ticket, clock.monotonic_s(), error)


def chosen(balancer: Balancer, clock: ManualClock) -> set[str]:
    places = balancer.of(balancer.catalog.model("m"))

    found = [balancer.choose(places, clock.monotonic_s(), tokens=1) for _ in range(40)]
    return {place.deployment.name for place in found if isinstance(place, Place)}
