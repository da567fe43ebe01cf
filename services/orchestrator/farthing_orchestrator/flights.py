"""Flights as the orchestrator has them: identical requests wait for the one that leads, and whoever leads ends its flight for certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.lookups import Flight, Lookup, LookupTerms
from farthing_orchestrator.ports import Answers, PeerUnavailable

_WAITING_SHARE = 0.75
"""Of its time a request may wait for another: the rest is for asking itself, should nothing come of that."""
_SLICE_S = 5.0
"""Who waits asks again so often whether to go on: a cache that hangs holds nobody up for longer."""
_SIGNS_A_LEASE = 3


class FlightLeads:
    """Waits for flights and leads them."""

    def __init__(self, *, answers: Answers, deferred: Deferred, single_flight: bool) -> None:
        self._answers = answers
        self._deferred = deferred
        self._single_flight = single_flight

    async def look_up(self, journey: Journey, terms: LookupTerms) -> Lookup:
        """What the cache has, waiting for an identical request while that is under way. Raises PeerUnavailable."""
        ends_s = journey.clock.monotonic_s() + _WAITING_SHARE * journey.time_left_s()
        ask, model_policy, sharing = journey.ask, journey.model_policy(), journey.sharing()
        joins, wait_s = self._single_flight and not journey.dry_run, 0.0
        while True:
            found = await self._answers.look_up(
                ask, model_policy=model_policy, sharing=sharing, terms=terms, flight_wait_s=wait_s if joins else None
            )
            if found.flight_id:
                journey.flight = Flight(found.flight_id, found.lease_s, ask, model_policy, sharing)
                journey.sign_of_life = self._later(journey.flight, journey)
            wait_s = min(_SLICE_S, ends_s - journey.clock.monotonic_s())
            if not found.in_flight or wait_s <= 0:
                return found

    @asynccontextmanager
    async def led(self, journey: Journey) -> AsyncIterator[None]:
        """A block that may lead a flight. It ends with the block, unless it was handed on to a purchase that may outlive it."""
        try:
            yield
        finally:
            if not journey.handed_on:
                await self.finish(journey)

    async def finish(self, journey: Journey) -> None:
        """Ends a flight that has not come to an answer for others."""
        flight = self.landing(journey)
        if flight is not None:
            request_id = journey.ask.request_id
            await self._deferred.run(
                "end flight", lambda: self._answers.end_flight(flight), request_id=request_id, may_fail=True
            )

    def landing(self, journey: Journey) -> Flight | None:
        """The flight, which whoever asks for it ends."""
        flight, journey.flight = journey.flight, None
        if journey.sign_of_life is not None:
            journey.sign_of_life.cancel()
            journey.sign_of_life = None
        return flight

    def _later(self, flight: Flight, journey: Journey) -> asyncio.TimerHandle:
        pause_s = max(0.05, flight.lease_s / _SIGNS_A_LEASE)
        return asyncio.get_running_loop().call_later(pause_s, self._live, flight, journey)

    def _live(self, flight: Flight, journey: Journey) -> None:
        if journey.flight is flight:
            self._deferred.adopt(self._keep(flight))
            journey.sign_of_life = self._later(flight, journey)

    async def _keep(self, flight: Flight) -> None:
        try:
            await self._answers.keep_flight(flight)
        except PeerUnavailable:
            return  # then another one may lead, and this answer is bought twice
