"""Which line carries a request, and what a record adds to the sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX


def line(outcome: str, *, model: str = "m", cost: int = 10) -> UsageLine:
    return UsageLine(model, "p", "d", 100, 40, 20, cost, outcome, False)


def record(*lines: UsageLine) -> UsageRecord:
    return UsageRecord("chat", lines, 500, Saving(1, 2, 3))


@pytest.mark.parametrize(
    ("outcomes", "carrier"),
    [
        (["accepted"], 0),
        (["rejected", "accepted"], 1),
        (["accepted", "failed"], 0),
        (["rejected", "failed"], 1),
        (["failed", "cache_semantic"], 1),
        (["cache_exact"], 0),
    ],
)
def test_the_line_whose_answer_was_delivered_carries_the_request(outcomes: list[str], carrier: int) -> None:
    assert [carries for _, _, carries in record(*map(line, outcomes)).attempts()].index(True) == carrier


def test_a_request_and_its_saving_are_booked_once_and_every_attempt_is_counted() -> None:
    both = record(line("rejected", model="small", cost=7), line("accepted", model="large", cost=30))
    sums = [(each.model, figures) for each, figures in both.figures()]
    assert sums == [
        ("small", (0, 1, 100, 40, 20, 7, 0, 0, 0, 0, 0, 0, 0)),
        ("large", (1, 1, 100, 40, 20, 30, 500, 1, 2, 3, 0, 0, 0)),
    ]


def test_cost_and_tokens_are_those_of_all_attempts() -> None:
    both = record(line("rejected", cost=7), line("accepted", cost=30))
    assert (both.cost_usd_nanos, both.tokens) == (37, 240)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (record(line("failed", cost=NANOS_MAX), line("accepted", cost=1)), "usage.lines"),
        (record(replace(line("accepted"), input_tokens=NANOS_MAX)), "usage.lines"),
        (replace(record(line("accepted")), saving=Saving(route_usd_nanos=-NANOS_MAX - 1)), "usage.saving.route_usd_nanos"),
    ],
)
def test_sums_that_no_balance_could_hold_are_refused(wrong: UsageRecord, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        wrong.checked()
    assert caught.value.field == field


def test_the_largest_amounts_are_still_taken() -> None:
    assert record(line("accepted", cost=NANOS_MAX)).checked().cost_usd_nanos == NANOS_MAX
