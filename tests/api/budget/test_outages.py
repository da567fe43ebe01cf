"""What callers see when the database is gone, or slow, or the queue is full."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.postgres import Cluster
from farthing_runtime.status import error_info, rich_status

ORGANIZATION = "organizations/acme"
USER = f"{ORGANIZATION}/workspaces/search/projects/ranker/users/ann"


def reserve(stub: Any, amount: int = 1, request_id: str = "") -> Any:
    return stub.ReserveBudget(
        budget_pb2.ReserveBudgetRequest(request_id=request_id or str(uuid.uuid4()), scope=USER, amount_usd_nanos=amount)
    )


async def create(stub: Any, limit: int = 1_000) -> Any:
    request = budget_pb2.CreateBudgetRequest(
        request_id=str(uuid.uuid4()), scope=ORGANIZATION, period=budget_pb2.PERIOD_YEAR, limit_usd_nanos=limit
    )
    return (await stub.CreateBudget(request)).budget


async def held(stub: Any, budget: Any) -> int:
    found = await stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget.budget_id))
    return int(found.budget.held_usd_nanos)


def outcome(answer: Any) -> tuple[str, ...]:
    """The reason and the kinds of details of a refusal; nothing for an answer."""
    if not isinstance(answer, grpc.aio.AioRpcError):
        assert not isinstance(answer, BaseException), answer
        return ()
    status = rich_status(answer)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return answer.code().name, info.reason, *(detail.type_url.rsplit(".", 1)[-1] for detail in status.details[1:])


async def until_it_waits(database_url: str) -> None:
    """Returns when a batch waits for a lock that somebody else has."""
    observer = await asyncpg.connect(database_url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    try:
        async with asyncio.timeout(20):
            while not await observer.fetchval(waiting):
                await asyncio.sleep(0.005)
    finally:
        await observer.close()


@pytest.fixture
async def server(session_dir: Path) -> AsyncIterator[Cluster]:
    """A Postgres of this test's own, to stop and start."""
    cluster = Cluster(session_dir / f"own-{uuid.uuid4().hex[:8]}")
    with cluster.in_use():
        await asyncio.to_thread(cluster.start)
        yield cluster
        await asyncio.to_thread(cluster.stop_if_last)


async def test_a_database_that_goes_and_comes_back_needs_no_restart_of_ours(api: Any, server: Cluster) -> None:
    async with api("budget", database_url=server.url("farthing")) as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget = await create(stub)
        request_id = str(uuid.uuid4())
        await reserve(stub, 10, request_id)
        await asyncio.to_thread(server.stop_if_last)
        calls = [
            reserve(stub, 100),
            stub.ReleaseReservation(budget_pb2.ReleaseReservationRequest(request_id=request_id, scope=USER)),
            stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget.budget_id)),
            stub.ListBudgets(budget_pb2.ListBudgetsRequest(scope=ORGANIZATION)),
            stub.DeleteBudget(budget_pb2.DeleteBudgetRequest(scope=ORGANIZATION, budget_id=budget.budget_id)),
            stub.CheckBudget(budget_pb2.CheckBudgetRequest(scope=USER)),
            stub.QueryUsage(budget_pb2.QueryUsageRequest(scope=ORGANIZATION)),
            create(stub),
        ]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert outcome(answer) == ("UNAVAILABLE", "STORE_UNAVAILABLE", "RetryInfo")
        await asyncio.to_thread(server.start)
        assert (await reserve(stub, 10, request_id)).repeated
        await reserve(stub, 200)
        assert await held(stub, budget) == 210


async def test_a_full_queue_is_refused_with_a_time_to_come_back(api: Any, database_url: str) -> None:
    settings = {"FARTHING_BUDGET_QUEUE_SIZE_MAX": "1", "FARTHING_BUDGET_BATCH_SIZE_MAX": "1"}
    async with api("budget", environment=settings) as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget = await create(stub)
        await reserve(stub)
        blocker = await asyncpg.connect(database_url)
        try:
            async with blocker.transaction():
                await blocker.execute("SELECT FROM budget.balances FOR UPDATE")
                calls = [asyncio.ensure_future(reserve(stub))]
                await until_it_waits(database_url)
                calls += [asyncio.ensure_future(reserve(stub)) for _ in range(5)]
                async with asyncio.timeout(20):
                    while sum(call.done() for call in calls) < 4:
                        await asyncio.sleep(0.01)
        finally:
            await blocker.close()
        answers = [outcome(answer) for answer in await asyncio.gather(*calls, return_exceptions=True)]
        assert sorted(answers) == [(), ()] + [("UNAVAILABLE", "LEDGER_BUSY", "RetryInfo")] * 4
        assert await held(stub, budget) == 3


async def test_a_caller_who_gives_up_leaves_a_hold_that_its_repeat_finds(api: Any, database_url: str) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        budget, request_id = await create(stub), str(uuid.uuid4())
        await reserve(stub)
        blocker = await asyncpg.connect(database_url)
        try:
            async with blocker.transaction():
                await blocker.execute("SELECT FROM budget.balances FOR UPDATE")
                request = budget_pb2.ReserveBudgetRequest(request_id=request_id, scope=USER, amount_usd_nanos=10)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ReserveBudget(request, timeout=0.3)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        finally:
            await blocker.close()
        assert (await stub.ReserveBudget(request)).reservation.amount_usd_nanos == 10
        assert await held(stub, budget) == 11
