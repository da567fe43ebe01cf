"""Tables that are kept in memory and read on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from farthing_router.store import StoreUnavailable
from farthing_runtime import refreshing
from farthing_runtime.refreshing import Watched


@dataclass(frozen=True)
class Row:
    number: int


class Table:
    def __init__(self, *numbers: int) -> None:
        self.rows = [Row(number) for number in numbers]
        self.away = False
        self.asked: list[int] = []

    async def after(self, number: int, *, rows_max: int) -> Sequence[Row]:
        if self.away:
            raise StoreUnavailable(problem="away")
        self.asked.append(number)
        return [row for row in self.rows if row.number > number][:rows_max]


async def test_every_row_is_taken_once_and_in_order_over_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshing, "PAGE_ROWS", 3)
    table, taken = Table(*range(1, 11)), list[int]()
    watched = Watched("rows", after=table.after, take=lambda row: taken.append(row.number))
    await watched.refresh()
    await watched.refresh()
    assert taken == list(range(1, 11))
    assert table.asked == [0, 3, 6, 9, 10]


async def test_rows_taken_before_a_failure_are_not_taken_again() -> None:
    table, taken = Table(1, 2), list[int]()
    watched = Watched("rows", after=table.after, take=lambda row: taken.append(row.number))
    await watched.refresh()
    table.away = True
    with pytest.raises(StoreUnavailable):
        await watched.refresh()
    table.away, table.rows = False, [*table.rows, Row(7)]
    await watched.refresh()
    assert taken == [1, 2, 7]


async def test_a_database_that_is_away_at_the_start_is_an_error_and_not_an_empty_table() -> None:
    table = Table(1)
    table.away = True
    with pytest.raises(StoreUnavailable):
        async with refreshing.watching(Watched("rows", after=table.after, take=lambda row: None), interval_s=60):
            pytest.fail("must not be reached")
