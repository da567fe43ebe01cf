"""Budgets through the generated stub, over both transports: what people make, change and ask."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

ORGANIZATION = "organizations/acme"
WORKSPACE = f"{ORGANIZATION}/workspaces/search"
USER = f"{WORKSPACE}/projects/ranker/users/ann"


def new_id() -> str:
    return str(uuid.uuid4())


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


def draft(**values: Any) -> Any:
    defaults = {"request_id": new_id(), "scope": ORGANIZATION, "period": budget_pb2.PERIOD_MONTH, "limit_usd_nanos": 1_000}
    return budget_pb2.CreateBudgetRequest(**{**defaults, **values})


def update(budget: Any, *paths: str, **values: Any) -> Any:
    return budget_pb2.UpdateBudgetRequest(
        **{"scope": ORGANIZATION, "budget_id": budget.budget_id, "update_mask": FieldMask(paths=paths), **values}
    )


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return caught.value.code(), info.reason, dict(info.metadata)


async def test_a_budget_comes_back_as_it_was_made(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        asked = draft(
            scope=USER, display_name="Ann's", period=budget_pb2.PERIOD_DAY, time_zone="Asia/Kathmandu", limit_tokens=7
        )
        made = (await stub.CreateBudget(asked)).budget
        assert (made.scope, made.display_name, made.period, made.time_zone) == (USER, "Ann's", 1, "Asia/Kathmandu")
        assert (made.limit_usd_nanos, made.limit_tokens, made.version) == (1_000, 7, 1)
        start, end = made.period_start_time.ToDatetime(tzinfo=UTC), made.period_end_time.ToDatetime(tzinfo=UTC)
        assert start <= datetime.now(UTC) < end
        assert (start.hour, start.minute, (end - start).days) == (18, 15, 1)
        found = (await stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=made.budget_id))).budget
        assert found == made


async def test_a_limit_that_was_not_given_is_absent(api: Any) -> None:
    async with api("budget") as channel_of:
        made = (await stub_of(channel_of).CreateBudget(draft(limit_usd_nanos=None, limit_tokens=0))).budget
        assert not made.HasField("limit_usd_nanos")
        assert made.HasField("limit_tokens")
        assert made.time_zone == "UTC"


async def test_the_same_request_makes_one_budget(api: Any) -> None:
    async with api("budget") as channel_of:
        stub, asked = stub_of(channel_of), draft()
        first, again = await asyncio.gather(stub.CreateBudget(asked), stub.CreateBudget(asked))
        assert first.budget.budget_id == again.budget.budget_id
        other = draft(request_id=asked.request_id, limit_usd_nanos=2_000)
        assert (await refusal(stub.CreateBudget(other)))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        assert (await refusal(stub.CreateBudget(draft())))[:2] == (grpc.StatusCode.ALREADY_EXISTS, "BUDGET_EXISTS")
        weekly = draft(period=budget_pb2.PERIOD_WEEK)
        assert (await stub.CreateBudget(weekly)).budget.budget_id != first.budget.budget_id


@pytest.mark.parametrize(
    ("paths", "values", "field"),
    [
        (["limit_usd_nanos"], {}, "limit_usd_nanos"),
        (["period"], {}, "update_mask"),
        (["nonsense"], {}, "update_mask"),
        ([], {}, "update_mask"),
        (["limit_tokens"], {"limit_tokens": -1}, "limit_tokens"),
        (["display_name"], {"display_name": "a\x00b"}, "display_name"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_with_the_field(
    api: Any, paths: list[str], values: dict[str, Any], field: str
) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (await stub.CreateBudget(draft())).budget
        code, reason, facts = await refusal(stub.UpdateBudget(update(made, *paths, **values)))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert field in facts["field"]


async def test_only_the_fields_that_are_named_change(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (await stub.CreateBudget(draft(display_name="old", limit_tokens=9))).budget
        changed = (await stub.UpdateBudget(update(made, "display_name", display_name="new", limit_tokens=1))).budget
        assert (changed.display_name, changed.limit_usd_nanos, changed.limit_tokens, changed.version) == ("new", 1_000, 9, 2)
        lifted = (await stub.UpdateBudget(update(made, "limit_usd_nanos"))).budget
        assert not lifted.HasField("limit_usd_nanos")
        code, reason, facts = await refusal(stub.UpdateBudget(update(made, "display_name", version=2)))
        assert (code, reason, facts["version"]) == (grpc.StatusCode.ABORTED, "VERSION_MISMATCH", "3")


async def test_nothing_is_told_of_another_organisations_budgets(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (await stub.CreateBudget(draft())).budget
        elsewhere = {"scope": "organizations/other", "budget_id": made.budget_id}
        calls = [
            stub.GetBudget(budget_pb2.GetBudgetRequest(**elsewhere)),
            stub.DeleteBudget(budget_pb2.DeleteBudgetRequest(**elsewhere)),
            stub.UpdateBudget(update(made, "display_name", scope="organizations/other")),
        ]
        for call in calls:
            assert (await refusal(call))[:2] == (grpc.StatusCode.NOT_FOUND, "BUDGET_NOT_FOUND")
        assert not (await stub.ListBudgets(budget_pb2.ListBudgetsRequest(scope="organizations/acm"))).budgets
        assert not (await stub.ListBudgets(budget_pb2.ListBudgetsRequest(scope="organizations/acme2"))).budgets


async def test_a_deleted_budget_is_gone_and_the_request_that_made_it_does_not_bring_it_back(api: Any) -> None:
    async with api("budget") as channel_of:
        stub, asked = stub_of(channel_of), draft()
        made = (await stub.CreateBudget(asked)).budget
        gone = budget_pb2.DeleteBudgetRequest(scope=ORGANIZATION, budget_id=made.budget_id)
        await stub.DeleteBudget(gone)
        for call in (stub.DeleteBudget(gone), stub.CreateBudget(asked), stub.UpdateBudget(update(made, "display_name"))):
            assert (await refusal(call))[:2] == (grpc.StatusCode.NOT_FOUND, "BUDGET_NOT_FOUND")
        assert not (await stub.ListBudgets(budget_pb2.ListBudgetsRequest(scope=ORGANIZATION))).budgets


@pytest.mark.parametrize("token", ["%%%", "WyJhIl0=", "WyJhIiwiwrIiXQ=="])
async def test_a_page_token_that_is_not_ours_is_refused(api: Any, token: str) -> None:
    async with api("budget") as channel_of:
        asked = budget_pb2.ListBudgetsRequest(scope=ORGANIZATION, page_token=token)
        code, _, facts = await refusal(stub_of(channel_of).ListBudgets(asked))
        assert (code, facts["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")


async def test_a_check_says_what_a_reservation_would_be_answered_and_takes_nothing(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (await stub.CreateBudget(draft())).budget

        async def check(amount: int) -> Any:
            return await stub.CheckBudget(budget_pb2.CheckBudgetRequest(scope=USER, amount_usd_nanos=amount))

        assert (await check(1_000)).verdict == budget_pb2.VERDICT_ALLOW
        denied = await check(1_001)
        assert denied.verdict == budget_pb2.VERDICT_DENY
        assert "1000 left" in denied.reason
        assert (denied.decision.reason, denied.decision.allowed_class) == ("LIMIT", budget_pb2.MODEL_CLASS_UNSPECIFIED)
        assert {each.kind for each in denied.decision.alternatives} == {"OPEN_MODELS", "MARK_CRITICAL"}
        assert (denied.left.budget_id, denied.left.free_usd_nanos) == (made.budget_id, 1_000)


async def test_a_check_of_an_overspent_budget_is_an_answer_and_no_error(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await stub.CreateBudget(draft())
        line = budget_pb2.UsageLine(model="m", cost_usd_nanos=1_500, outcome="accepted")
        record = budget_pb2.UsageRecord(lines=[line])
        await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=new_id(), scope=USER, usage=record))
        for amount, verdict in ((0, budget_pb2.VERDICT_ALLOW), (1, budget_pb2.VERDICT_DENY)):
            found = await stub.CheckBudget(budget_pb2.CheckBudgetRequest(scope=USER, amount_usd_nanos=amount))
            assert (found.verdict, found.left.free_usd_nanos) == (verdict, -500), "what is free of charge always fits"


async def test_a_refusal_says_how_long_to_wait_and_whose_quota_it_was(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (await stub.CreateBudget(draft(scope=WORKSPACE, period=budget_pb2.PERIOD_DAY))).budget
        line = budget_pb2.UsageLine(model="m", cost_usd_nanos=1_000, outcome="accepted")
        record = budget_pb2.UsageRecord(lines=[line])
        await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=new_id(), scope=USER, usage=record))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ReserveBudget(budget_pb2.ReserveBudgetRequest(request_id=new_id(), scope=USER, amount_usd_nanos=1))
        status = rich_status(caught.value)
        assert status is not None
        quota, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
        assert status.details[1].Unpack(quota)
        assert status.details[2].Unpack(retry)
        assert quota.violations[0].subject == WORKSPACE
        until_end_s = made.period_end_time.seconds - datetime.now(UTC).timestamp()
        assert abs(retry.retry_delay.ToTimedelta().total_seconds() - until_end_s) < 30
