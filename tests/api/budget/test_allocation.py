"""The allocation report through the generated stub, over both transports."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

ACME = "organizations/acme"
SEARCH, ADS = f"{ACME}/workspaces/search", f"{ACME}/workspaces/ads"


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


async def spend(stub: Any, scope: str, cost: int, *, baseline: int = 0, estimated: bool = False, **facts: Any) -> None:
    line = budget_pb2.UsageLine(
        model="m", provider="p", input_tokens=1, cost_usd_nanos=cost, outcome="accepted", estimated=estimated
    )
    saving = budget_pb2.Saving(route_usd_nanos=max(baseline - cost, 0))
    usage = budget_pb2.UsageRecord(lines=[line], baseline_usd_nanos=baseline or cost, saving=saving, **facts)
    await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=scope, usage=usage))


async def limit(stub: Any, scope: str, amount: int, period: int, **terms: Any) -> None:
    asked = budget_pb2.CreateBudgetRequest(
        request_id=str(uuid.uuid4()), scope=scope, limit_usd_nanos=amount, period=period, **terms
    )
    await stub.CreateBudget(asked)


async def report(stub: Any, scope: str = ACME, **values: Any) -> Any:
    return await stub.GetAllocationReport(budget_pb2.GetAllocationReportRequest(scope=scope, **values))


def day(offset: int = 0) -> Timestamp:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=offset)
    return Timestamp(seconds=int(midnight.timestamp()))


async def test_what_an_organisation_spent_falls_to_its_workspaces_and_adds_up(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await spend(stub, f"{SEARCH}/projects/ranker", 200, baseline=500)
        await spend(stub, SEARCH, 100, estimated=True)
        await spend(stub, ADS, 100)
        await spend(stub, f"{ACME}", 99)
        await spend(stub, "organizations/other/workspaces/search", 10**6)
        found = await report(stub)
        assert [(line.name, line.requests, line.cost_usd_nanos) for line in found.lines] == [
            ("search", 2, 300),
            ("ads", 1, 100),
            ("(none)", 1, 99),
        ]
        assert (found.cost_usd_nanos, found.requests, found.estimated_usd_nanos) == (499, 4, 100)
        assert sum(line.share_ppm for line in found.lines) == 1_000_000
        assert found.lines[0].saved_usd_nanos == 300
        assert found.start_time.ToDatetime().day == 1


async def test_groups_are_the_next_level_below_the_scope_unless_another_is_named(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await spend(stub, f"{SEARCH}/projects/ranker/users/ann", 5, service="crawler", domain="retail", key_id="k1")
        await spend(stub, f"{ADS}/projects/ranker/users/bob", 3, service="crawler", domain="legal", key_id="k2")

        async def names(scope: str, **values: Any) -> list[str]:
            return [line.name for line in (await report(stub, scope, **values)).lines]

        assert await names(SEARCH) == ["ranker"]
        assert await names(f"{SEARCH}/projects/ranker") == ["ann"]
        assert await names(f"{SEARCH}/projects/ranker/users/ann") == ["m"]
        assert await names(ACME, group=budget_pb2.USAGE_GROUP_USER) == ["ann", "bob"]
        # Two projects of one name are two projects.
        assert await names(ACME, group=budget_pb2.USAGE_GROUP_PROJECT) == ["search/ranker", "ads/ranker"]
        assert await names(ACME, group=budget_pb2.USAGE_GROUP_SERVICE) == ["crawler"]
        assert await names(ACME, group=budget_pb2.USAGE_GROUP_DOMAIN) == ["retail", "legal"]
        assert await names(ACME, group=budget_pb2.USAGE_GROUP_KEY) == ["k1", "k2"]
        assert await names(ACME, group=budget_pb2.USAGE_GROUP_SCOPE) == [
            f"{SEARCH}/projects/ranker/users/ann",
            f"{ADS}/projects/ranker/users/bob",
        ]


async def test_a_line_is_compared_with_its_budget_by_its_limit_per_day(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await limit(stub, SEARCH, 1_000, budget_pb2.PERIOD_DAY)
        await limit(stub, SEARCH, 70_000, budget_pb2.PERIOD_WEEK)
        await limit(stub, ADS, 100, budget_pb2.PERIOD_DAY, selector=budget_pb2.BudgetSelector(model="m"))
        await spend(stub, SEARCH, 2_500)
        await spend(stub, ADS, 50)
        search, ads = (await report(stub, start_time=day(-1), end_time=day(1))).lines
        assert (search.budget_usd_nanos, search.variance_usd_nanos) == (2_000, 500)
        assert not ads.HasField("budget_usd_nanos")
        assert not ads.HasField("variance_usd_nanos")
        by_model = await report(stub, group=budget_pb2.USAGE_GROUP_MODEL)
        assert not by_model.lines[0].HasField("budget_usd_nanos")


async def test_what_does_not_fit_is_one_line_and_nothing_is_lost(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for number in range(6):
            await spend(stub, f"{ACME}/workspaces/w{number}", 10 * number + 1)
        found = await report(stub, lines_max=3)
        assert [(line.name, line.cost_usd_nanos) for line in found.lines] == [("w5", 51), ("w4", 41), ("(other)", 64)]
        assert sum(line.share_ppm for line in found.lines) == 1_000_000
        assert sum(line.cost_usd_nanos for line in found.lines) == found.cost_usd_nanos
        assert sum(line.requests for line in found.lines) == found.requests == 6
        (all_of_it,) = (await report(stub, lines_max=1)).lines
        assert (all_of_it.name, all_of_it.cost_usd_nanos, all_of_it.share_ppm) == ("(other)", 156, 1_000_000)


async def test_the_range_before_is_shown_beside_also_for_groups_that_have_stopped(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await spend(stub, SEARCH, 70)
        # Asked of tomorrow, today is the range before.
        found = await report(stub, start_time=day(1), end_time=day(2))
        assert [(line.name, line.cost_usd_nanos, line.previous_cost_usd_nanos) for line in found.lines] == [("search", 0, 70)]
        assert (found.cost_usd_nanos, found.previous_cost_usd_nanos) == (0, 70)
        assert (await report(stub, start_time=day(3), end_time=day(4))).lines == []


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"group": budget_pb2.USAGE_GROUP_TAG}, "group"),
        ({"group": 99}, "group"),
        ({"lines_max": 10_001}, "lines_max"),
        ({"start_time": Timestamp(seconds=100), "end_time": Timestamp(seconds=100)}, "end_time"),
        ({"scope": "acme"}, "scope"),
    ],
)
async def test_a_bad_question_is_refused_with_the_field(api: Any, values: dict[str, Any], field: str) -> None:
    async with api("budget") as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await report(stub_of(channel_of), **{"scope": ACME, **values})
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")
