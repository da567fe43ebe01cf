"""The router through its stub: the catalog, plans, prices, answers and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import Behaviour, running_replay
from farthing_runtime.status import error_info, rich_status

ID = "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1"
SCOPE = "organizations/acme"
CATALOG = """\
version: 1
providers: {{replay: {{base_url: "{url}", api_key_optional: true, retries: 1}}}}
models:
  small: {{provider: replay, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
  large: {{provider: replay, price: {{input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "20"}}}}
  unpriced: {{provider: replay}}
routing: {{cascades: [{{steps: [small, large]}}], fallbacks: {{small: [large]}}}}
"""
RECORDINGS = Recordings(
    [
        Recorded("small", "easy", "Press the green button, then wait a moment.", 10, 8),
        Recorded("small", "hard", "I'm not sure.", 10, 4),
        Recorded("large", "hard", "Because the second clause overrides the first.", 10, 8),
        Recorded("small", "only small", "I'm not sure.", 10, 4),
        Recorded("large", "only large", "The large model knows this one well enough.", 10, 8),
    ]
)


@pytest.fixture
async def router(api: Any, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        behaviour = getattr(request, "param", None)
        url = await stack.enter_async_context(running_replay(RECORDINGS, behaviour))
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        channel_of = await stack.enter_async_context(api("router", config_file=path))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


def conversation(prompt: str) -> list[Any]:
    return [chat_pb2.ChatMessage(role="user", content=prompt)]


async def planned(stub: Any, prompt: str, **fields: Any) -> Any:
    request = router_pb2.PlanRouteRequest(scope=SCOPE, messages=conversation(prompt), input_tokens={"o200k": 10}, **fields)
    return (await stub.PlanRoute(request)).route


async def generated(stub: Any, prompt: str, **fields: Any) -> Any:
    route = await planned(stub, prompt, **fields)
    return await stub.Generate(
        router_pb2.GenerateRequest(request_id=ID, scope=SCOPE, route=route, messages=conversation(prompt))
    )


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rich_status(error)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return info.reason


async def test_the_catalog_is_listed_page_by_page_with_prices_and_where_they_are_from(router: Any) -> None:
    first = await router.ListModels(router_pb2.ListModelsRequest(page_size=2))
    rest = await router.ListModels(router_pb2.ListModelsRequest(page_token=first.next_page_token))
    models = [*first.models, *rest.models]
    assert [model.model for model in models] == ["large", "small", "unpriced"]
    assert [model.price_source for model in models] == ["farthing.yaml", "farthing.yaml", ""]
    assert first.baseline_model == "large"


async def test_a_cascade_stops_early_or_escalates(router: Any) -> None:
    easy, hard = await generated(router, "easy"), await generated(router, "hard")
    assert (easy.model, easy.escalated, easy.cost_usd_nanos) == ("small", False, 10 * 1_000 + 8 * 2_000)
    assert (hard.model, hard.escalated, hard.cost_usd_nanos) == (
        "large",
        True,
        10 * 1_000 + 4 * 2_000 + 10 * 10_000 + 8 * 20_000,
    )
    assert [router_pb2.AttemptOutcome.Name(attempt.outcome)[16:] for attempt in hard.attempts] == ["REJECTED", "ACCEPTED"]
    assert easy.cost_usd_nanos <= (await planned(router, "easy")).worst_case_usd_nanos


async def test_a_stream_names_failed_attempts_speaks_and_ends_with_the_account(router: Any) -> None:
    route = await planned(router, "hard")
    request = router_pb2.StreamGenerateRequest(request_id=ID, scope=SCOPE, route=route, messages=conversation("hard"))
    events = [event async for event in router.StreamGenerate(request)]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "attempt"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"delta"}
    text = "".join(event.delta.content for event in events if event.WhichOneof("event") == "delta")
    assert text == events[-1].finished.answer.content == "Because the second clause overrides the first."


async def test_usage_is_priced_and_an_unknown_price_is_an_error(router: Any) -> None:
    usage = chat_pb2.TokenUsage(input_tokens=1_000_000, output_tokens=1)
    rated = await router.RateUsage(router_pb2.RateUsageRequest(model="small", usage=usage))
    assert (rated.cost_usd_nanos, rated.price_source) == (1_000_002_000, "farthing.yaml")
    for model, why in (("unpriced", "PRICE_UNKNOWN"), ("ghost", "MODEL_UNKNOWN")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.RateUsage(router_pb2.RateUsageRequest(model=model, usage=usage))
        assert reason(caught.value) == why


async def test_what_a_provider_refuses_is_passed_on_in_its_words(router: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generated(router, "never recorded", model="large")
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_REJECTED")
    assert "no recorded answer" in (caught.value.details() or "")


async def test_what_was_bought_is_delivered_and_charged_though_a_dearer_model_refuses_the_request(router: Any) -> None:
    answer = await generated(router, "only small")
    assert (answer.model, answer.cost_usd_nanos) == ("small", 10 * 1_000 + 4 * 2_000)
    assert [attempt.model for attempt in answer.attempts] == ["large", "small"]
    route = await planned(router, "only small")
    request = router_pb2.StreamGenerateRequest(request_id=ID, scope=SCOPE, route=route, messages=conversation("only small"))
    events = [event async for event in router.StreamGenerate(request)]
    assert events[-1].finished.cost_usd_nanos == 10 * 1_000 + 4 * 2_000


async def test_a_candidate_says_what_its_answer_costs_and_whether_anybody_bills_for_it(router: Any) -> None:
    small, large = (await planned(router, "easy")).candidates
    rates = [each.output_usd_nanos_per_million_tokens for each in (small, large)]
    assert (rates, small.hosted, large.hosted) == ([2 * 10**9, 20 * 10**9], True, True)
    assert small.worst_case_usd_nanos - small.output_tokens_max * 2_000 >= 10 * 1_000


@pytest.mark.parametrize("router", [Behaviour(fail_rate=1.0)], indirect=True)
async def test_when_everybody_fails_it_says_what_each_said(router: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generated(router, "easy", model="small")
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "ALL_ATTEMPTS_FAILED")
    assert "small:" in (caught.value.details() or "")
    assert "large:" in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda route: route.candidates[0].ClearField("role"), "role"),
        (lambda route: setattr(route.candidates[0], "model", "ghost"), "model"),
        (lambda route: route.ClearField("candidates"), "candidates"),
        (lambda route: setattr(route, "calls_max", 99), "calls_max"),
        (lambda route: setattr(route.candidates[0], "worst_case_usd_nanos", -1), "worst_case_usd_nanos"),
        (lambda route: setattr(route.candidates[0], "input_tokens", -(10**6)), "input_tokens"),
        (lambda route: setattr(route.candidates[0], "service_tier", "flex"), "service_tier"),
    ],
)
async def test_a_route_that_no_planner_made_is_refused(router: Any, change: Any, field: str) -> None:
    route = await planned(router, "easy")
    change(route)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.Generate(
            router_pb2.GenerateRequest(request_id=ID, scope=SCOPE, route=route, messages=conversation("easy"))
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")


@pytest.mark.parametrize("extra", ['{"n": 2}', '{"best_of": 3}'])
async def test_more_answers_than_one_are_refused_since_only_one_is_planned_and_paid_for(router: Any, extra: str) -> None:
    request = router_pb2.PlanRouteRequest(scope=SCOPE, messages=conversation("easy"))
    request.parameters.extra_json = extra
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.PlanRoute(request)
    assert "one answer a request" in (caught.value.details() or "")


@pytest.mark.parametrize("extra", ['{"service_tier": "batch"}', '{"service\\u005ftier": " Batch"}'])
async def test_nobody_is_charged_as_a_batch_for_what_is_answered_at_once(router: Any, extra: str) -> None:
    request = router_pb2.PlanRouteRequest(scope=SCOPE, messages=conversation("easy"))
    request.parameters.extra_json = extra
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.PlanRoute(request)
    assert "service_tier batch is bought where timeout_ms allows it" in (caught.value.details() or "")


async def test_json_fields_that_are_none_are_refused(router: Any) -> None:
    request = router_pb2.PlanRouteRequest(scope=SCOPE, messages=conversation("easy"))
    request.parameters.tools_json = "{"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.PlanRoute(request)
    assert "parameters.tools_json" in (caught.value.details() or "")
