"""Single flight: of identical requests that are under way at once one buys, and the others wait for its answer.

A place has one room in each process: its leader, and those who wait. Who leads is a lease, so that a leader of whom nothing is heard is
overtaken; where replicas share the leases each of them asks, for all who wait in a room together, how things stand. A leader that ends
without an answer hands over to one who waits. After so many of those the rest is let go at once: when a provider is out, a thousand
callers shall not find that out one after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_core.ids import NewId

from farthing_cache.answers.boarding import Boarding, FlightCounts, FlightLimits, Turn
from farthing_cache.answers.leases import Leases, Place, Standing
from farthing_cache.sealing.seals import Seals

_log = structlog.get_logger()


_ALONE, _LOOKS_AGAIN, _WAITS_ON = Boarding(Turn.ALONE), Boarding(Turn.LOOKS_AGAIN), Boarding(Turn.WAITS_ON)


@dataclass(slots=True)
class _Room:
    """Those of one process who want the same. `leader` is empty until it is known."""

    place: Place
    ends_s: float
    leader: str = ""
    failures: int = 0
    answer: bytes | None = None
    waiting: dict[asyncio.Future[Boarding], None] = field(default_factory=dict)
    follower: asyncio.Task[None] | None = None


class Flights:
    """The flights of one process."""

    def __init__(
        self,
        leases: Leases,
        seals: Seals,
        *,
        clock: Clock,
        new_id: NewId,
        limits: FlightLimits = FlightLimits(),  # noqa: B008 - frozen
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._leases = leases
        self._seals = seals
        self._clock = clock
        self._new_id = new_id
        self._limits = limits
        self._sleep = sleep
        self._rooms: dict[Place, _Room] = {}
        self._waiting = 0
        self._beside: set[asyncio.Task[None]] = set()
        self.counts = FlightCounts()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Flights]:
        """Until the block ends; whoever waits then goes on alone."""
        try:
            yield self
        finally:
            for room in list(self._rooms.values()):
                self._close(room, _ALONE)
            for task in self._beside:
                task.cancel()
            await asyncio.gather(*self._beside, return_exceptions=True)

    @property
    def lease_s(self) -> float:
        """How long nothing need be heard of a leader."""
        return self._limits.lease_s

    async def board(self, place: Place, *, wait_s: float) -> Boarding:
        """Leads, or waits for whoever leads, at most `wait_s`. Whoever leads must end its flight. Raises nothing of its own."""
        room = self._rooms.get(place)
        if room is None:
            boarding = await self._open(place)
            if boarding is not None:
                return boarding
            room = self._rooms.get(place)
        if room is None:
            return _ALONE
        if room.answer is not None:
            self.counts.joined += 1
            return Boarding(Turn.LANDED, answer=room.answer)
        return await self._wait(room, wait_s)

    async def claim(self, place: Place) -> str:
        """Leads where nobody does, without waiting; the flight, or nothing where somebody does already or nobody knows."""
        boarding = await self._open(place) if place not in self._rooms else None
        return boarding.flight_id if boarding is not None else ""

    async def keep(self, place: Place, flight_id: str) -> bool:
        """A sign of life of a leader; False where it does not lead any more."""
        try:
            kept = await self._leases.keep(place, flight_id, lease_s=self._limits.lease_s)
        except FarthingError:
            return False
        room = self._rooms.get(place)
        if kept and room is not None and room.leader == flight_id:
            del self._rooms[place]  # rooms stand in the order of their ends
            self._rooms[place] = room
            room.ends_s = self._clock.monotonic_s() + self._limits.lease_s
        return kept

    def answer(self, place: Place, answer: bytes) -> None:
        """An answer has come: whoever waits here has it now, and whoever comes before the flight has ended."""
        room = self._rooms.get(place)
        if room is not None:
            room.answer = answer
            self.counts.joined += len(room.waiting)
            _tell(room, Boarding(Turn.LANDED, answer=answer))

    async def land(self, place: Place, flight_id: str, answer: bytes, *, stored: bool) -> None:
        """Ends a flight that has come to an answer. Other replicas look it up where it is stored, and are handed it where it is not."""
        room = self._rooms.get(place)
        if room is not None and (room.leader == flight_id or room.answer is not None):
            self._close(room, Boarding(Turn.LANDED, answer=answer))
        with suppress(FarthingError):
            told = b"" if stored or not self._leases.shared else await self._sealed(place, answer)
            await self._leases.land(place, flight_id, told)

    async def _sealed(self, place: Place, answer: bytes) -> bytes | None:
        """An answer on its way to other replicas; None where there is no key for it: then another one leads there."""
        try:
            return await self._seals.seal(place[0], place[1], answer)
        except FarthingError:
            return None

    async def look_again(self, place: Place, flight_id: str) -> None:
        """Ends a flight that found what it was to buy: whoever waits finds it, too."""
        room = self._rooms.get(place)
        if room is not None and room.leader == flight_id:
            self._close(room, _LOOKS_AGAIN)
        with suppress(FarthingError):
            await self._leases.land(place, flight_id, b"")

    async def end(self, place: Place, flight_id: str) -> None:
        """Ends a flight without an answer: the next in line leads."""
        with suppress(FarthingError):
            await self._leases.land(place, flight_id, None)
        room = self._rooms.get(place)
        if room is None or room.leader != flight_id:
            return
        if room.waiting:
            await self._ask(room)
        else:
            self._close(room, _ALONE)

    async def _open(self, place: Place) -> Boarding | None:
        """Opens a room and leads, if nobody does; None where somebody else does."""
        now_s = self._clock.monotonic_s()
        self._close_forgotten(now_s)
        if len(self._rooms) >= self._limits.rooms_max:
            self.counts.crowded += 1
            return _ALONE
        room = self._rooms[place] = _Room(place, now_s + self._limits.lease_s)
        flight_id = self._new_id()
        try:
            standing = await self._leases.lead(place, flight_id, behind="", lease_s=self._limits.lease_s)
        except FarthingError:
            self._lose_sight(room)
            return _ALONE
        except BaseException:
            # It may lead by now, and nobody would know: those who wait go on, here and elsewhere.
            self._close(room, _ALONE)
            self._begin(self._leases.land(place, flight_id, None))
            raise
        room.leader, room.ends_s = standing.flight_id, self._clock.monotonic_s() + standing.left_s
        if standing.flight_id != flight_id:
            return None
        self.counts.led += 1
        return Boarding(Turn.LEADS, flight_id)

    async def _wait(self, room: _Room, wait_s: float) -> Boarding:
        if self._waiting >= self._limits.waiters_max:
            self.counts.crowded += 1
            return _ALONE
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Boarding] = loop.create_future()
        room.waiting[told] = None
        self._waiting += 1
        alarm = loop.call_later(wait_s, _settle, told, _WAITS_ON)
        if room.follower is None:
            room.follower = self._begin(self._follow(room))
        try:
            return await told
        except asyncio.CancelledError:
            if told.done() and not told.cancelled() and told.result().turn is Turn.LEADS:
                # The lead came together with the caller's going: it goes to the next.
                self._begin(self.end(room.place, told.result().flight_id))
            raise
        finally:
            alarm.cancel()
            self._waiting -= 1
            room.waiting.pop(told, None)

    async def _follow(self, room: _Room) -> None:
        """Finds out how things stand, for as long as somebody waits: when a lease ends and, where others may land, every now and then."""
        soon_s, seldom_s = self._limits.asks_s
        while self._rooms.get(room.place) is room and room.waiting:
            left_s = max(0.0, room.ends_s - self._clock.monotonic_s())
            pause_s = min(soon_s, left_s) if self._leases.shared else left_s
            await self._sleep(max(pause_s, self._limits.asks_s[0]))
            soon_s = min(seldom_s, 1.5 * soon_s)
            overdue = room.ends_s <= self._clock.monotonic_s()
            if room.waiting and room.answer is None and (self._leases.shared or overdue):
                await self._ask(room)
        room.follower = None

    async def _ask(self, room: _Room) -> None:
        """How things stand, for all who wait in a room: one of them leads where nobody does."""
        flight_id = self._new_id()
        try:
            standing = await self._leases.lead(room.place, flight_id, behind=room.leader, lease_s=self._limits.lease_s)
        except FarthingError:
            return self._lose_sight(room)
        if standing.landed is not None:
            return await self._hear(room, standing.landed)
        await self._take(room, standing, flight_id)
        return None

    async def _take(self, room: _Room, standing: Standing, flight_id: str) -> None:
        """Somebody leads: whom this room did not know of, when the leader that it knew ended without an answer."""
        mine, known = standing.flight_id == flight_id, self._rooms.get(room.place) is room
        if known and standing.flight_id != room.leader:
            room.failures += int(bool(room.leader))
            room.leader = standing.flight_id
        room.ends_s = self._clock.monotonic_s() + standing.left_s
        if known and room.failures >= self._limits.failures_max:
            self.counts.let_go += len(room.waiting)
            self._close(room, _ALONE)
        if not mine:
            return
        if _tell_one(room, Boarding(Turn.LEADS, flight_id)):
            self.counts.handed_over += 1
            return
        self._close(room, _ALONE)
        with suppress(FarthingError):
            await self._leases.land(room.place, flight_id, None)

    async def _hear(self, room: _Room, landed: bytes) -> None:
        """Another replica has landed."""
        self.counts.joined += len(room.waiting)
        answer = await self._seals.open(room.place[0], room.place[1], landed) if landed else None
        self._close(room, _LOOKS_AGAIN if answer is None else Boarding(Turn.LANDED, answer=answer))

    def _lose_sight(self, room: _Room) -> None:
        self.counts.unreachable += 1 + len(room.waiting)
        if self.counts.unreachable == 1 + len(room.waiting):
            _log.warning("flights are out of reach: identical requests are bought by each for itself")
        self._close(room, _ALONE)

    def _close(self, room: _Room, boarding: Boarding) -> None:
        """Ends a room: whoever waits is told so."""
        if self._rooms.get(room.place) is room:
            del self._rooms[room.place]
        _tell(room, boarding)

    def _close_forgotten(self, now_s: float) -> None:
        """Rooms of leaders of whom nothing was heard, where nobody waits. Rooms stand in the order of their ends, nearly."""
        while self._rooms:
            room = next(iter(self._rooms.values()))
            if room.ends_s > now_s or room.waiting:
                return
            del self._rooms[room.place]

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, FarthingError):
            _log.error("following a flight failed", exc_info=error)


def _settle(told: asyncio.Future[Boarding], boarding: Boarding) -> None:
    if not told.done():
        told.set_result(boarding)


def _tell(room: _Room, boarding: Boarding) -> None:
    for told in room.waiting:
        _settle(told, boarding)


def _tell_one(room: _Room, boarding: Boarding) -> bool:
    """Whether somebody was there to be told."""
    for told in room.waiting:
        if not told.done():
            told.set_result(boarding)
            return True
    return False
