"""Looking up and remembering where identical requests are under way: one of them leads, the others wait for its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from farthing_core.clock import Clock

from farthing_cache.answers.asking import Asked, Flight, Found
from farthing_cache.answers.boarding import Turn
from farthing_cache.answers.flights import Flights
from farthing_cache.answers.leases import Place
from farthing_cache.answers.looking_up import LookUps
from farthing_cache.answers.remembering import Kept
from farthing_cache.canonical import Address

_JOINED = "an identical request that was under way"


class FlyingAnswers:
    """Look-ups that join flights, and answers that land them."""

    def __init__(self, look_ups: LookUps, flights: Flights, *, clock: Clock) -> None:
        self._look_ups = look_ups
        self._flights = flights
        self._clock = clock

    async def look_up(self, asked: Asked) -> Found:
        """What may be served for a request. A miss with a flight is whoever's asks to end it; one without is to be bought for oneself."""
        if asked.flight_wait_s <= 0 or asked.dry_run:
            return await self._look_ups.look_up(asked)
        found = await self._look_ups.at_hand(asked)
        if found is not None:
            return await self._refreshing(asked, found)
        place = _place(asked.address)
        boarding = await self._flights.board(place, wait_s=asked.flight_wait_s)
        if boarding.turn is Turn.LEADS:
            return await self._lead(asked, boarding.flight_id)
        if boarding.turn is Turn.LANDED:
            return Found("exact", _JOINED, boarding.answer, asked.address.key, joined=True)
        if boarding.turn is Turn.WAITS_ON:
            return Found("miss", "an identical request is under way", in_flight=True)
        return await self._look_ups.look_up(asked)

    async def keep(self, address: Address, flight_id: str) -> Flight | None:
        """A sign of life of a leader; None where it does not lead any more."""
        kept = await self._flights.keep(_place(address), flight_id)
        return self._flight(flight_id) if kept else None

    async def end(self, address: Address, flight_id: str) -> None:
        """Ends a flight without an answer."""
        await self._flights.end(_place(address), flight_id)

    async def deliver(
        self, address: Address, flight_id: str, written: Callable[[], bytes], remembering: Awaitable[Kept]
    ) -> Kept:
        """Remembers an answer, and hands it to whoever waits for its flight, also where it cannot be kept.

        Raises what remembering raises.
        """
        if not flight_id:
            return await remembering
        place, stored, payload = _place(address), False, written()
        self._flights.answer(place, payload)
        try:
            kept = await remembering
            stored = kept.stored
            return kept
        finally:
            await self._flights.land(place, flight_id, payload, stored=stored)

    async def _lead(self, asked: Asked, flight_id: str) -> Found:
        """Looks further than what is at hand; others wait meanwhile."""
        place = _place(asked.address)
        try:
            found = await self._look_ups.further(asked)
        except BaseException:
            await self._flights.end(place, flight_id)
            raise
        if found.payload is None or found.stale:
            return replace(found, flight=self._flight(flight_id))
        await self._flights.look_again(place, flight_id)
        return found

    async def _refreshing(self, asked: Asked, found: Found) -> Found:
        """One of those who are served a stale answer is told to fetch a fresh one."""
        flight_id = await self._flights.claim(_place(asked.address)) if found.stale else ""
        return replace(found, flight=self._flight(flight_id)) if flight_id else found

    def _flight(self, flight_id: str) -> Flight:
        return Flight(flight_id, self._clock.now() + timedelta(seconds=self._flights.lease_s))


def _place(address: Address) -> Place:
    return (address.organization, address.key)
