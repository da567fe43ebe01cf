"""Flights: who leads, who waits, and what becomes of those who wait when leaders fail, fall silent or are too many."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from farthing_cache.answers.boarding import Boarding, FlightLimits, Turn
from farthing_cache.answers.flights import Flights
from farthing_cache.answers.leases import Place, Standing
from farthing_cache.sealing.seals import Unsealed
from farthing_cache.store import StoreUnavailable
from farthing_cache.store.flights_memory import MemoryLeases
from farthing_core.clock import ManualClock

PLACE: Place = ("acme", b"k" * 32)
LIMITS = FlightLimits(lease_s=10, failures_max=3, waiters_max=50)


class Sky:
    """Flights on a clock of its own, whose pauses end when the clock is moved."""

    def __init__(self, leases: Any = None) -> None:
        self.clock, numbers = ManualClock(), itertools.count(1)
        self._moved = asyncio.Event()
        self.flights = Flights(
            leases or MemoryLeases(self.clock),
            Unsealed(),
            clock=self.clock,
            new_id=lambda: f"flight {next(numbers)}",
            limits=LIMITS,
            sleep=self._pause,
        )

    async def _pause(self, seconds: float) -> None:
        until_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < until_s:
            self._moved.clear()
            await self._moved.wait()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._moved.set()
        await turns()

    async def waiters(self, count: int, *, wait_s: float = 60) -> list[asyncio.Task[Boarding]]:
        tasks = [asyncio.create_task(self.flights.board(PLACE, wait_s=wait_s)) for _ in range(count)]
        await turns()
        return tasks


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def sky() -> AsyncIterator[Sky]:
    made = Sky()
    async with made.flights.running():
        yield made


async def leads(sky: Sky) -> str:
    boarding = await sky.flights.board(PLACE, wait_s=60)
    assert boarding.turn is Turn.LEADS
    return boarding.flight_id


async def test_one_leads_and_all_others_have_its_answer(sky: Sky) -> None:
    flight_id = await leads(sky)
    waiting = await sky.waiters(20)
    sky.flights.answer(PLACE, b"answer")
    assert {(each.turn, each.answer) for each in await asyncio.gather(*waiting)} == {(Turn.LANDED, b"answer")}
    late = await sky.flights.board(PLACE, wait_s=60)
    assert (late.turn, late.answer) == (Turn.LANDED, b"answer")  # while it is being stored
    await sky.flights.land(PLACE, flight_id, b"answer", stored=False)
    await leads(sky)


async def test_places_of_other_keys_and_organisations_do_not_meet(sky: Sky) -> None:
    await leads(sky)
    for other in (("other", PLACE[1]), ("acme", b"o" * 32)):
        assert (await sky.flights.board(other, wait_s=60)).turn is Turn.LEADS


async def test_a_leader_without_an_answer_hands_over_to_one(sky: Sky) -> None:
    flight_id = await leads(sky)
    waiting = await sky.waiters(5)
    await sky.flights.end(PLACE, flight_id)
    await turns()
    (led,) = [task for task in waiting if task.done()]
    assert led.result().turn is Turn.LEADS
    sky.flights.answer(PLACE, b"answer")
    assert {each.turn for each in await asyncio.gather(*waiting)} == {Turn.LEADS, Turn.LANDED}


async def test_after_three_failures_all_are_let_go(sky: Sky) -> None:
    flight_id = await leads(sky)
    waiting = await sky.waiters(20)
    done: set[asyncio.Task[Boarding]] = set()
    for _ in range(2):
        await sky.flights.end(PLACE, flight_id)
        await turns()
        (led,) = [task for task in waiting if task.done() and task not in done]
        done.add(led)
        flight_id = led.result().flight_id
    await sky.flights.end(PLACE, flight_id)
    rest = await asyncio.gather(*[task for task in waiting if task not in done])
    assert [each.turn for each in rest] == [Turn.ALONE] * 18
    assert sky.flights.counts.let_go == 18
    await leads(sky)


async def test_a_silent_leader_is_overtaken_when_its_lease_ends_and_not_before(sky: Sky) -> None:
    flight_id = await leads(sky)
    (waiting,) = await sky.waiters(1)
    await sky.advance(9)
    assert await sky.flights.keep(PLACE, flight_id)
    await sky.advance(9)
    assert not waiting.done()
    await sky.advance(2)
    await sky.advance(2)
    assert (await waiting).turn is Turn.LEADS
    assert not await sky.flights.keep(PLACE, flight_id)


async def test_whoever_gives_up_leaves_nothing_behind(sky: Sky) -> None:
    flight_id = await leads(sky)
    (cancelled,) = await sky.waiters(1)
    (impatient,) = await sky.waiters(1, wait_s=0)
    assert (await impatient).turn is Turn.WAITS_ON
    cancelled.cancel()
    await asyncio.wait({cancelled})
    await sky.flights.end(PLACE, flight_id)
    await leads(sky)


async def test_a_lead_that_comes_together_with_its_callers_going_goes_to_the_next(sky: Sky) -> None:
    flight_id = await leads(sky)
    first, second = await sky.waiters(2)
    ending = asyncio.create_task(sky.flights.end(PLACE, flight_id))
    while not ending.done():
        await asyncio.sleep(0)
    first.cancel()  # it has the lead, and has not run since
    await turns()
    assert first.cancelled() or first.done()
    assert first.cancelled() is second.done()
    if second.done():
        assert second.result().turn is Turn.LEADS
    else:
        sky.flights.answer(PLACE, b"answer")
        assert (await second).turn is Turn.LANDED


async def test_those_who_are_too_many_go_on_alone(sky: Sky) -> None:
    await leads(sky)
    waiting = await sky.waiters(60)
    alone = [task for task in waiting if task.done()]
    assert [task.result().turn for task in alone] == [Turn.ALONE] * 10
    assert sky.flights.counts.crowded == 10
    sky.flights.answer(PLACE, b"answer")
    await asyncio.gather(*waiting)


async def test_only_one_claims_a_flight_without_waiting(sky: Sky) -> None:
    assert [bool(await sky.flights.claim(PLACE)) for _ in range(2)] == [True, False]


async def test_leases_that_are_out_of_reach_leave_everybody_alone() -> None:
    class Away:
        shared = True

        async def lead(self, place: Place, flight_id: str, *, behind: str, lease_s: float) -> Standing:
            raise StoreUnavailable

        async def keep(self, place: Place, flight_id: str, *, lease_s: float) -> bool:
            raise StoreUnavailable

        async def land(self, place: Place, flight_id: str, answer: bytes | None) -> None:
            raise StoreUnavailable

    sky = Sky(Away())
    async with sky.flights.running():
        assert (await sky.flights.board(PLACE, wait_s=60)).turn is Turn.ALONE
        assert not await sky.flights.keep(PLACE, "flight 1")
        await sky.flights.end(PLACE, "flight 1")
        await sky.flights.land(PLACE, "flight 1", b"answer", stored=False)
    assert sky.flights.counts.unreachable == 1


async def test_at_the_end_nobody_is_left_waiting() -> None:
    sky = Sky()
    async with sky.flights.running():
        await leads(sky)
        waiting = await sky.waiters(3)
    assert [(await task).turn for task in waiting] == [Turn.ALONE] * 3
