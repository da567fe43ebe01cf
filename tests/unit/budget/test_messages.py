"""What callers send is checked before it reaches the ledger."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing.budget.v1 import budget_pb2
from farthing_budget import messages
from farthing_budget.edge.usage import question
from farthing_core.errors import FieldInvalid
from google.protobuf.timestamp_pb2 import Timestamp

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


def asked(**values: Any) -> Any:
    return budget_pb2.QueryUsageRequest(scope="organizations/acme", **values)


def at(*parts: int) -> Timestamp:
    return messages.timestamp(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type]


def test_a_range_is_widened_to_whole_hours() -> None:
    found = question(asked(start_time=at(2026, 3, 1, 9, 59), end_time=at(2026, 3, 1, 11, 0, 1)), NOW)
    assert (found.start, found.end) == (datetime(2026, 3, 1, 9, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_without_a_range_it_is_the_last_30_days_up_to_now() -> None:
    found = question(asked(), NOW)
    assert (found.start, found.end) == (datetime(2026, 2, 13, 12, tzinfo=UTC), datetime(2026, 3, 15, 13, tzinfo=UTC))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"start_time": at(2026, 3, 2), "end_time": at(2026, 3, 1)}, "end_time"),
        ({"end_time": Timestamp(seconds=10**15)}, "end_time"),
        ({"start_time": Timestamp(seconds=-(10**15))}, "start_time"),
        ({"end_time": Timestamp(seconds=253_402_300_799)}, "end_time"),
        ({"end_time": Timestamp(seconds=-62_135_596_800)}, "end_time"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        question(asked(**values), NOW)
    assert caught.value.field == field


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "%%%",
        "abc",
        encoded("{}"),
        encoded("[1]"),
        encoded('["\\u0000"]'),
        encoded('["\\ud800"]'),
        encoded("[" * 1400),
        encoded("not json"),
        "ünlesbar",
    ],
)
def test_a_page_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        messages.page_keys(token)
    assert caught.value.field == "page_token"


def test_a_page_token_leads_back_to_its_keys() -> None:
    keys = ("ünïcode", "", "a/b")
    assert messages.page_keys(messages.page_token(keys)) == keys
    assert messages.page_keys("") is None


def test_a_page_token_of_another_question_is_refused() -> None:
    with pytest.raises(FieldInvalid):
        question(asked(page_token=messages.page_token(("a", "b")), group_by=[1]), NOW)


@pytest.mark.parametrize("keys", [["a"], ["a", "²", "b"], ["a", "99", "b"], ["a", "0", "b"], ["a", "2"]])
def test_a_page_token_of_budgets_names_a_scope_a_period_and_a_budget(keys: list[str]) -> None:
    with pytest.raises(FieldInvalid):
        messages.last_budget(encoded(json.dumps(keys)))
    assert messages.last_budget(messages.page_token(("a", "2", "b"))) == ("a", 2, "b")


@pytest.mark.parametrize("field", ["model", "provider", "deployment", "outcome"])
def test_a_nul_character_is_refused_where_it_stands(field: str) -> None:
    lines = [budget_pb2.UsageLine(model="m"), budget_pb2.UsageLine(**{"model": "m", field: "a\x00"})]
    with pytest.raises(FieldInvalid) as caught:
        messages.usage_record(budget_pb2.UsageRecord(lines=lines))
    assert caught.value.field == f"usage.lines[1].{field}"


def test_two_bodies_have_two_hashes_and_one_body_has_one() -> None:
    one = budget_pb2.ReserveBudgetRequest(request_id="a", amount_usd_nanos=1)
    same = budget_pb2.ReserveBudgetRequest(amount_usd_nanos=1, request_id="a")
    other = budget_pb2.ReserveBudgetRequest(request_id="a", amount_usd_nanos=2)
    assert messages.body_hash(one) == messages.body_hash(same) != messages.body_hash(other)
