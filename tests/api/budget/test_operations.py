"""Batches, streams, top-ups, corrections and the journal, as callers see them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.status import error_info, rich_status

ORGANIZATION = "organizations/acme"
USER = "organizations/acme/workspaces/search/projects/ranker/users/ann"


def new_id() -> str:
    return str(uuid.uuid4())


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


async def create(stub: Any, limit: int, **more: Any) -> str:
    request = budget_pb2.CreateBudgetRequest(
        request_id=new_id(),
        scope=more.pop("scope", ORGANIZATION),
        period=more.pop("period", budget_pb2.PERIOD_MONTH),
        limit_usd_nanos=limit,
        **more,
    )
    return str((await stub.CreateBudget(request)).budget.budget_id)


async def budget_of(stub: Any, budget_id: str) -> Any:
    return (await stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget_id))).budget


def reserve(amount: int, request_id: str = "", **more: Any) -> Any:
    return budget_pb2.ReserveBudgetRequest(request_id=request_id or new_id(), scope=USER, amount_usd_nanos=amount, **more)


def settle(request_id: str, cost: int) -> Any:
    line = budget_pb2.UsageLine(model="m", provider="p", input_tokens=10, cost_usd_nanos=cost, outcome="accepted")
    usage = budget_pb2.UsageRecord(task="chat", lines=[line])
    return budget_pb2.SettleReservationRequest(request_id=request_id, scope=USER, usage=usage)


def operation(**kind: Any) -> Any:
    return budget_pb2.ReservationOperation(**kind)


async def refusal(call: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return info.reason, dict(info.metadata)


async def test_a_batch_gives_each_operation_a_verdict_of_its_own(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        budget_id, first, unknown = await create(stub, 100), new_id(), new_id()
        answer = await stub.BatchReserve(
            budget_pb2.BatchReserveRequest(
                operations=[
                    operation(reserve=reserve(60, first)),
                    operation(reserve=reserve(50)),
                    operation(settle=settle(first, 30)),
                    operation(reserve=reserve(50)),
                    operation(release=budget_pb2.ReleaseReservationRequest(request_id=unknown, scope=USER)),
                ]
            )
        )
        assert [(each.code, each.reason) for each in answer.results] == [
            (0, ""),
            (8, "BUDGET_EXHAUSTED"),
            (0, ""),
            (0, ""),
            (5, "RESERVATION_NOT_FOUND"),
        ]
        assert answer.results[1].facts["asked"] == "50"
        assert answer.results[2].reservation.state == budget_pb2.RESERVATION_STATE_SETTLED
        found = await budget_of(stub, budget_id)
        assert (found.spent_usd_nanos, found.held_usd_nanos) == (30, 50)


async def test_a_stream_is_answered_in_order_and_repeats_are_told(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        budget_id, ids = await create(stub, 1_000), [new_id() for _ in range(30)]

        async def requests() -> AsyncIterator[Any]:
            for start in range(0, 30, 3):
                made = [operation(reserve=reserve(10, each)) for each in ids[start : start + 3]]
                yield budget_pb2.StreamReservationsRequest(operations=made)
            yield budget_pb2.StreamReservationsRequest(operations=[operation(reserve=reserve(10, ids[0]))])

        answers = [answer async for answer in stub.StreamReservations(requests())]
        told = [result.reservation.request_id for answer in answers for result in answer.results]
        assert told == [*ids, ids[0]]
        assert [result.repeated for result in answers[-1].results] == [True]
        assert (await budget_of(stub, budget_id)).held_usd_nanos == 300


async def test_a_stream_ends_at_the_first_message_that_breaks_a_rule(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)

        async def requests() -> AsyncIterator[Any]:
            yield budget_pb2.StreamReservationsRequest(operations=[operation(reserve=reserve(10))])
            yield budget_pb2.StreamReservationsRequest(operations=[operation(reserve=reserve(-1))])

        answers = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for answer in stub.StreamReservations(requests()):
                answers.append(answer)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "amount_usd_nanos" in (caught.value.details() or "")


async def test_a_hold_grows_by_totals_and_says_when_there_is_no_more(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        budget_id, request_id = await create(stub, 100), new_id()
        await stub.ReserveBudget(reserve(40, request_id))

        async def top_up(total: int) -> Any:
            request = budget_pb2.TopUpReservationRequest(request_id=request_id, scope=USER, amount_usd_nanos=total)
            return await stub.TopUpReservation(request)

        assert (await top_up(70)).reservation.amount_usd_nanos == 70
        assert (await top_up(50)).reservation.amount_usd_nanos == 70, "a repeat that comes late takes nothing back"
        reason, facts = await refusal(top_up(101))
        assert (reason, facts["free"]) == ("BUDGET_EXHAUSTED", "30")
        assert (await budget_of(stub, budget_id)).held_usd_nanos == 70


async def test_a_budget_may_ask_that_the_worst_case_is_held(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        terms = budget_pb2.LimitTerms(hold_worst_case=True)
        budget_id = await create(stub, 10**12, limit_terms=terms)
        assert (await budget_of(stub, budget_id)).limit_terms.hold_worst_case
        sizing = budget_pb2.Sizing(output_usd_nanos_per_million_tokens=1_000_000, output_tokens_max=4_096, model="m")
        hold = (await stub.ReserveBudget(reserve(4_096, tokens=4_096, sizing=sizing))).reservation
        assert (hold.amount_usd_nanos, hold.tokens, hold.output_tokens_held) == (4_096, 4_096, 0)
        change = budget_pb2.UpdateBudgetRequest(scope=ORGANIZATION, budget_id=budget_id, update_mask={"paths": ["limit_terms"]})
        assert not (await stub.UpdateBudget(change)).budget.limit_terms.hold_worst_case
        hold = (await stub.ReserveBudget(reserve(4_096, tokens=4_096, sizing=sizing))).reservation
        assert (hold.amount_usd_nanos, hold.output_tokens_held) == (64, 64)


async def test_what_a_service_learned_is_kept_when_it_ends(suite: Any, database_url: str) -> None:
    sizing = budget_pb2.Sizing(output_usd_nanos_per_million_tokens=1_000_000, output_tokens_max=4_096, model="m", task="chat")
    async with suite("budget", environment={"FARTHING_BUDGET_SHARING_INTERVAL_S": "3600"}) as running:
        stub, request_id = stub_of(running.mesh.channel), new_id()
        await create(stub, 10**12)
        await stub.ReserveBudget(reserve(4_096, request_id, tokens=4_096, sizing=sizing))
        ended = settle(request_id, 30)
        ended.usage.lines[0].output_tokens = 30
        await stub.SettleReservation(ended)
    connection = await asyncpg.connect(database_url)
    kept = await connection.fetch("SELECT scope, model, task FROM budget.answer_lengths ORDER BY task DESC, input_bucket DESC")
    await connection.close()
    project = USER.rpartition("/users/")[0]
    assert [tuple(row) for row in kept] == [(project, "m", "chat"), (project, "m", "chat"), (ORGANIZATION, "m", "")]


async def test_a_sized_hold_is_topped_up_by_output_tokens(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await create(stub, 10**12)
        sizing = budget_pb2.Sizing(
            input_usd_nanos=500,
            input_tokens=20,
            output_usd_nanos_per_million_tokens=10_000_000_000,
            output_tokens_max=4_096,
            model="m",
            task="chat",
        )
        request_id = new_id()
        made = (await stub.ReserveBudget(reserve(41_000_000, request_id, sizing=sizing, dispatch=True))).reservation
        assert (made.output_tokens_held, made.amount_usd_nanos) == (64, 640_500)
        assert made.state == budget_pb2.RESERVATION_STATE_DISPATCHED
        more = budget_pb2.TopUpReservationRequest(request_id=request_id, scope=USER, output_tokens=200)
        grown = (await stub.TopUpReservation(more)).reservation
        assert (grown.output_tokens_held, grown.amount_usd_nanos) == (256, 2_560_500)


async def test_a_reservation_tells_its_story(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        budget_id, request_id = await create(stub, 1_000), new_id()
        await stub.ReserveBudget(reserve(100, request_id))
        await stub.DispatchReservation(budget_pb2.DispatchReservationRequest(request_id=request_id, scope=USER))
        await stub.SettleReservation(settle(request_id, 130))
        adjust = budget_pb2.AdjustBudgetRequest(
            request_id=new_id(), scope=USER, reservation_id=request_id, amount_usd_nanos=-30, reason="refunded"
        )
        entry = (await stub.AdjustBudget(adjust)).entry
        assert (entry.kind, entry.spent_usd_nanos, entry.corrects) == ("ADJUST", -30, request_id)
        assert (await stub.AdjustBudget(adjust)).entry.spent_usd_nanos == -30
        story = await stub.GetReservation(budget_pb2.GetReservationRequest(request_id=request_id, scope=USER))
        assert [each.kind for each in story.entries][:3] == ["RESERVE", "DISPATCH", "SETTLE"]
        assert story.entries[2].note == "overrun"
        assert story.reservation.authorized_usd_nanos == 100
        assert (await budget_of(stub, budget_id)).spent_usd_nanos == 100
        listed = await stub.ListEntries(budget_pb2.ListEntriesRequest(scope=ORGANIZATION, page_size=3))
        assert [each.kind for each in listed.entries] == ["ADJUST", "SETTLE", "DISPATCH"]
        rest = await stub.ListEntries(
            budget_pb2.ListEntriesRequest(scope=ORGANIZATION, page_size=3, page_token=listed.next_page_token)
        )
        assert [each.kind for each in rest.entries] == ["RESERVE"]
        assert not rest.next_page_token


async def test_a_reset_starts_afresh_and_the_books_stay_right(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        budget_id, settled, held = await create(stub, 1_000), new_id(), new_id()
        for request_id in (settled, held):
            await stub.ReserveBudget(reserve(100, request_id))
        await stub.SettleReservation(settle(settled, 80))
        request = budget_pb2.ResetBudgetRequest(request_id=new_id(), scope=USER, budget_id=budget_id, reason="monthly")
        for _ in range(2):
            found = (await stub.ResetBudget(request)).budget
            assert (found.spent_usd_nanos, found.held_usd_nanos) == (0, 100)
        proof = await stub.VerifyLedger(budget_pb2.VerifyLedgerRequest(scope=ORGANIZATION))
        assert (list(proof.differences), proof.balances) == ([], 1)
        assert proof.entries == 4


async def test_the_proof_finds_a_balance_that_somebody_changed(api: Any, database_url: str) -> None:
    import asyncpg

    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await create(stub, 1_000)
        await stub.ReserveBudget(reserve(100))
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE budget.balances SET spent_usd_nanos = spent_usd_nanos + 1")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("UPDATE budget.journal SET spent_usd_nanos = 1")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("DELETE FROM budget.journal")
        await connection.close()
        proof = await stub.VerifyLedger(budget_pb2.VerifyLedgerRequest(scope=ORGANIZATION))
        (difference,) = proof.differences
        assert "spent_usd_nanos is 1, the journal says 0" in difference


async def test_all_terms_of_a_budget_come_back_as_they_were_given(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        terms = budget_pb2.LimitTerms(
            soft_limit_percent=80,
            critical_limit_percent=150,
            on_exhaustion=budget_pb2.EXHAUSTION_ACTION_DEGRADE,
            velocity_measure=budget_pb2.VELOCITY_MEASURE_ALERT,
        )
        budget_id = await create(
            stub,
            500,
            limit_requests=7,
            period=budget_pb2.PERIOD_ROLLING,
            period_terms=budget_pb2.PeriodTerms(window_s=3_600),
            selector=budget_pb2.BudgetSelector(tag="team:red"),
            limit_terms=terms,
        )
        found = await budget_of(stub, budget_id)
        assert found.limit_terms == terms
        assert (found.selector.tag, found.limit_requests, found.period_terms.window_s) == ("team:red", 7, 3_600)
        reason, _ = await refusal(stub.ReserveBudget(reserve(450, tags=["team:red"])))
        assert reason == "BUDGET_DEGRADED"
        decision = (
            await stub.CheckBudget(budget_pb2.CheckBudgetRequest(scope=USER, amount_usd_nanos=450, tags=["team:red"]))
        ).decision
        assert (decision.verdict, decision.allowed_class) == (budget_pb2.VERDICT_DEGRADE, budget_pb2.MODEL_CLASS_OPEN)
        await create(stub, 100)  # another budget of the scope, for other work
        velocity = await stub.GetSpendingVelocity(budget_pb2.GetSpendingVelocityRequest(scope=USER))
        assert {each.budget_id for each in velocity.velocities} >= {budget_id}


async def test_a_reservation_of_another_organisation_does_not_exist(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        request_id = new_id()
        await stub.ReserveBudget(reserve(1, request_id))
        for scope in ("organizations/other", ORGANIZATION):
            asked = budget_pb2.GetReservationRequest(request_id=request_id, scope=scope)
            assert (await refusal(stub.GetReservation(asked)))[0] == "RESERVATION_NOT_FOUND"
