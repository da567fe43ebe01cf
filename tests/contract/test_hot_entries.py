"""What every keeper of hot entries promises, in memory and in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from farthing_cache.store import Hot
from farthing_cache.store.memory import MemoryHotEntries
from farthing_cache.store.redis import RedisHotEntries
from farthing_core.clock import ManualClock
from redis.asyncio import Redis

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture(params=["memory", "redis"])
async def hot(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    clock = ManualClock(datetime.now(UTC))
    if request.param == "memory":
        yield MemoryHotEntries(clock, bytes_max=100_000), clock
        return
    client = Redis.from_url(request.getfixturevalue("redis_server"))
    await client.flushall()
    yield RedisHotEntries(client, clock), clock
    await client.aclose()


def entry(clock: ManualClock, *, ttl_s: float = 60, payload: bytes = b"payload") -> Hot:
    return Hot(payload, clock.now() + timedelta(seconds=ttl_s))


async def test_what_was_put_is_found_by_its_own_organisation_only(hot: Any) -> None:
    entries, clock = hot
    await entries.put("acme", KEY, entry(clock))
    found = await entries.get("acme", KEY)
    assert found is not None
    assert found.payload == b"payload"
    assert abs((found.expires_at - entry(clock).expires_at).total_seconds()) < 0.01
    assert await entries.get("other", KEY) is None
    assert await entries.get("acme", OTHER) is None


async def test_the_last_put_stays(hot: Any) -> None:
    entries, clock = hot
    for payload in (b"one", b"two"):
        await entries.put("acme", KEY, entry(clock, payload=payload))
    assert (await entries.get("acme", KEY)).payload == b"two"


async def test_what_has_expired_is_gone(hot: Any) -> None:
    entries, clock = hot
    await entries.put("acme", KEY, entry(clock, ttl_s=5))
    clock.advance(6)
    assert await entries.get("acme", KEY) is None


async def test_dropping_an_organisation_leaves_the_others(hot: Any) -> None:
    entries, clock = hot
    for organization in ("acme", "other"):
        await entries.put(organization, KEY, entry(clock))
    await entries.drop("acme")
    assert await entries.get("acme", KEY) is None
    assert await entries.get("other", KEY) is not None
    await entries.put("acme", KEY, entry(clock))
    assert await entries.get("acme", KEY) is not None


async def test_memory_is_bounded_and_forgets_what_was_used_least_recently() -> None:
    clock = ManualClock()
    entries = MemoryHotEntries(clock, bytes_max=10_000)
    for number in range(50):
        await entries.put("acme", bytes([number]) * 32, entry(clock, payload=b"x" * 700))
        await entries.get("acme", bytes([0]) * 32)
    assert await entries.get("acme", bytes([0]) * 32) is not None
    assert await entries.get("acme", bytes([1]) * 32) is None
    assert await entries.get("acme", bytes([49]) * 32) is not None


async def test_a_redis_that_is_away_is_an_empty_one() -> None:
    clock = ManualClock()
    client = Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2)
    entries = RedisHotEntries(client, clock)
    await entries.put("acme", KEY, entry(clock))
    assert await entries.get("acme", KEY) is None
    await entries.drop("acme")
    await client.aclose()
