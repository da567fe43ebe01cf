"""Rating history again: what differs is booked once, whatever is repeated."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from farthing_runtime.rerating import (
    COUNTS,
    Attempt,
    ExportUnreadable,
    Rating,
    Report,
    TooManyCorrections,
    corrections_of,
    read_rows,
    rerate,
)

COLUMNS = (
    "request_id",
    "line",
    "recorded_at",
    "scope",
    "model",
    "provider",
    "service_tier",
    "outcome",
    *COUNTS,
    "cost_usd_nanos",
)


def row(**changes: Any) -> dict[str, str]:
    values = {
        "request_id": str(uuid.uuid4()),
        "line": 0,
        "recorded_at": "2026-07-01T23:59:59.000000Z",
        "scope": "organizations/acme",
        "model": "m",
        "provider": "p",
        "service_tier": "",
        "outcome": "accepted",
        **dict.fromkeys(COUNTS, 0),
        "input_tokens": 10,
        "cost_usd_nanos": 100,
        **changes,
    }
    return {name: str(values[name]) for name in COLUMNS}


class Books:
    """A ledger of rows, and a price of so many nanodollars a prompt token."""

    def __init__(self, *rows: dict[str, str]) -> None:
        self.rows = list(rows)
        self.nanos_per_token = 10
        self.ids: dict[str, int] = {}

    async def chunks(self) -> AsyncIterator[bytes]:
        for line in [list(COLUMNS), *([each[name] for name in COLUMNS] for each in self.rows)]:
            text = io.StringIO()
            csv.writer(text).writerow(line)
            yield text.getvalue().encode()

    async def rate(self, attempt: Attempt) -> Rating:
        if attempt.model == "gone":
            return Rating(problem="MODEL_UNKNOWN (gone)")
        return Rating(attempt.counts["input_tokens"] * self.nanos_per_token, "price book/x")

    async def book(self, attempt: Attempt, request_id: str, difference_usd_nanos: int, reason: str) -> str:
        if attempt.model == "open":
            return "RESERVATION_OPEN"
        assert self.ids.setdefault(request_id, difference_usd_nanos) == difference_usd_nanos
        outcome = "refund" if difference_usd_nanos < 0 else "correction"
        corrected = row(request_id=request_id, outcome=outcome, input_tokens=0, cost_usd_nanos=difference_usd_nanos)
        if corrected["request_id"] not in {each["request_id"] for each in self.rows}:
            self.rows.append(corrected)
        return ""

    async def run(self, *, apply: bool = True) -> Report:
        corrections = await corrections_of(read_rows(self.chunks()))
        return await rerate(read_rows(self.chunks()), corrections, rate=self.rate, book=self.book if apply else None)

    @property
    def total(self) -> int:
        return sum(int(each["cost_usd_nanos"]) for each in self.rows)


async def test_differences_are_summed_by_day_and_model_and_nothing_is_booked_unasked() -> None:
    books = Books(row(), row(recorded_at="2026-07-02T00:00:00.000000Z"), row(model="n", input_tokens=20))
    books.nanos_per_token = 12
    report = await books.run(apply=False)
    assert {key: (found.attempts, found.changed, found.difference_usd_nanos) for key, found in report.sums.items()} == {
        ("2026-07-01", "m"): (1, 1, 20),
        ("2026-07-02", "m"): (1, 1, 20),
        ("2026-07-01", "n"): (1, 1, 140),
    }
    assert (report.booked, len(books.rows)) == (0, 3)


async def test_a_second_run_books_nothing_twice() -> None:
    books = Books(row(), row(line=1, cost_usd_nanos=500))
    books.nanos_per_token = 12
    assert (await books.run()).booked == 2
    assert books.total == 240
    again = await books.run()
    assert (again.booked, sum(found.changed for found in again.sums.values()), books.total) == (0, 0, 240)


async def test_prices_that_change_again_and_back_are_followed_to_the_nano() -> None:
    books = Books(row())
    for nanos_per_token in (12, 7, 10, 12, 10, 0, 10):
        books.nanos_per_token = nanos_per_token
        await books.run()
        assert books.total == 10 * nanos_per_token


async def test_two_runs_at_once_share_their_request_ids() -> None:
    books = Books(*(row() for _ in range(100)))
    books.nanos_per_token = 11
    corrections = await corrections_of(read_rows(books.chunks()))
    before = list(books.rows)
    for _ in range(2):
        seen = Books(*before)
        await rerate(read_rows(seen.chunks()), corrections, rate=books.rate, book=books.book)
    assert books.total == 100 * 110


async def test_hits_corrections_and_what_nobody_counted_are_left_out() -> None:
    books = Books(
        row(outcome="cache_exact", cost_usd_nanos=0),
        row(outcome="refund", cost_usd_nanos=-5, input_tokens=0),
        row(outcome="failed", input_tokens=0, cost_usd_nanos=0),
        row(outcome="failed", input_tokens=0, cost_usd_nanos=70),
        row(model="gone"),
    )
    report = await books.run()
    assert report.sums == {}
    assert report.left_out == {"its tokens are not known": 1, "MODEL_UNKNOWN (gone)": 1}


async def test_what_the_ledger_will_not_book_is_counted_by_its_reason() -> None:
    books = Books(row(model="open"))
    books.nanos_per_token = 11
    report = await books.run()
    assert (report.booked, report.failed) == (0, {"RESERVATION_OPEN": 1})


async def test_a_name_that_looked_like_a_formula_is_read_as_it_was() -> None:
    seen: list[str] = []

    async def rate(attempt: Attempt) -> Rating:
        seen.append(attempt.model)
        return Rating(attempt.cost_usd_nanos)

    books = Books(row(model="'@cf/meta/llama"), row(model="'quoted'"))
    await rerate(read_rows(books.chunks()), {}, rate=rate, book=None)
    assert sorted(seen) == ["'quoted'", "@cf/meta/llama"]


async def test_an_export_without_a_column_is_refused_by_its_name() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"request_id,line\nx,0\n"

    with pytest.raises(ExportUnreadable, match="outcome"):
        await corrections_of(read_rows(chunks()))


async def test_corrections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing_runtime.rerating.CORRECTIONS_MAX", 2)
    books = Books(*(row(outcome="refund") for _ in range(3)))
    with pytest.raises(TooManyCorrections):
        await books.run()


async def test_a_failing_router_ends_the_run() -> None:
    async def rate(attempt: Attempt) -> Rating:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await rerate(read_rows(Books(row()).chunks()), {}, rate=rate, book=None)
