"""Flights as the orchestrator has them: waiting in slices, signs of life, and an end for every flight that was begun."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from farthing_core.clock import ManualClock, SystemClock
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.flights import FlightLeads
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.lookups import Lookup, LookupTerms
from farthing_orchestrator.policy import Policy, TaskPolicy
from farthing_orchestrator.request import Ask

EXACT = LookupTerms("exact")
MISS, IN_FLIGHT = Lookup("miss", "nothing stored", "k"), Lookup("miss", "under way", "k", in_flight=True)
LEADING = Lookup("miss", "nothing stored", "k", flight_id="f", lease_s=0.15)


class Cache:
    """Says what it was told to, and writes down what it hears."""

    def __init__(self, *says: Lookup, clock: ManualClock | None = None) -> None:
        self._says = list(says)
        self._clock = clock
        self.waits: list[float | None] = []
        self.ended: list[str] = []
        self.kept = 0
        self.kept_twice = asyncio.Event()

    async def look_up(self, ask: Any, *, flight_wait_s: float | None, **_: Any) -> Lookup:
        self.waits.append(flight_wait_s)
        if self._clock is not None:
            self._clock.advance(max(0.5, flight_wait_s or 0.0))
        return self._says.pop(0) if len(self._says) > 1 else self._says[0]

    async def keep_flight(self, flight: Any) -> None:
        self.kept += 1
        if self.kept == 2:
            self.kept_twice.set()

    async def end_flight(self, flight: Any) -> None:
        self.ended.append(flight.flight_id)


def journey(clock: Any, *, time_s: float = 100.0) -> Journey:
    ask = Ask("r", "organizations/acme", "m", "chat", "", [], None)
    now_s = clock.monotonic_s()
    return Journey(ask, Policy(), TaskPolicy(), clock, now_s + time_s, now_s)


def leads(cache: Any, *, single_flight: bool = True) -> tuple[FlightLeads, Deferred]:
    deferred = Deferred(outstanding_max=10, attempts_max=1, backoff_s=0.0, backoff_s_max=0.0)
    return FlightLeads(answers=cache, deferred=deferred, single_flight=single_flight), deferred


async def test_who_waits_asks_again_in_slices_and_gives_up_in_time_to_ask_for_itself() -> None:
    clock = ManualClock()
    cache = Cache(IN_FLIGHT, clock=clock)
    found = await leads(cache)[0].look_up(journey(clock, time_s=40), EXACT)
    assert found.in_flight
    assert cache.waits[0] == 0.0  # a cache that hangs is found out as soon as ever
    assert max(wait for wait in cache.waits if wait is not None) <= 5.0
    assert 30 <= clock.monotonic_s() <= 31


@pytest.mark.parametrize("dry_run", [True, False])
async def test_no_flight_is_joined_where_the_policy_or_a_dry_run_says_so(dry_run: bool) -> None:
    clock = ManualClock()
    cache, asked = Cache(MISS), journey(clock)
    asked.dry_run = dry_run
    await leads(cache, single_flight=dry_run)[0].look_up(asked, EXACT)
    assert cache.waits == [None]


async def test_a_leader_gives_signs_of_life_until_its_flight_ends_once() -> None:
    cache, asked = Cache(LEADING), journey(SystemClock())
    flights, deferred = leads(cache)
    async with deferred.running(grace_s=5):
        async with flights.led(asked):
            await flights.look_up(asked, EXACT)
            async with asyncio.timeout(10):
                await cache.kept_twice.wait()
        await flights.finish(asked)
    assert cache.ended == ["f"]
    assert asked.sign_of_life is None


async def test_a_flight_that_lands_with_its_answer_is_not_given_up() -> None:
    cache, asked = Cache(LEADING), journey(SystemClock())
    flights, deferred = leads(cache)
    async with deferred.running(grace_s=5), flights.led(asked):
        await flights.look_up(asked, EXACT)
        flight = flights.landing(asked)
    assert flight is not None
    assert cache.ended == []
