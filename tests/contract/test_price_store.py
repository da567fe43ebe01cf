"""What every store of the price book promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from farthing_router.pricing.rates import RateCard, Schedule
from farthing_router.store import NewPrice, PriceBookFull, PriceRow, PriceStore, RequestIdReused, StoreUnavailable
from farthing_router.store.postgres import PostgresPrices
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, 15, 250_000, tzinfo=UTC)
CARD = RateCard(
    Schedule({"input": 1, "output": 2**53 - 1, "request": 5}, [(200_000, {"input": 3, "output": 4, "request": 5})]),
    {"batch": Schedule({"input": 1, "output": 1, "request": 5})},
)


def price(**changes: object) -> NewPrice:
    made = NewPrice(
        price_id=str(uuid.uuid4()),
        organization="",
        provider="openai",
        model="gpt-4o",
        effective_at=NOW,
        expires_at=None,
        card=CARD,
        discount_bps=None,
        source="list of July",
        recorded_at=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> PriceStore:
    return PostgresPrices(pool, rows_max=50)


async def add(store: PriceStore, new: NewPrice, *, request_id: str = "", fingerprint: bytes = b"x") -> tuple[PriceRow, bool]:
    return await store.add(new, request_id=request_id or str(uuid.uuid4()), fingerprint=fingerprint)


async def test_what_was_written_is_read_back_as_it_was(store: PriceStore) -> None:
    prices = [
        price(),
        price(expires_at=datetime(2027, 1, 1, tzinfo=UTC), organization="acme"),
        price(card=None, discount_bps=1250, organization="acme", model=""),
        price(card=None, source="ünusual «source»"),
    ]
    rows = [(await add(store, each))[0] for each in prices]
    read = await store.after(0, rows_max=10)
    assert [row.price for row in read] == prices
    assert read == rows
    assert [row.withdrawn for row in read] == [False, False, False, True]


async def test_rows_are_read_on_from_a_number_in_order_and_bounded(store: PriceStore) -> None:
    rows = [(await add(store, price()))[0] for _ in range(5)]
    assert await store.after(rows[1].number, rows_max=2) == rows[2:4]
    assert await store.after(rows[4].number, rows_max=2) == []


async def test_the_same_request_gives_the_stored_row_and_another_body_is_refused(store: PriceStore) -> None:
    request_id, first = str(uuid.uuid4()), price()
    row, repeated = await add(store, first, request_id=request_id)
    assert not repeated
    assert await add(store, price(), request_id=request_id) == (row, True)
    with pytest.raises(RequestIdReused):
        await add(store, first, request_id=request_id, fingerprint=b"y")
    assert await store.after(0, rows_max=10) == [row]
    other, repeated = await add(store, price(organization="acme"), request_id=request_id)
    assert (other.price.organization, repeated) == ("acme", False)


async def test_racing_twins_are_written_once(store: PriceStore) -> None:
    request_id = str(uuid.uuid4())
    found = await asyncio.gather(*(add(store, price(), request_id=request_id) for _ in range(12)))
    assert len({row.number for row, _ in found}) == 1
    assert [repeated for _, repeated in found].count(False) == 1


async def test_a_reader_who_goes_on_from_what_it_saw_misses_nothing_however_many_write(store: PriceStore) -> None:
    seen: list[int] = []
    done = asyncio.Event()

    async def read() -> None:
        while True:
            last = done.is_set()
            seen.extend(row.number for row in await store.after(seen[-1] if seen else 0, rows_max=3))
            if last and not await store.after(seen[-1], rows_max=1):
                return

    reader = asyncio.create_task(read())
    rows = await asyncio.gather(*(add(store, price()) for _ in range(40)))
    done.set()
    await reader
    assert seen == sorted(row.number for row, _ in rows)


async def test_a_full_book_takes_no_more_but_repeats(pool: asyncpg.Pool) -> None:
    store, request_id = PostgresPrices(pool, rows_max=1), str(uuid.uuid4())
    row, _ = await add(store, price(), request_id=request_id)
    with pytest.raises(PriceBookFull, match="1 prices"):
        await add(store, price())
    assert await add(store, price(), request_id=request_id) == (row, True)


async def test_what_cannot_be_is_not_written_even_past_the_checks_before(store: PriceStore) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await add(store, price(expires_at=NOW))
    assert await store.after(0, rows_max=1) == []


async def test_a_database_out_of_reach_has_a_name(database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as opened:
        await opened.close()
        with pytest.raises(StoreUnavailable):
            await PostgresPrices(opened, rows_max=1).after(0, rows_max=1)
