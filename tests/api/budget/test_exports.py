"""Exports of usage through the generated stub, over both transports."""

from __future__ import annotations

import csv
import io
import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

PROJECT = "organizations/acme/workspaces/search/projects/ranker"
FOCUS, CSV, INVOICE = budget_pb2.EXPORT_FORMAT_FOCUS, budget_pb2.EXPORT_FORMAT_CSV, budget_pb2.EXPORT_FORMAT_INVOICE
EVERY_FIGURE = {
    "model": "claude",
    "provider": "anthropic",
    "deployment": "claude-eu",
    "outcome": "accepted",
    "input_tokens": 1_000,
    "cached_input_tokens": 400,
    "cache_write_5m_tokens": 30,
    "cache_write_1h_tokens": 20,
    "audio_input_tokens": 10,
    "output_tokens": 200,
    "reasoning_tokens": 150,
    "audio_output_tokens": 5,
    "cost_usd_nanos": 1_234_567_890_123,
    "price_source": "contract acme-2026",
    "service_tier": "priority",
    "tokens_source": budget_pb2.FIGURE_SOURCE_DERIVED,
    "price_unknown": True,
}


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


async def record(stub: Any, *lines: Any, scope: str = PROJECT, **facts: Any) -> str:
    request_id = str(uuid.uuid4())
    usage = budget_pb2.UsageRecord(lines=[budget_pb2.UsageLine(**line) for line in lines], **facts)
    await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=request_id, scope=scope, usage=usage))
    return request_id


async def export(stub: Any, form: int, scope: str = PROJECT, **values: Any) -> tuple[list[dict[str, str]], list[Any]]:
    chunks = [each async for each in stub.ExportUsage(budget_pb2.ExportUsageRequest(scope=scope, format=form, **values))]
    text = b"".join(chunk.chunk for chunk in chunks).decode()
    return list(csv.DictReader(io.StringIO(text))), chunks


async def test_the_plain_export_has_every_figure_of_every_attempt(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        rejected = {"model": "small", "provider": "p", "outcome": "rejected", "cost_usd_nanos": 7}
        tags = ["team:red", 'odd,"one"']
        saving = budget_pb2.Saving(route_usd_nanos=-5, cache_usd_nanos=2)
        facts = {"task": "chat", "service": "crawler", "domain": "retail", "key_id": "k1", "tags": tags, "saving": saving}
        before = datetime.now(UTC)
        request_id = await record(stub, rejected, EVERY_FIGURE, baseline_usd_nanos=9, **facts)
        (cheap, dear), _ = await export(stub, CSV)
        assert (cheap["line"], cheap["model"], cheap["carries"], cheap["cost_usd"]) == ("0", "small", "false", "0.000000007")
        assert cheap["baseline_usd_nanos"] == "0"
        assert (dear["request_id"], dear["line"], dear["carries"], dear["scope"]) == (request_id, "1", "true", PROJECT)
        for name, value in EVERY_FIGURE.items():
            if name not in ("tokens_source", "price_unknown"):
                assert dear[name] == str(value), name
        assert (dear["tokens_source"], dear["price_unknown"], dear["estimated"]) == ("derived", "true", "false")
        assert (dear["cost_usd"], dear["baseline_usd_nanos"]) == ("1234.567890123", "9")
        assert [dear[f"saved_{name}_usd_nanos"] for name in ("cache", "prompt", "route")] == ["2", "0", "-5"]
        assert [dear[name] for name in ("task", "service", "domain", "key_id")] == ["chat", "crawler", "retail", "k1"]
        assert json.loads(dear["tags"]) == tags
        assert abs(datetime.fromisoformat(dear["recorded_at"]) - before) < timedelta(minutes=1)


async def test_the_focus_export_has_the_columns_of_1_2_and_its_costs_add_up_exactly(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await record(stub, EVERY_FIGURE, task="chat", tags=["team:red", "urgent"])
        await record(stub, {"model": "m", "provider": "", "outcome": "failed"}, scope="organizations/acme")
        (row, bare), _ = await export(stub, FOCUS, "organizations/acme")
        mandatory = (
            "BilledCost BillingAccountId BillingAccountType BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory "
            "ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost PricingQuantity "
            "PricingUnit ProviderName PublisherName ServiceCategory ServiceName ServiceSubcategory ChargeFrequency"
        ).split()
        assert len([name for name in row if not name.startswith("x_")]) == 57
        assert [name for name in mandatory if not row[name] or not bare[name]] == []
        assert Decimal(row["BilledCost"]) == Decimal("1234.567890123")
        assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
        assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == ("1200", "Tokens")
        assert (row["ProviderName"], row["SkuId"], row["SkuPriceId"]) == (
            "anthropic",
            "anthropic/claude",
            "anthropic/claude/priority",
        )
        assert (row["SubAccountId"], row["SubAccountName"]) == ("organizations/acme/workspaces/search", "search")
        assert (bare["SubAccountId"], bare["SubAccountType"], bare["ResourceType"]) == ("", "", "")
        assert json.loads(row["Tags"]) == {"team": "red", "urgent": True}
        start, end = (datetime.fromisoformat(row[name]) for name in ("ChargePeriodStart", "ChargePeriodEnd"))
        assert start <= datetime.now(UTC) <= end + timedelta(minutes=2)
        assert end - start == timedelta(hours=1)
        period = datetime.fromisoformat(row["BillingPeriodStart"]), datetime.fromisoformat(row["BillingPeriodEnd"])
        assert (period[0].day, period[1].day, period[0].hour) == (1, 1, 0)
        assert period[0] <= start < period[1]


async def test_a_refund_is_a_negative_charge(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        request_id = str(uuid.uuid4())
        await stub.ReserveBudget(budget_pb2.ReserveBudgetRequest(request_id=request_id, scope=PROJECT, amount_usd_nanos=100))
        usage = budget_pb2.UsageRecord(lines=[budget_pb2.UsageLine(**EVERY_FIGURE)], task="chat", service="crawler")
        settle = budget_pb2.SettleReservationRequest(request_id=request_id, scope=PROJECT, usage=usage)
        await stub.SettleReservation(settle)
        await stub.AdjustBudget(
            budget_pb2.AdjustBudgetRequest(
                request_id=str(uuid.uuid4()), scope=PROJECT, reservation_id=request_id, amount_usd_nanos=-23, reason="refund"
            )
        )
        rows, _ = await export(stub, FOCUS)
        refund = rows[1]
        assert (refund["BilledCost"], refund["PricingQuantity"], refund["ListUnitPrice"]) == (
            "-0.000000023",
            "-1",
            "0.000000023",
        )
        # It stands where the request stood, so that reports add up to the balances.
        assert [refund[name] for name in ("SkuId", "x_Task", "x_Service", "x_Outcome")] == [
            "anthropic/claude",
            "chat",
            "crawler",
            "refund",
        ]


async def test_cells_that_a_spreadsheet_would_run_are_defused(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        line = {"model": "=HYPERLINK(1)", "provider": "+p", "deployment": "@d", "outcome": "-accepted"}
        await record(stub, line, task="\t=1+1", service="=cmd|' /C calc'!A0", tags=["=1", "a\nb"])
        for form in (CSV, FOCUS, INVOICE):
            (row,), _ = await export(stub, form)
            begins = {value[0] for value in row.values() if value}
            assert not begins & set("=+-@\t\r"), form
        (row,), _ = await export(stub, CSV)
        assert (row["model"], row["task"]) == ("'=HYPERLINK(1)", "'\t=1+1")


async def test_the_invoice_export_has_a_line_a_model_and_day(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for cost in (5, 6):
            await record(stub, {**EVERY_FIGURE, "cost_usd_nanos": cost}, baseline_usd_nanos=20)
        await record(stub, {"model": "m", "provider": "p", "outcome": "accepted", "cost_usd_nanos": 1})
        claude, small = (await export(stub, INVOICE))[0]
        assert (claude["model"], claude["requests"], claude["input_tokens"], claude["cached_input_tokens"]) == (
            "claude",
            "2",
            "2000",
            "800",
        )
        assert (claude["cost_usd"], claude["cost_usd_nanos"], claude["baseline_usd"]) == ("0.000000011", "11", "0.000000040")
        assert (small["model"], small["provider"], small["cost_usd"]) == ("m", "p", "0.000000001")


async def test_a_large_export_comes_in_chunks_of_whole_lines_and_of_bounded_size(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        lines = [{"model": f"m{number}", "outcome": "accepted", "deployment": "d" * 200} for number in range(64)]
        for _ in range(20):
            await record(stub, *lines, domain="line\nbreak", tags=["t" * 120])
        rows, chunks = await export(stub, CSV)
        assert len(rows) == 20 * 64 == chunks[-1].rows
        assert len(chunks) > 2
        assert max(len(chunk.chunk) for chunk in chunks) < 300_000
        header = chunks[0].chunk.split(b"\n")[0] + b"\n"
        for chunk in chunks:  # each parses by itself behind the header
            text = chunk.chunk if chunk is chunks[0] else header + chunk.chunk
            assert all(
                len(row) == len(rows[0]) and None not in row.values() for row in csv.DictReader(io.StringIO(text.decode()))
            )


async def test_only_the_scope_the_range_and_the_filter_asked_for_are_exported(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await record(stub, {"model": "a", "provider": "p", "outcome": "accepted"}, service="s1")
        await record(stub, {"model": "b", "provider": "p", "outcome": "accepted"}, service="s2")
        await record(stub, {"model": "a", "outcome": "accepted"}, scope=f"{PROJECT}2")
        await record(stub, {"model": "a", "outcome": "accepted"}, scope=PROJECT.replace("acme", "other"))
        assert [row["model"] for row in (await export(stub, CSV))[0]] == ["a", "b"]
        assert [row["model"] for row in (await export(stub, CSV, filter=budget_pb2.UsageFilter(service="s2")))[0]] == ["b"]
        now = int(datetime.now(UTC).timestamp())
        past = {"start_time": Timestamp(seconds=now - 7_200), "end_time": Timestamp(seconds=now - 3_600)}
        for form in (CSV, FOCUS):
            rows, (only,) = await export(stub, form, **past)
            assert (rows, only.rows) == ([], 0)
            assert only.chunk.count(b"\n") == 1  # the header


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"format": 9}, "format"),
        ({"scope": "acme"}, "scope"),
        ({"start_time": Timestamp(seconds=9), "end_time": Timestamp(seconds=9)}, "end_time"),
        ({"filter": budget_pb2.UsageFilter(model="a\x00")}, "filter.model"),
    ],
)
async def test_a_bad_export_is_refused_with_the_field(api: Any, values: dict[str, Any], field: str) -> None:
    async with api("budget") as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub_of(channel_of).ExportUsage(budget_pb2.ExportUsageRequest(**{"scope": PROJECT, **values})):
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")
