"""Answers that are paid for as they come: top-ups ahead of need, and a stop signal that reaches the provider."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
TOKEN, heard, refusal = _suite.TOKEN_USD_NANOS, _suite.heard, _suite.refusal


async def test_a_stream_holds_its_first_bin_and_is_topped_up_before_it_needs_more(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(100_000)
        at.upstream.script["dear"], at.upstream.pause_after = 200, 40
        request = at.ask(tokens_max=1000)
        call = asyncio.create_task(heard(at.stream(request)))
        await at.upstream.paused.wait()
        held = (await at.reservation(request)).reservation
        assert (held.state, held.output_tokens_held) == (budget_pb2.RESERVATION_STATE_DISPATCHED, 64)
        # An answer, and one of likely length that is lost on its way before its spare is asked.
        assert held.authorized_usd_nanos == 1200 * TOKEN
        at.upstream.go.set()
        text, end = await call
        assert (len(text), end.receipt.cost_usd_nanos) == (200 * len(at.upstream.text), 200 * TOKEN)
        assert await at.ended(request) == ["RESERVE", "TOP_UP", "TOP_UP", "TOP_UP", "SETTLE"]
        budget = await at.budget(budget_id)
        assert (budget.spent_usd_nanos, budget.held_usd_nanos) == (200 * TOKEN, 0)


async def test_a_stream_that_cannot_be_paid_for_any_more_is_cut_and_the_provider_is_hung_up_on(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(300)
        at.upstream.script["dear"], at.upstream.pause_after, at.upstream.stop_after = 300, 40, 110
        request = at.ask(tokens_max=300)
        call = asyncio.create_task(heard(at.stream(request)))
        await at.upstream.paused.wait()
        await at.spend(200)
        at.upstream.go.set()
        text, end = await call
        pieces, counted = len(text) // len(at.upstream.text), int(end.facts["output_tokens_delivered"])
        assert (end.code, end.reason, end.facts["budget_id"]) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "BUDGET_EXHAUSTED",
            budget_id,
        )
        # From the refusal on every byte counts as a token; when that comes is up to the ledger.
        assert 64 <= pieces <= counted <= 100
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        assert await at.ended(request) == ["RESERVE", "TOP_UP", "SETTLE"]
        budget = await at.budget(budget_id)
        assert (budget.spent_usd_nanos, budget.held_usd_nanos) == ((200 + counted) * TOKEN, 0)
        row = (await at.usage(requests=2))[0]
        assert (row.output_tokens, row.estimated_attempts) == (counted, 1)


async def test_the_stop_signal_reaches_a_provider_behind_a_router_elsewhere(desk: Any, suite: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with _suite.serving_upstream(elsewhere) as (upstream, path), suite("router", config_file=path) as router:
        targets = tuple(target for target in _suite.EVERYTHING if target != "router")
        async with desk(targets=targets, environment={"FARTHING_PEERS": f"router={router.grpc_address}"}) as at:
            await at.limit(300)
            upstream.script["dear"], upstream.pause_after, upstream.stop_after = 300, 40, 110
            request = at.ask(tokens_max=300)
            call = asyncio.create_task(heard(at.stream(request)))
            await upstream.paused.wait()
            await at.spend(200)
            upstream.go.set()
            text, end = await call
            assert end.reason == "BUDGET_EXHAUSTED"
            assert 64 <= len(text) // len(upstream.text) <= int(end.facts["output_tokens_delivered"]) <= 100
            await asyncio.wait_for(upstream.hung_up.wait(), 10)
            assert (await at.ended(request))[-1] == "SETTLE"


async def test_what_a_chunk_holds_beyond_what_is_paid_for_waits_for_the_ledger(desk: Any) -> None:
    async with desk() as at:
        await at.limit(100_000)
        at.upstream.script["dear"], at.upstream.text = 3, " abc" * 100
        request = at.ask(tokens_max=1000)
        text, end = await heard(at.stream(request))
        assert text == at.upstream.text * 3
        assert end.receipt.steps[-1].note
        held = (await at.reservation(request)).entries
        assert [entry.kind for entry in held][:2] == ["RESERVE", "TOP_UP"]
        first = held[0].held_usd_nanos + held[1].held_usd_nanos
        assert first >= 100 * TOKEN, "the first chunk of a hundred tokens was paid for before it went on"


async def test_a_chunk_that_cannot_be_paid_for_is_not_delivered_at_all(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(300)
        at.upstream.script["dear"], at.upstream.text = 3, " abc" * 100
        at.upstream.pause_after, at.upstream.stop_after = 0, 1
        request = at.ask(tokens_max=300)
        call = asyncio.create_task(heard(at.stream(request)))
        await at.upstream.paused.wait()
        await at.spend(230)
        at.upstream.go.set()
        text, end = await call
        assert (text, end.reason, end.facts["output_tokens_delivered"]) == ("", "BUDGET_EXHAUSTED", "0")
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        await at.ended(request)
        assert (await at.budget(budget_id)).held_usd_nanos == 0


async def test_where_nothing_limits_a_stream_it_is_never_topped_up(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script["dear"] = 200
        request = at.ask(tokens_max=1000)
        await heard(at.stream(request))
        assert await at.ended(request) == ["RESERVE", "SETTLE"]


async def test_a_budget_of_tokens_pays_for_streams_bin_by_bin_too(desk: Any) -> None:
    async with desk() as at:
        create = budget_pb2.CreateBudgetRequest(
            request_id="0d6cf3a8-6e2e-4f6a-9d4e-0f0b6f1f8a11",
            scope="organizations/acme",
            period=budget_pb2.PERIOD_DAY,
            limit_tokens=100_000,
        )
        await at.ledger.CreateBudget(create)
        at.upstream.script["open"] = 100
        request = at.ask(tokens_max=1000, model="open")
        await heard(at.stream(request))
        assert "TOP_UP" in await at.ended(request)


async def test_case_3_long_worst_cases_do_not_fill_a_budget_with_holds_while_nothing_is_spent(desk: Any) -> None:
    async with desk() as at:
        await at.teach(tokens=30, tokens_max=16_000)
        budget_id = await at.limit(3_000)
        at.upstream.script["dear"] = 30
        requests = [at.ask(tokens_max=16_000) for _ in range(20)]
        answers = await asyncio.gather(*(at.orchestrator.Complete(request) for request in requests))
        assert {answer.usage.output_tokens for answer in answers} == {30}
        assert all(body["stream"] and body["max_tokens"] == 16_000 for body in at.upstream.bodies)
        assert all(answer.answer.content == at.upstream.text * 30 for answer in answers)
        for request in requests:
            await at.ended(request)
        budget = await at.budget(budget_id)
        assert (budget.spent_usd_nanos, budget.held_usd_nanos) == (20 * 30 * TOKEN, 0)


async def test_a_plain_answer_that_outgrows_its_budget_is_cut_within_the_limit(desk: Any) -> None:
    async with desk() as at:
        await at.teach(tokens=30, tokens_max=16_000)
        budget_id = await at.limit(150)
        at.upstream.script["dear"], at.upstream.stop_after = 1_000, 160
        request = at.ask(tokens_max=16_000)
        refused = await refusal(at.orchestrator.Complete(request))
        assert refused.reason == "BUDGET_EXHAUSTED"
        delivered = int(refused.facts["output_tokens_delivered"])
        assert 64 <= delivered <= 150
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        await at.ended(request)
        budget = await at.budget(budget_id)
        assert (budget.spent_usd_nanos, budget.held_usd_nanos) == (delivered * TOKEN, 0)


async def test_a_plain_answer_whose_worst_case_fits_is_held_whole_and_not_streamed(desk: Any) -> None:
    async with desk() as at:
        await at.limit(100_000)
        request = at.ask(tokens_max=1000)
        await at.orchestrator.Complete(request)
        assert "stream" not in at.upstream.bodies[0]
        assert await at.ended(request) == ["RESERVE", "SETTLE"]
        assert (await at.reservation(request)).entries[0].held_usd_nanos == 1200 * TOKEN


async def test_a_cascade_holds_what_cannot_be_stopped_whole_and_the_last_answer_bin_by_bin(desk: Any) -> None:
    async with desk() as at:
        await at.limit(100_000)
        request = at.ask(tokens_max=1000, model="")
        await heard(at.stream(request))
        hold = (await at.reservation(request)).entries[0].held_usd_nanos
        assert hold == 1000 * TOKEN // 10 + 64 * TOKEN


@pytest.mark.parametrize("limit", [20])
async def test_case_1_sixty_four_streams_at_once_on_a_budget_for_twenty_never_pass_it(desk: Any, limit: int) -> None:
    async with desk() as at:
        budget_id = await at.limit(limit * 50)
        at.upstream.script["dear"] = 50
        ends = await asyncio.gather(*(heard(at.stream(at.ask(tokens_max=50))) for _ in range(64)))
        served = [end for text, end in ends if len(text) == 50 * len(at.upstream.text)]
        assert len(served) == limit
        await at.usage(requests=limit)
        async with asyncio.timeout(10):
            while (budget := await at.budget(budget_id)).held_usd_nanos:
                await asyncio.sleep(0.01)
        assert budget.spent_usd_nanos == limit * 50 * TOKEN == budget.limit_usd_nanos
