"""Who leads a flight: the port to what all replicas know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

Place = tuple[str, bytes]
"""An organisation and the key of a request: whoever has the same place asks for the same answer."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who leads at a place, and for how many seconds more without a sign of life.

    `landed` is set where the flight that was waited for came to an answer: the answer, or nothing where it can be looked up.
    """

    flight_id: str
    left_s: float
    landed: bytes | None = None


class Leases(Protocol):
    """Leases on places, one leader at a time. Every method may raise StoreUnavailable."""

    @property
    def shared(self) -> bool:
        """Whether other replicas may lead and land here, of which nothing is heard unless one asks."""
        ...

    async def lead(self, place: Place, flight_id: str, *, behind: str, lease_s: float) -> Standing:
        """Leads where nobody does, and says who does now. Whoever waits behind a flight that has landed is told of that first.

        Safe to repeat: who leads already has its lease renewed.
        """
        ...

    async def keep(self, place: Place, flight_id: str, *, lease_s: float) -> bool:
        """Renews a lease; False where it is not this flight's any more."""
        ...

    async def land(self, place: Place, flight_id: str, answer: bytes | None) -> None:
        """Ends a flight: nobody leads any more. With an answer, those who wait behind it learn of it for some seconds; None is a failure.

        A flight that has ended, or was overtaken, is no error.
        """
        ...
