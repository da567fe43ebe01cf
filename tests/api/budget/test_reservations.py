"""Reservations through the generated stub, over both transports."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.protobuf.field_mask_pb2 import FieldMask

ORGANIZATION = "organizations/acme"
WORKSPACE = f"{ORGANIZATION}/workspaces/search"
PROJECT = f"{WORKSPACE}/projects/ranker"
USER = f"{PROJECT}/users/ann"


def new_id() -> str:
    return str(uuid.uuid4())


async def create(stub: Any, scope: str, usd_nanos: int | None = None, **more: Any) -> Any:
    more.setdefault("period", budget_pb2.PERIOD_MONTH)
    request = budget_pb2.CreateBudgetRequest(request_id=new_id(), scope=scope, limit_usd_nanos=usd_nanos, **more)
    return (await stub.CreateBudget(request)).budget


def reserve(stub: Any, scope: str, amount: int, request_id: str = "", **more: Any) -> Any:
    request = budget_pb2.ReserveBudgetRequest(request_id=request_id or new_id(), scope=scope, amount_usd_nanos=amount, **more)
    return stub.ReserveBudget(request)


def usage(cost: int, *, model: str = "large", task: str = "chat", baseline: int = 0, outcome: str = "accepted") -> Any:
    line = budget_pb2.UsageLine(
        model=model, provider="p", input_tokens=100, output_tokens=20, cost_usd_nanos=cost, outcome=outcome
    )
    saving = budget_pb2.Saving(route_usd_nanos=baseline - cost)
    return budget_pb2.UsageRecord(task=task, lines=[line], baseline_usd_nanos=baseline, saving=saving)


def settle(stub: Any, scope: str, request_id: str, record: Any) -> Any:
    return stub.SettleReservation(budget_pb2.SettleReservationRequest(request_id=request_id, scope=scope, usage=record))


async def balance(stub: Any, budget: Any) -> tuple[int, int]:
    found = (await stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget.budget_id))).budget
    return found.spent_usd_nanos, found.held_usd_nanos


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rich_status(error)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return info.reason


async def granted(calls: list[Any]) -> int:
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            assert isinstance(result, grpc.aio.AioRpcError), result
            assert (result.code(), reason(result)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    return sum(not isinstance(result, BaseException) for result in results)


async def test_of_64_concurrent_reservations_exactly_the_20_that_fit_are_granted(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget = await create(stub, ORGANIZATION, 20_000)
        assert await granted([reserve(stub, USER, 1_000) for _ in range(64)]) == 20
        assert await balance(stub, budget) == (0, 20_000)


async def test_two_processes_on_one_postgres_grant_exactly_20_between_them(suite: Any) -> None:
    async with suite("budget") as one, suite("budget") as other:
        stubs = [budget_pb2_grpc.BudgetServiceStub(each.mesh.channel("budget")) for each in (one, other)]
        budget = await create(stubs[0], ORGANIZATION, 20_000)
        assert await granted([reserve(stubs[number % 2], USER, 1_000) for number in range(64)]) == 20
        assert await balance(stubs[1], budget) == (0, 20_000)


async def test_a_hold_that_does_not_fit_one_level_is_taken_on_none(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        wide, narrow = await create(stub, ORGANIZATION, 100_000), await create(stub, PROJECT, 500)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reserve(stub, USER, 501)
        status = rich_status(caught.value)
        assert status is not None
        info = error_info(status)
        assert info is not None
        assert info.metadata["budget_id"] == narrow.budget_id
        assert (info.metadata["asked"], info.metadata["free"]) == ("501", "500")
        assert [detail.type_url.rsplit(".", 1)[-1] for detail in status.details] == ["ErrorInfo", "QuotaFailure", "RetryInfo"]
        assert await balance(stub, wide) == (0, 0)


async def test_a_repeated_reservation_is_granted_once(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget, request_id = await create(stub, ORGANIZATION, 10_000), new_id()
        first, again = await reserve(stub, USER, 700, request_id), await reserve(stub, USER, 700, request_id)
        assert (first.repeated, again.repeated) == (False, True)
        assert await balance(stub, budget) == (0, 700)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reserve(stub, USER, 701, request_id)
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_settling_moves_the_hold_to_what_was_spent_on_every_level(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budgets = [await create(stub, scope, 10_000) for scope in (ORGANIZATION, WORKSPACE, PROJECT, USER)]
        request_id = new_id()
        await reserve(stub, USER, 900, request_id)
        answer = await settle(stub, USER, request_id, usage(250))
        assert answer.reservation.settled_usd_nanos == 250
        assert [await balance(stub, budget) for budget in budgets] == [(250, 0)] * 4
        again = await settle(stub, USER, request_id, usage(250))
        assert again.reservation.settled_usd_nanos == 250
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await settle(stub, USER, request_id, usage(251))
        assert reason(caught.value) == "REQUEST_ID_REUSED"
        assert await balance(stub, budgets[0]) == (250, 0)


async def test_settling_above_the_hold_charges_all_of_it(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget, request_id = await create(stub, ORGANIZATION, 1_000), new_id()
        await reserve(stub, USER, 1_000, request_id)
        await settle(stub, USER, request_id, usage(1_700))
        assert await balance(stub, budget) == (1_700, 0)


async def test_a_released_hold_is_free_again_and_cannot_be_settled(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget, request_id = await create(stub, ORGANIZATION, 1_000), new_id()
        await reserve(stub, USER, 1_000, request_id)
        for _ in range(2):
            await stub.ReleaseReservation(budget_pb2.ReleaseReservationRequest(request_id=request_id, scope=USER))
        assert await balance(stub, budget) == (0, 0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await settle(stub, USER, request_id, usage(1))
        assert reason(caught.value) == "RESERVATION_RELEASED"


async def test_another_organisation_cannot_settle_or_see_what_is_not_its_own(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget, request_id = await create(stub, ORGANIZATION, 1_000), new_id()
        await reserve(stub, USER, 1_000, request_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await settle(stub, "organizations/other", request_id, usage(1))
        assert reason(caught.value) == "RESERVATION_NOT_FOUND"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetBudget(budget_pb2.GetBudgetRequest(scope="organizations/other", budget_id=budget.budget_id))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_hold_nobody_ends_lapses_into_suspense_and_a_late_settlement_corrects_it(api: Any) -> None:
    async with api("budget", environment={"FARTHING_BUDGET_SWEEP_INTERVAL_S": "0.05"}) as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget, request_id = await create(stub, ORGANIZATION, 1_000), new_id()
        await reserve(stub, USER, 600, request_id, ttl_s=1)
        await stub.DispatchReservation(budget_pb2.DispatchReservationRequest(request_id=request_id, scope=USER))
        async with asyncio.timeout(10):
            while await balance(stub, budget) != (600, 0):
                await asyncio.sleep(0.05)
        await settle(stub, USER, request_id, usage(150))
        assert await balance(stub, budget) == (150, 0)


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (lambda: budget_pb2.ReserveBudgetRequest(request_id=new_id(), amount_usd_nanos=1), "scope"),
        (lambda: budget_pb2.ReserveBudgetRequest(request_id=new_id(), scope=USER, amount_usd_nanos=-1), "amount_usd_nanos"),
        (lambda: budget_pb2.ReserveBudgetRequest(request_id="7", scope=USER), "request_id"),
        (lambda: budget_pb2.ReserveBudgetRequest(request_id=new_id(), scope="organizations/a/projects/b"), "scope"),
        (lambda: budget_pb2.ReserveBudgetRequest(request_id=new_id(), scope=USER, tokens=-5), "tokens"),
    ],
)
async def test_a_bad_reservation_is_refused_with_the_field(api: Any, request_of: Any, field: str) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ReserveBudget(request_of())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")


async def test_budgets_are_listed_changed_and_deleted(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        made = [await create(stub, scope, 1_000) for scope in (ORGANIZATION, WORKSPACE, PROJECT)]
        await create(stub, "organizations/acme2", 5)
        pages, token = [], ""
        while True:
            page = await stub.ListBudgets(budget_pb2.ListBudgetsRequest(scope=ORGANIZATION, page_size=2, page_token=token))
            pages += [budget.scope for budget in page.budgets]
            token = page.next_page_token
            if not token:
                break
        assert pages == [ORGANIZATION, WORKSPACE, PROJECT]
        mask = FieldMask(paths=["limit_usd_nanos"])
        change = {"scope": ORGANIZATION, "budget_id": made[0].budget_id, "update_mask": mask, "limit_usd_nanos": 7}
        changed = (await stub.UpdateBudget(budget_pb2.UpdateBudgetRequest(**change, version=1))).budget
        assert (changed.limit_usd_nanos, changed.version) == (7, 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UpdateBudget(budget_pb2.UpdateBudgetRequest(**change, version=1))
        assert reason(caught.value) == "VERSION_MISMATCH"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create(stub, WORKSPACE, 3)
        assert reason(caught.value) == "BUDGET_EXISTS"
        await stub.DeleteBudget(budget_pb2.DeleteBudgetRequest(scope=ORGANIZATION, budget_id=made[1].budget_id))
        await create(stub, WORKSPACE, 3)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"limit_usd_nanos": None}, "limit_usd_nanos"),
        ({"limit_usd_nanos": 1, "time_zone": "Mars/Olympus"}, "time_zone"),
        ({"limit_usd_nanos": 1, "period": 0}, "period"),
        ({"limit_usd_nanos": 1, "period": 77}, "period"),
        ({"limit_usd_nanos": 2**53}, "limit_usd_nanos"),
    ],
)
async def test_a_bad_budget_is_refused_with_the_field(api: Any, values: dict[str, Any], field: str) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        request = budget_pb2.CreateBudgetRequest(**{"request_id": new_id(), "scope": ORGANIZATION, "period": 1, **values})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateBudget(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")


async def test_usage_adds_up_to_what_was_settled_whatever_it_is_grouped_by(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        other = f"{WORKSPACE}/projects/ranker2"
        for number, (scope, model, task) in enumerate(
            [(USER, "large", "chat"), (USER, "small", "chat"), (PROJECT, "small", "caption"), (other, "small", "chat")]
        ):
            request_id = new_id()
            await reserve(stub, scope, 1_000, request_id)
            await settle(stub, scope, request_id, usage(100 + number, model=model, task=task, baseline=500))
        hit = usage(0, model="large", baseline=500, outcome="cache_exact")
        record = budget_pb2.RecordUsageRequest(request_id=new_id(), scope=USER, usage=hit)
        await stub.RecordUsage(record)
        await stub.RecordUsage(record)

        async def query(scope: str, *groups: int) -> list[Any]:
            rows, token = [], ""
            while True:
                asked = budget_pb2.QueryUsageRequest(scope=scope, group_by=groups, page_size=2, page_token=token)
                page = await stub.QueryUsage(asked)
                rows += page.rows
                token = page.next_page_token
                if not token:
                    return rows

        everything = await query(ORGANIZATION)
        assert [(row.requests, row.cost_usd_nanos, row.baseline_usd_nanos) for row in everything] == [(5, 406, 2_500)]
        for groups in ([1], [2], [3], [4], [5], [1, 2], [1, 2, 3, 4, 5]):
            rows = await query(ORGANIZATION, *groups)
            assert sum(row.cost_usd_nanos for row in rows) == 406
            assert sum(row.requests for row in rows) == 5
        by_model = {row.model: row.cost_usd_nanos for row in await query(ORGANIZATION, budget_pb2.USAGE_GROUP_MODEL)}
        assert by_model == {"large": 100, "small": 306}
        assert [row.cost_usd_nanos for row in await query(PROJECT)] == [303]
        assert await query("organizations/acm") == []


async def test_what_is_left_comes_with_the_limit_and_the_period_so_that_spending_can_be_paced(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget = await create(stub, ORGANIZATION, 1_000)
        await create(stub, WORKSPACE, 5_000, period=budget_pb2.PERIOD_DAY)
        left = (await reserve(stub, WORKSPACE, 100)).left
        assert (left.budget_id, left.free_usd_nanos, left.limit_usd_nanos) == (budget.budget_id, 900, 1_000)
        start, end = left.period_start_time.ToDatetime(), left.period_end_time.ToDatetime()
        assert start.day == end.day == 1
        assert 28 <= (end - start).days <= 31
        hour = budget_pb2.PeriodTerms(window_s=3_600)
        rolling = await create(stub, "organizations/other", 500, period=budget_pb2.PERIOD_ROLLING, period_terms=hour)
        left = (await reserve(stub, "organizations/other", 100)).left
        assert (left.budget_id, left.limit_usd_nanos) == (rolling.budget_id, 500)
        assert not left.HasField("period_start_time")
