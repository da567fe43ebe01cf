"""What every keeper of flights' leases promises: in memory, in Redis, in a Redis Cluster, and in Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from farthing_cache.answers.leases import Place
from farthing_cache.store import StoreUnavailable
from farthing_cache.store.flights_memory import MemoryLeases
from farthing_cache.store.flights_postgres import PostgresLeases
from farthing_cache.store.flights_redis import RedisLeases
from farthing_core.clock import SystemClock
from farthing_runtime.postgres import open_pool
from farthing_runtime.redis_client import open_redis

PLACE: Place = ("acme", b"k" * 32)


@pytest.fixture(params=["memory", "redis", "cluster", "postgres"])
async def leases(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryLeases(SystemClock())
    elif request.param == "postgres":
        async with open_pool(database_url, schema="cache", size_max=3) as pool, PostgresLeases(pool).running() as made:
            yield made
            await made.sweep()
    else:
        client = open_redis(
            request.getfixturevalue("redis_server" if request.param == "redis" else "redis_cluster"), timeout_s=5
        )
        await client.flushall()
        yield RedisLeases(client, SystemClock())
        await client.aclose()


async def leader(leases: Any, flight_id: str, *, place: Place = PLACE, behind: str = "", lease_s: float = 30.0) -> str:
    return str((await leases.lead(place, flight_id, behind=behind, lease_s=lease_s)).flight_id)


async def test_one_of_many_leads(leases: Any) -> None:
    asked = [f"flight {number}" for number in range(20)]
    told = await asyncio.gather(*[leader(leases, each) for each in asked])
    assert len(set(told)) == 1
    assert await leader(leases, told[0]) == told[0]  # asking again changes nothing
    standing = await leases.lead(PLACE, "late", behind="", lease_s=30.0)
    assert 0 < standing.left_s <= 30


async def test_places_of_other_keys_and_organisations_do_not_meet(leases: Any) -> None:
    assert await leader(leases, "a") == "a"
    assert await leader(leases, "b", place=("other", PLACE[1])) == "b"
    assert await leader(leases, "c", place=("acme", b"o" * 32)) == "c"


async def test_a_leader_of_whom_nothing_is_heard_is_overtaken(leases: Any) -> None:
    assert await leader(leases, "killed", lease_s=0.2) == "killed"
    assert await leader(leases, "next") == "killed"
    ends_s = time.monotonic() + 10
    while await leader(leases, "next", behind="killed") != "next":
        assert time.monotonic() < ends_s
    assert not await leases.keep(PLACE, "killed", lease_s=30.0)
    await leases.land(PLACE, "killed", None)  # late: it ends nobody else's flight
    assert await leader(leases, "third") == "next"


async def test_a_sign_of_life_keeps_the_lead(leases: Any) -> None:
    await leader(leases, "long", lease_s=0.3)
    assert await leases.keep(PLACE, "long", lease_s=30.0)
    standing = await leases.lead(PLACE, "next", behind="", lease_s=30.0)
    assert standing.flight_id == "long"
    assert standing.left_s > 20


async def test_a_failure_hands_over_to_whoever_asks_first(leases: Any) -> None:
    await leader(leases, "failed")
    await leases.land(PLACE, "failed", None)
    standing = await leases.lead(PLACE, "next", behind="failed", lease_s=30.0)
    assert (standing.flight_id, standing.landed) == ("next", None)


@pytest.mark.parametrize("answer", [b"", b"an answer \x00\xff"])
async def test_those_behind_a_flight_learn_of_its_answer_and_others_lead_anew(leases: Any, answer: bytes) -> None:
    if not leases.shared:
        return
    await leader(leases, "landed")
    await leases.land(PLACE, "landed", answer)
    assert await leader(leases, "new") == "new"
    standing = await leases.lead(PLACE, "waited", behind="landed", lease_s=30.0)
    assert standing.landed == answer
    assert await leader(leases, "third") == "new"


async def test_leases_that_are_away_say_so_and_are_not_waited_for_twice() -> None:
    client = open_redis("redis://127.0.0.1:1", timeout_s=0.2)
    away = RedisLeases(client, SystemClock())
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await away.lead(PLACE, "a", behind="", lease_s=10.0)
    await client.aclose()
