"""What every keeper of shared cooldowns promises: in memory, in Redis, and in a Redis that is a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.deployments.cooldowns import Cooldown, Cooldowns, CooldownsAway, CooldownStore
from farthing_router.store.cooldowns_memory import MemoryCooldowns
from farthing_router.store.cooldowns_redis import RedisCooldowns
from farthing_runtime.redis_client import open_redis

START = datetime(2026, 3, 15, 12, tzinfo=UTC)


class House:
    """Stores as four replicas have them (in memory they are one), on one clock."""

    def __init__(self, clock: ManualClock, stores: list[CooldownStore]) -> None:
        self.clock = clock
        self.stores = stores

    async def known(self, number: int = 0) -> dict[str, tuple[float, str]]:
        return {each.deployment: (round(each.left_s, 3), each.reason) for each in await self.stores[number].share([])}


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    clock = ManualClock(START)
    if request.param == "memory":
        yield House(clock, [MemoryCooldowns(clock)] * 4)
        return
    async with AsyncExitStack() as stack:
        clients = [open_redis(request.getfixturevalue(request.param), timeout_s=10.0) for _ in range(4)]
        for client in clients:
            stack.push_async_callback(client.aclose)
        await clients[0].flushall()
        yield House(clock, [RedisCooldowns(client, clock) for client in clients])


async def test_what_one_replica_tells_the_others_hear(house: House) -> None:
    told = [Cooldown("a/b c", 5.0, "rate_limited: 429: slow  down"), Cooldown("größe", 7.5, "")]
    await house.stores[0].share(told)
    assert await house.known(1) == {"a/b c": (5.0, "rate_limited: 429: slow  down"), "größe": (7.5, "")}


async def test_the_longest_deadline_wins_whoever_tells_when(house: House) -> None:
    await house.stores[0].share([Cooldown("a", 10.0, "long")])
    await house.stores[1].share([Cooldown("a", 3.0, "short")])
    assert await house.known() == {"a": (10.0, "long")}
    house.clock.advance(8.0)
    assert [each.reason for each in await house.stores[2].share([Cooldown("a", 5.0, "longer")])] == ["longer"]
    assert await house.known() == {"a": (5.0, "longer")}


async def test_a_cooldown_ends(house: House) -> None:
    await house.stores[0].share([Cooldown("a", 2.0, "x"), Cooldown("b", 4.0, "x")])
    house.clock.advance(2.001)
    assert set(await house.known(1)) == {"b"}
    house.clock.advance(2.0)
    assert await house.known(1) == {}
    await house.stores[0].share([Cooldown("a", 1.0, "anew")])
    assert await house.known(1) == {"a": (1.0, "anew")}


async def test_of_racing_replicas_the_longest_wins(house: House) -> None:
    rng = Random(3)
    lengths = [rng.randint(1, 1_000) for _ in range(80)]

    async def tell(number: int) -> None:
        for seconds in lengths[number::4]:
            await house.stores[number].share([Cooldown("a", float(seconds), str(seconds))])

    await asyncio.gather(*map(tell, range(4)))
    assert await house.known() == {"a": (float(max(lengths)), str(max(lengths)))}


async def test_replicas_rest_together_and_a_call_never_waits_for_what_they_share(house: House) -> None:
    one, other = (Cooldowns(clock=house.clock, store=store) for store in house.stores[:2])
    one.extend("a", 30.0, "told to wait")
    assert other.rest("a", house.clock.monotonic_s()) is None
    await one.share()
    await other.share()
    found = other.rest("a", house.clock.monotonic_s())
    assert found is not None
    assert (round(found[0], 3), found[1]) == (30.0, "told to wait")
    other.extend("a", 5.0, "shorter")
    await other.share()
    await one.share()
    house.clock.advance(29.9)
    assert one.rest("a", house.clock.monotonic_s()) is not None
    house.clock.advance(0.101)
    assert one.rest("a", house.clock.monotonic_s()) is None
    assert other.rest("a", house.clock.monotonic_s()) is None


async def test_without_redis_each_replica_goes_by_what_it_knows_and_tells_it_later(
    tmp_path: Path, start_redis: Callable[..., Any], session_dir: Path
) -> None:
    path, clock = session_dir / "cooldowns.sock", ManualClock(START)
    client, server = open_redis(f"unix://{path}", timeout_s=1.0), None
    alone = Cooldowns(clock=clock, store=RedisCooldowns(client, clock))
    alone.extend("a", 60.0, "told to wait")
    try:
        with pytest.raises(CooldownsAway):
            await alone.share()
        assert alone.rest("a", clock.monotonic_s()) == (60.0, "told to wait")
        server = start_redis(path)
        await alone.share()
        other = Cooldowns(clock=clock, store=RedisCooldowns(client, clock))
        await other.share()
        assert other.rest("a", clock.monotonic_s()) == (60.0, "told to wait")
    finally:
        await client.aclose()
        if server is not None:
            server.terminate()
            server.wait(timeout=10)


async def test_news_is_told_at_once_and_an_outage_is_counted(redis_url: str) -> None:
    clock = ManualClock(START)
    client = open_redis(redis_url, timeout_s=5.0)
    store = RedisCooldowns(client, clock)
    one = Cooldowns(clock=clock, store=store)
    try:
        async with asyncio.timeout(20), one.sharing(interval_s=60.0):
            one.extend("a", 60.0, "told to wait")
            while not await store.share([]):
                await asyncio.sleep(0)
    finally:
        await client.aclose()
    away = Cooldowns(clock=clock, store=RedisCooldowns(open_redis("unix:///nowhere.sock", timeout_s=0.1), clock))
    async with asyncio.timeout(20), away.sharing(interval_s=0.001):
        while away.away < 2:
            await asyncio.sleep(0)
