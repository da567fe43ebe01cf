"""What becomes of a request that boards a flight, and the bounds of flights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class FlightLimits:
    """Bounds. `lease_s` is how long nothing need be heard of a leader; `asks_s` how soon, and how seldom, a replica asks how things stand
    where others may lead.
    """

    lease_s: float = 10.0
    failures_max: int = 3
    waiters_max: int = 2_000
    rooms_max: int = 10_000
    asks_s: tuple[float, float] = (0.02, 0.25)


class Turn(Enum):
    """What becomes of a request that boards."""

    LEADS = "leads"
    LANDED = "landed"
    LOOKS_AGAIN = "looks again"
    ALONE = "alone"
    WAITS_ON = "waits on"


@dataclass(frozen=True, slots=True)
class Boarding:
    """What becomes of a request: it leads `flight_id`; the answer has come (`answer`), or can be looked up; it goes on without a flight; or
    the flight is still under way, but its wait is over.
    """

    turn: Turn
    flight_id: str = ""
    answer: bytes = b""


@dataclass(slots=True)
class FlightCounts:
    """What became of requests so far. `crowded` went on alone because too many waited, `unreachable` because the leases were away."""

    led: int = 0
    joined: int = 0
    handed_over: int = 0
    let_go: int = 0
    crowded: int = 0
    unreachable: int = 0
