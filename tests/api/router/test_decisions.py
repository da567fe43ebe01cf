"""The decision log through the router's stub: what Generate leaves behind, listed and summed up."""

from __future__ import annotations

import asyncio
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
providers: {{replay: {{base_url: "{url}", api_key_optional: true, retries: 0}}}}
models:
  small: {{provider: replay, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
  large: {{provider: replay, price: {{input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "20"}}}}
routing: {{cascades: [{{steps: [small, large]}}]}}
"""
RECORDINGS = Recordings(
    [
        Recorded("small", "easy", "Press the green button, then wait a moment.", 10, 8),
        Recorded("small", "hard", "I'm not sure.", 10, 4),
        Recorded("large", "hard", "Because the second clause overrides the first.", 10, 8),
    ]
)


@pytest.fixture
async def router(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setenv("FARTHING_ROUTER_DECISIONS_FLUSH_S", "0.02")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_replay(RECORDINGS, None))
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        channel_of = await stack.enter_async_context(api("router", config_file=path))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


async def asked(stub: Any, prompt: str, *, scope: str = SCOPE, **fields: Any) -> str:
    """Plans and follows a route; its request_id."""
    messages, request_id = [chat_pb2.ChatMessage(role="user", content=prompt)], str(uuid.uuid4())
    task = fields.get("task", "chat")
    plan = router_pb2.PlanRouteRequest(scope=scope, messages=messages, task=task, model=fields.pop("model", ""))
    route = (await stub.PlanRoute(plan)).route
    given = {"request_id": request_id, "scope": scope, "route": route, "messages": messages, **fields, "task": task}
    if fields.get("stream"):
        del given["stream"]
        async for _ in stub.StreamGenerate(router_pb2.StreamGenerateRequest(**given)):
            pass
    else:
        await stub.Generate(router_pb2.GenerateRequest(**given))
    return request_id


async def listed(stub: Any, count: int, *, scope: str = SCOPE, **filters: Any) -> list[Any]:
    """Decisions, once so many are written down."""
    async with asyncio.timeout(10):
        while True:
            page = await stub.ListDecisions(router_pb2.ListDecisionsRequest(scope=scope, **filters))
            if len(page.decisions) >= count:
                return list(page.decisions)
            await asyncio.sleep(0.01)


async def test_every_followed_route_becomes_a_decision(router: Any) -> None:
    easy = await asked(router, "easy")
    hard = await asked(router, "hard", stream=True)
    shadow = await asked(router, "easy", shadow_of=easy, model="small")
    with pytest.raises(grpc.aio.AioRpcError):
        await asked(router, "nobody recorded this", task="ads")
    by_id = {each.request_id: each for each in await listed(router, 4)}
    assert by_id[easy].served_model == "small"
    assert (by_id[easy].strategy, by_id[easy].outcome, by_id[easy].attempts) == ("cascade", "answered: good enough", 1)
    assert list(by_id[easy].candidates) == ["small", "large"]
    assert by_id[easy].confidence >= 0.7
    assert (by_id[hard].served_model, by_id[hard].escalated, by_id[hard].attempts) == ("large", True, 2)
    assert by_id[hard].cost_usd_nanos == 10 * 1_000 + 4 * 2_000 + 10 * 10_000 + 8 * 20_000
    assert (by_id[shadow].shadow_of, by_id[shadow].strategy, by_id[shadow].requested_model) == (easy, "fixed", "small")
    (failed,) = await listed(router, 1, task="ads")
    assert failed.served_model == ""
    assert not failed.HasField("confidence")
    assert {each.request_id for each in await listed(router, 2, request_id=easy)} == {easy, shadow}
    assert [each.request_id for each in await listed(router, 1, model="large")] == [hard]


async def test_a_caller_who_leaves_is_written_down_too(router: Any) -> None:
    messages = [chat_pb2.ChatMessage(role="user", content="easy")]
    route = (await router.PlanRoute(router_pb2.PlanRouteRequest(scope=SCOPE, messages=messages, model="small"))).route
    call = router.StreamGenerate(
        router_pb2.StreamGenerateRequest(request_id=str(uuid.uuid4()), scope=SCOPE, route=route, messages=messages)
    )
    async for _ in call:
        call.cancel()
        break
    (made,) = await listed(router, 1)
    assert made.outcome in ("the caller left", "answered")


async def test_pages_are_whole_and_a_token_belongs_to_its_question(router: Any) -> None:
    ids = [await asked(router, "easy") for _ in range(5)]
    await listed(router, 5)
    request, seen = router_pb2.ListDecisionsRequest(scope=SCOPE, page_size=2, strategy="cascade"), []
    while True:
        page = await router.ListDecisions(request)
        seen += [each.request_id for each in page.decisions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == ids[::-1]
    for other in ({"strategy": "fixed"}, {"strategy": "cascade", "scope": "organizations/acme"}, {"page_token": "x" * 40}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.ListDecisions(
                router_pb2.ListDecisionsRequest(**{"scope": SCOPE, "page_token": request.page_token, **other})
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(rich_status(caught.value)).metadata["field"] == "page_token"


async def test_decisions_are_summed_up_by_what_decided_and_what_came_of_it(router: Any) -> None:
    for prompt in ("easy", "easy", "hard"):
        await asked(router, prompt)
    await asked(router, "easy", model="small")
    await listed(router, 4)
    asking = router_pb2.SummarizeDecisionsRequest(
        scope="organizations/acme",
        group_by=[router_pb2.DECISION_DIMENSION_STRATEGY, router_pb2.DECISION_DIMENSION_SERVED_MODEL],
    )
    found = (await router.SummarizeDecisions(asking)).summaries
    shares = {(each.strategy, each.served_model): (each.decisions, each.share, each.escalated_share) for each in found}
    assert shares == {("cascade", "small"): (2, 0.5, 0), ("cascade", "large"): (1, 0.25, 1), ("fixed", "small"): (1, 0.25, 0)}
    large = next(each for each in found if each.served_model == "large")
    assert large.mean_cost_usd_nanos == large.cost_usd_nanos == 10 * 1_000 + 4 * 2_000 + 10 * 10_000 + 8 * 20_000
    hourly = await router.SummarizeDecisions(router_pb2.SummarizeDecisionsRequest(scope="organizations/acme", step_h=1))
    assert sum(each.decisions for each in hourly.summaries) == 4


async def test_an_opinion_on_an_answer_is_seen_on_its_decision_and_in_the_sums(router: Any) -> None:
    request_id = await asked(router, "easy")
    await listed(router, 1)
    opinion = {"request_id": str(uuid.uuid4()), "answered_request_id": request_id, "scope": SCOPE, "score": 0.25}
    await router.RecordFeedback(router_pb2.RecordFeedbackRequest(source=router_pb2.FEEDBACK_SOURCE_TRUTH, **opinion))
    async with asyncio.timeout(10):
        while (await listed(router, 1))[0].quality != 0.25:
            await asyncio.sleep(0.01)
    (summed,) = (await router.SummarizeDecisions(router_pb2.SummarizeDecisionsRequest(scope="organizations/acme"))).summaries
    assert (summed.mean_quality, summed.quality_answers) == (0.25, 1)


async def test_case_35_another_organisations_decisions_never_show(router: Any) -> None:
    request_id = await asked(router, "easy")
    await listed(router, 1)
    for filters in ({}, {"request_id": request_id}, {"model": "small"}):
        request = router_pb2.ListDecisionsRequest(scope="organizations/globex", **filters)
        assert not (await router.ListDecisions(request)).decisions
    summed = await router.SummarizeDecisions(router_pb2.SummarizeDecisionsRequest(scope="organizations/globex"))
    assert not summed.summaries
    for forged in ("", "organizations/acme/../globex", "organizations/acme/workspaces/w"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.SummarizeDecisions(router_pb2.SummarizeDecisionsRequest(scope=forged))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_range_that_ends_before_it_starts_or_has_too_many_steps_is_refused(router: Any) -> None:
    start, end = moment(2_000_000_000), moment(1_900_000_000)
    for asking in ({"start_time": start, "end_time": end}, {"start_time": end, "end_time": start, "step_h": 1}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.SummarizeDecisions(router_pb2.SummarizeDecisionsRequest(scope="organizations/acme", **asking))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def moment(seconds: int) -> Any:
    return Timestamp(seconds=seconds)
