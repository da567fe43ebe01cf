"""A price book on a store that keeps its rows in a list, for tests that have no database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.catalog import Catalog
from farthing_router.pricing.price_book import PriceBook
from farthing_router.store import NewPrice, PriceRow


class ListedRows:
    """A PriceStore in a list."""

    def __init__(self) -> None:
        self.rows: list[PriceRow] = []

    async def add(self, price: NewPrice, *, request_id: str, fingerprint: bytes) -> tuple[PriceRow, bool]:
        self.rows.append(PriceRow(len(self.rows) + 1, price))
        return self.rows[-1], False

    async def after(self, number: int, *, rows_max: int) -> list[PriceRow]:
        return self.rows[number : number + rows_max]


@pytest.fixture
def book_of() -> Callable[..., Any]:
    """Makes a price book: `book = await book_of(catalog, row, row)`; the rows were written in this order, and it is New Year 2026."""

    async def make(catalog: Catalog, *rows: NewPrice, list_price: Any = lambda *_: None) -> PriceBook:
        store = ListedRows()
        book = PriceBook(catalog=catalog, store=store, clock=ManualClock(), list_price=list_price)
        for row in rows:
            await store.add(row, request_id="", fingerprint=b"")
        await book.watched.refresh()
        return book

    return make
