"""Leases on flights in this process: right where one process has all flights."""

from __future__ import annotations

from dataclasses import dataclass

from farthing_core.clock import Clock

from farthing_cache.answers.leases import Place, Standing


@dataclass(slots=True)
class _Lease:
    flight_id: str
    ends_s: float


class MemoryLeases:
    """The Leases of one process. Answers need no room here: whoever waits is in the same process as who lands."""

    shared = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[Place, _Lease] = {}

    async def lead(self, place: Place, flight_id: str, *, behind: str, lease_s: float) -> Standing:
        """Leads where nobody does."""
        now_s = self._clock.monotonic_s()
        lease = self._leases.get(place)
        if lease is not None and lease.flight_id != flight_id and lease.ends_s > now_s:
            return Standing(lease.flight_id, lease.ends_s - now_s)
        if lease is None:
            self._forget_expired(now_s)
        self._leases.pop(place, None)
        self._leases[place] = _Lease(flight_id, now_s + lease_s)
        return Standing(flight_id, lease_s)

    async def keep(self, place: Place, flight_id: str, *, lease_s: float) -> bool:
        """Renews a lease."""
        lease = self._leases.get(place)
        if lease is None or lease.flight_id != flight_id:
            return False
        del self._leases[place]
        self._leases[place] = _Lease(flight_id, self._clock.monotonic_s() + lease_s)
        return True

    async def land(self, place: Place, flight_id: str, answer: bytes | None) -> None:
        """Ends a flight."""
        lease = self._leases.get(place)
        if lease is not None and lease.flight_id == flight_id:
            del self._leases[place]

    def _forget_expired(self, now_s: float) -> None:
        """Leases stand in the order of their ends."""
        while self._leases and (first := next(iter(self._leases))) and self._leases[first].ends_s <= now_s:
            del self._leases[first]
