"""Complete, StreamComplete and EstimateCost on the real services, over both transports."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_runtime.replay.server import Behaviour
from farthing_runtime.status import error_info, rich_status

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
ALIKE, EASY, GOOD, HARD, PERSONAL, SCOPE = _suite.ALIKE, _suite.EASY, _suite.GOOD, _suite.HARD, _suite.PERSONAL, _suite.SCOPE
complete_request = _suite.complete_request

ORGANIZATION = "organizations/acme"
SMALL = 100 * 150 + 20 * 600
LARGE = 100 * 5_000 + 20 * 15_000


def stub(channel_of: Any) -> Any:
    return orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rich_status(error)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return info.reason


def balanced(receipt: Any) -> bool:
    saving = receipt.saving
    total = saving.cache_usd_nanos + saving.prompt_usd_nanos + saving.route_usd_nanos
    return bool(receipt.cost_usd_nanos + total == receipt.baseline_usd_nanos)


async def until_settled(channel_of: Any, requests: int) -> Any:
    """The ledger's sums, once so many requests are written down."""
    budget = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
    async with asyncio.timeout(10):
        while True:
            rows = (await budget.QueryUsage(budget_pb2.QueryUsageRequest(scope=ORGANIZATION))).rows
            if rows and rows[0].requests >= requests:
                return rows[0]
            await asyncio.sleep(0.02)


async def until_stored(channel_of: Any, request: Any) -> Any:
    """The answer to a request once the cache has it: not only from who bought it just now."""
    async with asyncio.timeout(10):
        while True:
            request.request_id = str(uuid.uuid4())
            answer = await stub(channel_of).Complete(request)
            joined = answer.receipt.caching.joined
            if answer.receipt.cache_outcome != cache_pb2.LOOKUP_OUTCOME_MISS and not joined:
                return answer
            await asyncio.sleep(0.02)


async def test_a_cheap_answer_that_is_good_enough_is_taken_and_the_saving_itemised(whole: Any) -> None:
    async with whole() as channel_of:
        answer = await stub(channel_of).Complete(complete_request(EASY))
        receipt = answer.receipt
        assert (answer.model, answer.answer.content) == ("small", GOOD)
        assert receipt.cost_usd_nanos == SMALL
        assert receipt.baseline_model == "large"
        assert balanced(receipt)
        assert not receipt.escalated
        names = [orchestrator_pb2.StepName.Name(step.name).removeprefix("STEP_NAME_").lower() for step in receipt.steps]
        assert names == ["admit", "mask", "look_up", "shape", "plan", "reserve", "generate", "settle", "remember", "unmask"]
        assert (await until_settled(channel_of, 1)).cost_usd_nanos == SMALL


async def test_a_hedging_answer_escalates_and_both_are_charged(whole: Any) -> None:
    async with whole() as channel_of:
        answer = await stub(channel_of).Complete(complete_request(HARD))
        assert answer.model == "large"
        assert answer.receipt.escalated
        assert answer.receipt.cost_usd_nanos == SMALL + LARGE
        assert [attempt.reason for attempt in answer.receipt.attempts] == ["hedges", ""]
        assert balanced(answer.receipt)
        assert (await until_settled(channel_of, 1)).cost_usd_nanos == SMALL + LARGE


async def test_the_same_request_again_costs_nothing(whole: Any) -> None:
    async with whole() as channel_of:
        await stub(channel_of).Complete(complete_request(EASY))
        again = await until_stored(channel_of, complete_request(EASY))
        receipt = again.receipt
        assert receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_EXACT
        assert (again.answer.content, again.model, receipt.cost_usd_nanos) == (GOOD, "small", 0)
        assert receipt.saving.cache_usd_nanos == receipt.baseline_usd_nanos == LARGE
        assert balanced(receipt)


async def test_a_request_that_means_the_same_is_served_too(whole: Any) -> None:
    async with whole() as channel_of:
        await stub(channel_of).Complete(complete_request(EASY))
        await until_stored(channel_of, complete_request(EASY))
        alike = await stub(channel_of).Complete(complete_request(ALIKE))
        assert alike.receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC
        assert alike.receipt.cache_similarity > 0.9


async def test_another_organisation_is_never_served_the_same_answer(whole: Any) -> None:
    async with whole() as channel_of:
        await stub(channel_of).Complete(complete_request(EASY))
        await until_stored(channel_of, complete_request(EASY))
        other = await stub(channel_of).Complete(complete_request(EASY, scope="organizations/other"))
        assert other.receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_MISS


async def test_personal_data_never_leaves_and_comes_back_in_the_answer(whole: Any) -> None:
    async with whole() as channel_of:
        answer = await stub(channel_of).Complete(complete_request(PERSONAL))
        assert answer.answer.content == "Sent to ann@example.com: your order has left the warehouse."
        assert answer.receipt.masked_spans == 1
        pieces = [event async for event in stub(channel_of).StreamComplete(stream_of(PERSONAL, model="small"))]
        text = "".join(event.delta.content for event in pieces if event.WhichOneof("event") == "delta")
        assert text == "Sent to ann@example.com: your order has left the warehouse."


def stream_of(prompt: str, **fields: Any) -> Any:
    return orchestrator_pb2.StreamCompleteRequest(request=complete_request(prompt, **fields))


async def test_a_stream_delivers_the_answer_in_pieces_and_then_its_receipt(whole: Any) -> None:
    async with whole() as channel_of:
        events = [event async for event in stub(channel_of).StreamComplete(stream_of(EASY, model="large"))]
        assert len(events) > 3
        assert "".join(event.delta.content for event in events[:-1]) == GOOD
        finished = events[-1].finished
        assert (finished.answer.content, finished.receipt.cost_usd_nanos) == (GOOD, LARGE)
        assert (await until_settled(channel_of, 1)).cost_usd_nanos == LARGE
        hit = await until_stored(channel_of, complete_request(EASY, model="large"))
        assert hit.answer.content == GOOD
        replayed = [event async for event in stub(channel_of).StreamComplete(stream_of(EASY, model="large"))]
        assert [event.WhichOneof("event") for event in replayed] == ["delta", "finished"]
        assert replayed[-1].finished.receipt.cost_usd_nanos == 0


async def test_a_streamed_cascade_delivers_the_answer_that_was_judged_good(whole: Any) -> None:
    async with whole() as channel_of:
        events = [event async for event in stub(channel_of).StreamComplete(stream_of(EASY))]
        assert [event.WhichOneof("event") for event in events] == ["delta", "finished"]
        assert events[-1].finished.receipt.cost_usd_nanos == SMALL
        hard = [event async for event in stub(channel_of).StreamComplete(stream_of(HARD))]
        assert hard[-1].finished.receipt.escalated
        assert hard[-1].finished.receipt.cost_usd_nanos == SMALL + LARGE


async def test_a_cancelled_stream_is_settled_for_what_was_delivered(whole: Any) -> None:
    async with whole() as channel_of:
        call = stub(channel_of).StreamComplete(stream_of(EASY, model="large"))
        iterator = call.__aiter__()
        first = await anext(iterator)
        assert first.delta.content
        call.cancel()
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
        row = await until_settled(channel_of, 1)
        assert 0 < row.cost_usd_nanos <= LARGE


async def test_tool_calls_pass_through_untouched(whole: Any) -> None:
    async with whole() as channel_of:
        request = complete_request("call a tool", model="large")
        request.parameters.tools_json = '[{"type": "function", "function": {"name": "f"}}]'
        answer = await stub(channel_of).Complete(request)
        assert '"name":"f"' in answer.answer.extra_json
        assert answer.answer.finish_reason == "tool_calls"


@pytest.mark.parametrize("first", ["streamed", "plain"])
async def test_case_21_tool_calls_and_their_end_survive_the_cache_both_ways(whole: Any, first: str) -> None:
    async with whole() as channel_of:
        request = complete_request("call a tool", model="large")
        request.parameters.tools_json = '[{"type": "function", "function": {"name": "f"}}]'
        calling = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

        async def streamed() -> tuple[list[Any], Any]:
            request.request_id = str(uuid.uuid4())
            call = stub(channel_of).StreamComplete(orchestrator_pb2.StreamCompleteRequest(request=request))
            events = [event async for event in call]
            return [json.loads(each.delta.extra_json) for each in events[:-1] if each.delta.extra_json], events[-1].finished

        bought = (await streamed())[1] if first == "streamed" else await stub(channel_of).Complete(request)
        plain = await until_stored(channel_of, request)
        deltas, whole_again = await streamed()
        assert whole_again.receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_EXACT
        assert deltas == [{"tool_calls": [{"index": 0, **calling}]}]
        for answer in (bought, plain, whole_again):
            assert json.loads(answer.answer.extra_json)["tool_calls"] == [calling]
            assert answer.answer.finish_reason == "tool_calls"
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == (50, 10)


async def test_over_budget_nothing_is_bought_but_the_cache_still_serves(whole: Any) -> None:
    async with whole() as channel_of:
        await stub(channel_of).Complete(complete_request(EASY))
        await until_stored(channel_of, complete_request(EASY))
        budget = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        request_id = str(uuid.uuid4())
        create = {"request_id": request_id, "scope": ORGANIZATION, "period": budget_pb2.PERIOD_DAY, "limit_usd_nanos": 10}
        await budget.CreateBudget(budget_pb2.CreateBudgetRequest(**create))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel_of).Complete(complete_request(HARD))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
        hit = await stub(channel_of).Complete(complete_request(EASY))
        assert hit.receipt.cost_usd_nanos == 0
        degraded = await stub(channel_of).Complete(complete_request(HARD, task="caption"))
        assert (degraded.model, degraded.receipt.cost_usd_nanos) == ("open", 0)


async def test_a_request_id_is_good_for_one_request(whole: Any) -> None:
    async with whole() as channel_of:
        request = complete_request(HARD)
        request.overrides.cache_mode = orchestrator_pb2.CACHE_MODE_OFF
        await stub(channel_of).Complete(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel_of).Complete(request)
        assert reason(caught.value) == "REQUEST_ID_REUSED"


async def test_an_estimate_says_what_would_happen_and_holds_nothing(whole: Any) -> None:
    async with whole() as channel_of:
        asked = orchestrator_pb2.EstimateCostRequest(request=complete_request(HARD))
        estimate = await stub(channel_of).EstimateCost(asked)
        assert [candidate.model for candidate in estimate.route.candidates] == ["small", "large"]
        assert 0 < estimate.likely_usd_nanos < estimate.worst_case_usd_nanos
        assert estimate.verdict == budget_pb2.VERDICT_ALLOW
        budget = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        assert not (await budget.QueryUsage(budget_pb2.QueryUsageRequest(scope=ORGANIZATION))).rows


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"model": "ghost"}, grpc.StatusCode.INVALID_ARGUMENT, "model"),
        ({"model": "unpriced"}, grpc.StatusCode.FAILED_PRECONDITION, "unpriced"),
        ({"scope": ""}, grpc.StatusCode.INVALID_ARGUMENT, "scope"),
        ({"scope": "organizations/a b"}, grpc.StatusCode.INVALID_ARGUMENT, "scope"),
        ({"request_id": "1"}, grpc.StatusCode.INVALID_ARGUMENT, "request_id"),
        ({"tier": "gold"}, grpc.StatusCode.INVALID_ARGUMENT, "tier"),
    ],
)
async def test_a_bad_request_is_refused_with_the_field(whole: Any, fields: dict[str, Any], code: Any, named: str) -> None:
    async with whole() as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel_of).Complete(complete_request(HARD, **fields))
        assert caught.value.code() is code
        assert named in (caught.value.details() or "")


async def test_a_prompt_of_ten_megabytes_is_refused_with_the_limit(whole: Any) -> None:
    async with whole() as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel_of).Complete(complete_request("x" * 10_000_000))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "messages[0].content" in (caught.value.details() or "")


async def test_a_conversation_too_long_is_cut_only_where_that_is_wished(whole: Any) -> None:
    async with whole() as channel_of:

        def long_request() -> Any:
            request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=SCOPE, model="small")
            for turn in range(4):
                request.messages.add(role="user", content=f"{turn} " + "alpha beta " * 600)
                request.messages.add(role="assistant", content="noted")
            request.messages.add(role="user", content=EASY)
            return request

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel_of).Complete(long_request())
        assert reason(caught.value) == "CONTEXT_TOO_LONG"
        request = long_request()
        request.overrides.fit_context = True
        answer = await stub(channel_of).Complete(request)
        assert answer.answer.content == GOOD
        assert answer.receipt.input_tokens_after < answer.receipt.input_tokens_before


async def test_providers_that_fail_now_and_then_are_asked_again(whole: Any) -> None:
    async with whole(behaviour=Behaviour(fail_rate=0.4, seed=3)) as channel_of:
        requests = [
            stub(channel_of).Complete(complete_request(HARD, model="large", scope=f"organizations/o{n}")) for n in range(12)
        ]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        good = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(good) >= 6
        for failure in (answer for answer in answers if isinstance(answer, BaseException)):
            assert isinstance(failure, grpc.aio.AioRpcError), failure
            assert reason(failure) == "ALL_ATTEMPTS_FAILED"
