"""How entries are used, what they take and which go first, on a real Postgres."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from farthing_cache.answers.rooms import Room
from farthing_cache.answers.valuing import Evicted, RoomFigures, Use
from farthing_cache.answers.worth import HALF_LIFE_S, log_density, rank, used
from farthing_cache.store import Filter, Stored
from farthing_cache.store.postgres import PostgresEntries
from farthing_cache.store.values_postgres import PostgresValues
from farthing_core.clock import ManualClock
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
NOW_S = NOW.timestamp()
FULL = Room(10**9, 10**15)


class Kept:
    """Entries and values on one database."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.entries = PostgresEntries(pool, ManualClock(NOW))
        self.values = PostgresValues(pool)

    async def put(self, number: int, *, organization: str = "acme", payload_bytes: int = 100, **fields: Any) -> None:
        cost = 1_000_000 * (number + 1)
        given = rank(uses=1, cost_usd_nanos=cost, payload_bytes=payload_bytes, at_s=NOW_S)
        values = {"density": log_density(cost, payload_bytes), "rank": given, "expires_at": NOW + timedelta(hours=1), **fields}
        scope = f"organizations/{organization}"
        await self.entries.put(
            [
                Stored(
                    organization,
                    key(number),
                    b"p" * 32,
                    scope,
                    "m",
                    (),
                    b"x" * payload_bytes,
                    None,
                    None,
                    created_at=NOW,
                    **values,
                )
            ]
        )

    async def keys(self) -> set[bytes]:
        return {row["key"] for row in await self.pool.fetch("SELECT key FROM entries WHERE organization = 'acme'")}

    async def sums(self) -> Room:
        await self.values.changed_rooms()
        return (await self.values.figures("acme")).room


@pytest.fixture
async def kept(database_url: str) -> AsyncIterator[Kept]:
    async with open_pool(database_url, schema="cache", size_max=6) as pool:
        yield Kept(pool)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def use(number: int, hits: int, *, at: datetime = NOW, organization: str = "acme") -> Use:
    return Use(organization, key(number), hits, 10 * hits, at, math.log2(hits) + at.timestamp() / HALF_LIFE_S)


async def test_sums_follow_whatever_becomes_of_entries(kept: Kept) -> None:
    for number in range(6):
        await kept.put(number)
    await kept.put(9, organization="other")
    assert await kept.sums() == Room(6, 600)
    await kept.put(0, payload_bytes=300)
    assert await kept.sums() == Room(6, 800)
    await kept.entries.invalidate(Filter("organizations/acme", "acme", keys=(key(1),)), dry_run=False)
    await kept.entries.drop("acme", key(2), b"x" * 100)
    await kept.put(3, expires_at=NOW - timedelta(seconds=1))
    assert await kept.entries.sweep(count_max=10) == 1
    await kept.values.evict("acme", down_to=Room(2, 10**9), count_max=10)
    assert await kept.sums() == Room(2, 200)
    assert await kept.pool.fetchval("SELECT count(*) FROM uses") == 3
    assert await kept.pool.fetchval("SELECT count(*) FROM room_changes") == 0
    assert (await kept.values.figures("nobody")) == RoomFigures(Room(0, 0), 0, 0)


async def test_uses_add_up_and_raise_the_rank_as_the_domain_says(kept: Kept) -> None:
    for number in (1, 2):
        await kept.put(number)
    later = NOW + timedelta(hours=6)
    assert await kept.values.add_uses([use(1, 3), use(2, 1), use(7, 1)]) == 2
    assert await kept.values.add_uses([use(1, 2, at=later)]) == 1
    row = await kept.pool.fetchrow("SELECT * FROM uses WHERE key = $1", key(1))
    facts = {"cost_usd_nanos": 2_000_000, "payload_bytes": 100}
    expected = rank(uses=1, at_s=NOW_S, **facts)
    expected = used(used(expected, uses=3, at_s=NOW_S, **facts), uses=2, at_s=later.timestamp(), **facts)
    assert row["rank"] == pytest.approx(expected, abs=1e-9)
    assert (row["hits"], row["saved_usd_nanos"], row["hit_at"]) == (5, 50, later)
    await kept.put(1)
    assert (
        await kept.pool.fetchval("SELECT hits FROM uses WHERE key = $1", key(1)) == 5
    )  # a fresh answer is as popular as the old one
    await kept.values.add_uses([use(1, 1, at=NOW + timedelta(days=9_000))])  # no overflow, however far apart
    assert await kept.pool.fetchval("SELECT hits FROM uses WHERE key = $1", key(1)) == 6


async def test_the_lowest_go_first_until_there_is_room_in_entries_and_bytes(kept: Kept) -> None:
    for number in range(10):
        await kept.put(number)
    await kept.values.add_uses([use(0, 50)])
    done = await kept.values.evict("acme", down_to=Room(7, 10**9), count_max=100)
    assert done is not None
    assert done.entries == 3
    assert await kept.keys() == {key(number) for number in (0, 4, 5, 6, 7, 8, 9)}
    assert done.rank_max == pytest.approx(rank(uses=1, cost_usd_nanos=4_000_000, payload_bytes=100, at_s=NOW_S))
    done = await kept.values.evict("acme", down_to=Room(10**9, 450), count_max=100)
    assert done is not None
    assert (done.entries, await kept.sums()) == (3, Room(4, 400))
    assert await kept.values.evict("acme", down_to=FULL, count_max=100) == Evicted(0, 0.0)
    assert (await kept.values.figures("acme")).evicted == 6


async def test_an_eviction_is_bounded(kept: Kept) -> None:
    for number in range(10):
        await kept.put(number)
    done = await kept.values.evict("acme", down_to=Room(0, 0), count_max=4)
    assert done is not None
    assert (done.entries, len(await kept.keys())) == (4, 6)


async def test_replicas_that_evict_at_once_do_not_evict_twice_as_much(kept: Kept) -> None:
    for number in range(40):
        await kept.put(number)
    await asyncio.gather(*(kept.values.evict("acme", down_to=Room(30, 10**9), count_max=100) for _ in range(6)))
    assert len(await kept.keys()) == 30
    assert await kept.sums() == Room(30, 3_000)


async def test_stores_uses_and_evictions_at_once_neither_block_one_another_nor_spoil_the_sums(kept: Kept) -> None:
    async def store(first: int) -> None:
        for number in range(first, first + 40):
            await kept.put(number % 60, payload_bytes=100 + number)

    async def work() -> None:
        for _ in range(20):
            await kept.values.add_uses([use(number, 1) for number in range(0, 60, 3)])
            await kept.values.evict("acme", down_to=Room(25, 10**9), count_max=10)
            await kept.values.changed_rooms()

    async with asyncio.timeout(60):
        await asyncio.gather(*(store(20 * each) for each in range(4)), work(), work())
    rows = await kept.pool.fetchrow("SELECT count(*), sum(payload_bytes) FROM entries")
    assert await kept.sums() == Room(rows[0], rows[1])
    assert await kept.pool.fetchval("SELECT count(*) FROM uses") == rows[0]


async def test_what_was_not_let_in_is_counted(kept: Kept) -> None:
    await kept.values.add_not_admitted({"acme": 3, "other": 1})
    await kept.values.add_not_admitted({"acme": 2})
    assert (await kept.values.figures("acme")).not_admitted == 5
    assert "acme" in await kept.values.changed_rooms()
