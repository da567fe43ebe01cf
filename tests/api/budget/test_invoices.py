"""Invoices through the generated stub, over both transports."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc

PROJECT = "organizations/acme/workspaces/search/projects/ranker"


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


async def record(stub: Any, *, scope: str = PROJECT, **line: Any) -> None:
    given = {"model": "m", "provider": "p", "outcome": "accepted", "input_tokens": 1_000, "output_tokens": 100, **line}
    usage = budget_pb2.UsageRecord(lines=[budget_pb2.UsageLine(**given)])
    await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=scope, usage=usage))


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def invoice(*lines: Any, **values: Any) -> Any:
    given = {"request_id": str(uuid.uuid4()), "scope": "organizations/acme", "provider": "p", "lines": lines, **values}
    return budget_pb2.ImportInvoiceRequest(**given)


def line(cost: int, *, model: str = "m", day: str = "", **values: Any) -> Any:
    return budget_pb2.InvoiceLine(model=model, day=day or today(), cost_usd_nanos=cost, **values)


async def test_case_16_an_invoice_is_compared_with_what_was_tracked_of_its_provider(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for _ in range(2):
            await record(stub, cost_usd_nanos=1_000_000_001)
        await record(stub, model="n", cost_usd_nanos=700_000_003)
        await record(stub, model="m", provider="q", cost_usd_nanos=99)
        await record(stub, scope="organizations/other", cost_usd_nanos=99)
        bill = (
            line(2_000_000_002, model="m-2026"),
            line(900_000_003, model="n", input_tokens=1_000, output_tokens=100),
            line(5, model="ghost"),
        )
        found = await stub.ImportInvoice(invoice(*bill, model_names={"m-2026": "m"}))
        assert [(each.model, each.day, each.difference_usd_nanos, each.cause) for each in found.differences] == [
            ("n", today(), 200_000_000, "RATE"),
            ("ghost", today(), 5, "NOT_TRACKED"),
            ("m", today(), 0, "NONE"),
        ]
        assert (found.billed_usd_nanos, found.tracked_usd_nanos) == (2_900_000_010, 2_700_000_005)
        assert found.explained_usd_nanos == 200_000_005


async def test_case_16_an_exported_invoice_reconciles_with_itself(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        for number, model in enumerate(("m", "n", "m")):
            await record(stub, model=model, cost_usd_nanos=123_456_789 + number)
        asked = budget_pb2.ExportUsageRequest(scope="organizations/acme", format=budget_pb2.EXPORT_FORMAT_INVOICE)
        text = b"".join([part.chunk async for part in stub.ExportUsage(asked)]).decode()
        found = await stub.ImportInvoice(invoice(csv=text))
        assert {each.cause for each in found.differences} == {"NONE"}
        assert found.billed_usd_nanos == found.tracked_usd_nanos == 3 * 123_456_789 + 3


async def test_an_import_is_done_once_whatever_was_tracked_since(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await record(stub, cost_usd_nanos=1_000)
        asked = invoice(line(1_000))
        first = await stub.ImportInvoice(asked)
        await record(stub, cost_usd_nanos=500)
        assert await stub.ImportInvoice(asked) == first
        assert [each.cause for each in first.differences] == ["NONE"]
        again = invoice(line(1_000))
        assert (await stub.ImportInvoice(again)).tracked_usd_nanos == 1_500
        again.request_id = asked.request_id
        again.provider = "q"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ImportInvoice(again)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "another body" in (caught.value.details() or "")


async def test_cached_input_billed_at_the_full_price_is_found_from_the_rates_of_usage(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        full = 0
        for number in range(1, 9):
            fresh, cached, out = 700 * number, 90 * number * number, 1_000 // number
            full += (fresh + cached) * 3_000 + out * 15_000
            await record(
                stub,
                scope=f"{PROJECT}/users/u{number}",
                input_tokens=fresh + cached,
                cached_input_tokens=cached,
                output_tokens=out,
                cost_usd_nanos=fresh * 3_000 + cached * 300 + out * 15_000,
            )
        (found,) = (await stub.ImportInvoice(invoice(line(full)))).differences
        assert found.cause == "CACHED_INPUT", found.explanation
        assert "cached input tokens at the full rate" in found.explanation


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"lines": []}, "lines"),
        ({"csv": "model,day,cost_usd\n"}, "csv"),
        ({"lines": [], "csv": "model,day\n"}, "csv"),
        ({"lines": [], "csv": "a\x00"}, "csv"),
        ({"lines": [budget_pb2.InvoiceLine(model="m", day="2026-02-30")]}, "lines[0].day"),
        ({"lines": [budget_pb2.InvoiceLine(model="m", day="yesterday")]}, "day"),
        ({"lines": [budget_pb2.InvoiceLine(model="m\x00", day="2026-02-03")]}, "lines[0].model"),
        ({"provider": ""}, "provider"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_a_bad_invoice_is_refused_with_the_field(api: Any, values: dict[str, Any], field: str) -> None:
    async with api("budget") as channel_of:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel_of).ImportInvoice(invoice(**{"lines": [line(1)], **values}))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in (caught.value.details() or "")
