"""Usage through the generated stub, over both transports."""

from __future__ import annotations

import csv
import io
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


async def write(stub: Any, *lines: Any, scope: str = f"{PROJECT}/users/ann", **facts: Any) -> None:
    usage = budget_pb2.UsageRecord(lines=lines, **facts)
    await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=scope, usage=usage))


GROUPS = {
    budget_pb2.USAGE_GROUP_MODEL: ("model", "m"),
    budget_pb2.USAGE_GROUP_PROVIDER: ("provider", "p"),
    budget_pb2.USAGE_GROUP_TASK: ("task", "chat"),
    budget_pb2.USAGE_GROUP_SERVICE: ("service", "crawler"),
    budget_pb2.USAGE_GROUP_DOMAIN: ("domain", "retail"),
    budget_pb2.USAGE_GROUP_KEY: ("key_id", "k1"),
    budget_pb2.USAGE_GROUP_WORKSPACE: ("workspace", "search"),
    budget_pb2.USAGE_GROUP_PROJECT: ("project", "ranker"),
    budget_pb2.USAGE_GROUP_USER: ("user", "ann"),
    budget_pb2.USAGE_GROUP_SCOPE: ("scope", f"{PROJECT}/users/ann"),
}


async def test_usage_is_grouped_by_whatever_is_known_of_a_request(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await write(stub, line("m", 5), task="chat", service="crawler", domain="retail", key_id="k1", tags=["a", "b"])
        await write(stub, line("n", 7, provider="q"), scope="organizations/acme/workspaces/ads")
        for group, (field, value) in GROUPS.items():
            rows = {getattr(row, field): row.cost_usd_nanos for row in await query(stub, "organizations/acme", group)}
            assert len(rows) == 2, field
            assert rows[value] == 5, field
        (hour,) = {row.hour for row in await query(stub, WORKSPACE, budget_pb2.USAGE_GROUP_HOUR)}
        assert abs(datetime.fromisoformat(hour) - datetime.now(UTC)) < timedelta(hours=1, minutes=2)
        tags = await query(stub, "organizations/acme", budget_pb2.USAGE_GROUP_TAG, budget_pb2.USAGE_GROUP_MODEL)
        assert [(row.tag, row.model, row.requests, row.cost_usd_nanos) for row in tags] == [("a", "m", 1, 5), ("b", "m", 1, 5)]


async def test_only_usage_that_matches_every_field_of_the_filter_counts(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await write(stub, line("m", 1), task="chat", service="s1", domain="d1", key_id="k1", tags=["t"])
        await write(stub, line("m", 10), task="chat", service="s2", domain="d1", key_id="k1", tags=["t"])
        await write(stub, line("n", 100, provider="q"), task="code", service="s1", domain="d2", key_id="k2")

        async def cost(*groups: int, **only: str) -> list[int]:
            found = await query(stub, PROJECT, *groups, filter=budget_pb2.UsageFilter(**only))
            return [row.cost_usd_nanos for row in found]

        assert await cost(model="m") == [11]
        assert await cost(provider="q") == [100]
        assert await cost(task="chat", service="s1") == [1]
        assert await cost(domain="d1", key_id="k1") == [11]
        assert await cost(budget_pb2.USAGE_GROUP_TAG, service="s2") == [10]
        assert await cost(model="m", key_id="k2") == []


async def test_the_top_spenders_are_the_dearest_rows_and_have_one_page(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for number in range(5):
            await write(stub, line("m", 10 + number), scope=f"{PROJECT}/users/u{number}")
        asked = budget_pb2.QueryUsageRequest(scope=PROJECT, group_by=[budget_pb2.USAGE_GROUP_USER], page_size=2, by_cost=True)
        page = await stub.QueryUsage(asked)
        assert [(row.user, row.cost_usd_nanos) for row in page.rows] == [("u4", 14), ("u3", 13)]
        assert page.next_page_token == ""


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"group_by": [budget_pb2.USAGE_GROUP_TAG, budget_pb2.USAGE_GROUP_USER]}, "group_by"),
        ({"group_by": [budget_pb2.USAGE_GROUP_TAG, budget_pb2.USAGE_GROUP_KEY]}, "group_by"),
        ({"group_by": [1], "by_cost": True, "page_token": "WyJtIl0="}, "page_token"),
        ({"filter": budget_pb2.UsageFilter(task="a\x00")}, "filter.task"),
        ({"filter": budget_pb2.UsageFilter(task="a" * 61)}, "filter.task"),
    ],
)
async def test_questions_that_make_no_sense_are_refused_with_the_field(api: Any, values: dict[str, Any], field: str) -> None:
    async with api("budget") as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel_of).QueryUsage(budget_pb2.QueryUsageRequest(**{"scope": PROJECT, **values}))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")


async def test_case_11_reported_zero_is_not_missing_and_every_figure_says_where_it_is_from(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for source in ("REPORTED", "DERIVED", "ESTIMATED", "MISSING"):
            given = line(source.lower(), 0 if source == "REPORTED" else 9)
            given.tokens_source = getattr(budget_pb2, f"FIGURE_SOURCE_{source}")
            given.output_tokens = 0
            await write(stub, given)
        rows = {row.model: row.estimated_attempts for row in await query(stub, PROJECT, budget_pb2.USAGE_GROUP_MODEL)}
        assert rows == {"reported": 0, "derived": 0, "estimated": 1, "missing": 1}
        asked = budget_pb2.ExportUsageRequest(scope=PROJECT, format=budget_pb2.EXPORT_FORMAT_CSV)
        text = b"".join([part.chunk async for part in stub.ExportUsage(asked)]).decode()
        exported = {row["model"]: (row["tokens_source"], row["output_tokens"]) for row in csv.DictReader(io.StringIO(text))}
        assert exported == {name: (name, "0") for name in ("reported", "derived", "estimated", "missing")}
        report = await stub.GetAllocationReport(budget_pb2.GetAllocationReportRequest(scope=PROJECT))
        assert (report.cost_usd_nanos, report.estimated_usd_nanos) == (27, 18)


async def test_case_15_a_cache_hit_costs_nothing_and_is_shown_as_avoided_cost_in_its_own_column(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        hit = line("m", 0, "cache_exact", provider="cache")
        await write(stub, hit, baseline_usd_nanos=700, saving=budget_pb2.Saving(cache_usd_nanos=700))
        await write(stub, line("m", 300), baseline_usd_nanos=700, saving=budget_pb2.Saving(route_usd_nanos=400))
        rows = {row.provider: row for row in await query(stub, PROJECT, budget_pb2.USAGE_GROUP_PROVIDER)}
        assert (rows["cache"].cost_usd_nanos, rows["cache"].saving.cache_usd_nanos, rows["cache"].requests) == (0, 700, 1)
        assert (rows["p"].cost_usd_nanos, rows["p"].saving.cache_usd_nanos, rows["p"].saving.route_usd_nanos) == (300, 0, 400)
        asked = budget_pb2.ExportUsageRequest(scope=PROJECT, format=budget_pb2.EXPORT_FORMAT_CSV)
        text = b"".join([part.chunk async for part in stub.ExportUsage(asked)]).decode()
        columns = {row["provider"]: row["saved_cache_usd_nanos"] for row in csv.DictReader(io.StringIO(text))}
        assert columns == {"cache": "700", "p": "0"}
