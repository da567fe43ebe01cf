"""Usage through the generated stub, over both transports."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

WORKSPACE = "organizations/acme/workspaces/search"
PROJECT = f"{WORKSPACE}/projects/ranker"


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


def line(model: str, cost: int, outcome: str = "accepted", *, provider: str = "p") -> Any:
    return budget_pb2.UsageLine(
        model=model, provider=provider, input_tokens=100, output_tokens=20, cost_usd_nanos=cost, outcome=outcome
    )


async def record(stub: Any, scope: str, *lines: Any, baseline: int = 0, task: str = "chat") -> None:
    cost = sum(each.cost_usd_nanos for each in lines)
    saving = budget_pb2.Saving(prompt_usd_nanos=3, route_usd_nanos=baseline - cost - 3)
    usage = budget_pb2.UsageRecord(task=task, lines=lines, baseline_usd_nanos=baseline, saving=saving)
    await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=scope, usage=usage))


async def query(stub: Any, scope: str, *groups: int, **values: Any) -> list[Any]:
    rows: list[Any] = []
    token = ""
    while True:
        page = await stub.QueryUsage(budget_pb2.QueryUsageRequest(scope=scope, group_by=groups, page_token=token, **values))
        rows += page.rows
        token = page.next_page_token
        if not token:
            return rows


async def test_a_request_of_three_attempts_counts_once_where_its_answer_came_from(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        attempts = line("small", 5, "rejected"), line("small", 6, "failed"), line("large", 50)
        await record(stub, PROJECT, *attempts, baseline=100)
        small, large = sorted(await query(stub, PROJECT, budget_pb2.USAGE_GROUP_MODEL), key=lambda row: -len(row.model + "x"))
        rows = {row.model: row for row in (small, large)}
        assert [(rows[name].requests, rows[name].attempts) for name in ("small", "large")] == [(0, 2), (1, 1)]
        assert [rows[name].cost_usd_nanos for name in ("small", "large")] == [11, 50]
        assert [rows[name].baseline_usd_nanos for name in ("small", "large")] == [0, 100]
        assert rows["large"].saving == budget_pb2.Saving(prompt_usd_nanos=3, route_usd_nanos=36)
        assert rows["small"].saving == budget_pb2.Saving()
        (everything,) = await query(stub, PROJECT)
        assert (everything.requests, everything.attempts, everything.input_tokens, everything.output_tokens) == (1, 3, 300, 60)


async def test_a_scope_takes_in_what_is_below_it_and_not_what_merely_begins_like_it(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        scopes = ["organizations/a", "organizations/ab", "organizations/a/workspaces/w", "organizations/a/workspaces/w2"]
        for number, scope in enumerate(scopes):
            await record(stub, scope, line("m", 10**number))
        cost = {scope: [row.cost_usd_nanos for row in await query(stub, scope)] for scope in scopes}
        assert cost == dict(zip(scopes, [[1_101], [10], [100], [1_000]], strict=True))
        by_scope = await query(stub, "organizations/a", budget_pb2.USAGE_GROUP_SCOPE)
        assert [(row.scope, row.cost_usd_nanos) for row in by_scope] == [(scopes[0], 1), (scopes[2], 100), (scopes[3], 1_000)]


@pytest.mark.parametrize("page_size", [1, 2, 5, 1_000])
async def test_pages_give_every_row_once_and_in_order(api: Any, page_size: int) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for number in range(5):
            await record(stub, PROJECT, line(f"m{number}", number + 1, provider=f"p{number % 2}"), task=f"t{number % 3}")
        groups = (budget_pb2.USAGE_GROUP_PROVIDER, budget_pb2.USAGE_GROUP_MODEL, budget_pb2.USAGE_GROUP_DAY)
        rows = await query(stub, WORKSPACE, *groups, page_size=page_size)
        assert [(row.provider, row.model) for row in rows] == [
            ("p0", "m0"),
            ("p0", "m2"),
            ("p0", "m4"),
            ("p1", "m1"),
            ("p1", "m3"),
        ]
        assert {row.day for row in rows} <= {(datetime.now(UTC) - timedelta(minutes=n)).date().isoformat() for n in (0, 2)}
        assert {(row.task, row.scope) for row in rows} == {("", "")}


async def test_only_the_hours_asked_for_are_summed(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await record(stub, PROJECT, line("m", 7))
        now = int(datetime.now(UTC).timestamp())
        past = {"start_time": Timestamp(seconds=now - 90_000), "end_time": Timestamp(seconds=now - 7_200)}
        assert await query(stub, PROJECT, **past) == []
        around = {"start_time": Timestamp(seconds=now - 60), "end_time": Timestamp(seconds=now + 60)}
        assert [row.cost_usd_nanos for row in await query(stub, PROJECT, **around)] == [7]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scope": "", "group_by": [1]}, "scope"),
        ({"group_by": [0]}, "group_by"),
        ({"group_by": [1, 1]}, "group_by"),
        ({"group_by": [99]}, "group_by"),
        ({"page_size": -1}, "page_size"),
        ({"page_size": 10_001}, "page_size"),
        ({"page_token": "not ours"}, "page_token"),
        ({"start_time": Timestamp(seconds=100), "end_time": Timestamp(seconds=50)}, "end_time"),
        ({"end_time": Timestamp(seconds=10**15)}, "end_time"),
    ],
)
async def test_a_bad_question_is_refused_with_the_field(api: Any, values: dict[str, Any], field: str) -> None:
    async with api("budget") as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel_of).QueryUsage(budget_pb2.QueryUsageRequest(**{"scope": PROJECT, **values}))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("usage", "field"),
    [
        (None, "usage"),
        (budget_pb2.UsageRecord(), "usage.lines"),
        (budget_pb2.UsageRecord(lines=[line("", 1)]), "model"),
        (budget_pb2.UsageRecord(lines=[line("m", -1)]), "cost_usd_nanos"),
        (budget_pb2.UsageRecord(lines=[line("m\x00", 1)]), "usage.lines[0].model"),
        (budget_pb2.UsageRecord(lines=[line("m", 2**53 - 1), line("m", 1)]), "usage.lines"),
        (budget_pb2.UsageRecord(lines=[line("m", 1)], saving=budget_pb2.Saving(cache_usd_nanos=2**62)), "cache_usd_nanos"),
        (budget_pb2.UsageRecord(lines=[line("m", 1)] * 65), "usage.lines"),
    ],
)
async def test_a_bad_record_is_refused_with_the_field(api: Any, usage: Any, field: str) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=PROJECT, usage=usage))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")
        assert await query(stub, PROJECT) == []
