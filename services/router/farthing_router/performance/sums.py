"""Questions about performance, what answers them, and the port to where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from farthing_router.performance.cells import Flush
from farthing_router.performance.speeds import Line

DIMENSIONS = ("provider", "model", "deployment", "task")


@dataclass(frozen=True, slots=True)
class Range:
    """From the beginning of an hour to before another's; in steps, the first of which begins with it, or as a whole without."""

    start: datetime
    end: datetime
    step: timedelta | None = None


HOURS, DAYS = "hours", "days"
_DAY = timedelta(days=1)


def pieces(within: Range) -> list[tuple[str, datetime, datetime]]:
    """What a range is read from: whole days from sums by the day, where its steps allow it, and the rest from those by the hour."""
    first, last = _midnight(within.start), _midnight(within.end)
    if first < within.start:
        first += _DAY
    by_day = within.step is None or (not within.step % _DAY and first == within.start)
    if not by_day or last <= first:
        return [(HOURS, within.start, within.end)]
    edges = ((HOURS, within.start, first), (HOURS, last, within.end))
    return [(DAYS, first, last), *(each for each in edges if each[1] < each[2])]


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class SumsAsked:
    """Whose calls ("" for everybody's), of when, told apart by which dimensions, and only those with these values.

    `histograms` is false where counts alone are wanted. At most `count_max` rows are read, in order of steps and then the dearest first,
    and only rows with these labels where `among` names them.
    """

    organization: str
    range: Range
    group_by: tuple[str, ...]
    only: Mapping[str, str] = field(default_factory=dict)
    histograms: bool = True
    count_max: int = 1_000
    among: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """Calls added up; as in `cells.Cell`. Histograms are arrays of float32, big-endian, empty where nothing is in them."""

    step: int
    labels: Mapping[str, str]
    attempts: int
    failures: int
    cancelled: int
    down: int
    answers: int
    cost_usd_nanos: int
    input_tokens: int
    output_tokens: int
    input_tokens_max: int
    latency: bytes = b""
    first_token: bytes = b""
    pace: bytes = b""
    kinds: bytes = b""


@dataclass(frozen=True, slots=True)
class OutageMinutes:
    """In how many minutes a provider was called, and in how many of those more than half of the calls failed because of it."""

    provider: str
    minutes: int
    outage_minutes: int


class PerformanceStore(Protocol):
    """Durable sums by the hour and by the day.

    - What a flush tells is added whole or not at all, and once however often it is sent. A replica sends one flush after the other.
    - It is added up by every level of `cells.LEVELS`, for its organisations and for everybody.
    - Flushes of several replicas add up, also of the same hours and labels at the same time.
    - Everything else reads sums alone, never calls one by one; nobody sees another organisation's.

    Everything raises StoreUnavailable when the database is out of reach.
    """

    async def add(self, flush: Flush) -> None:
        """Adds what a replica counted."""
        ...

    async def sums(self, asked: SumsAsked) -> list[Sums]:
        """Calls added up."""
        ...

    async def lines(self, *, now: datetime) -> dict[tuple[str, str], Line]:
        """Everybody's calls of the last hours by model and task, older ones with less weight."""
        ...

    async def outages(self, organization: str, *, start: datetime, end: datetime) -> list[OutageMinutes]:
        """By provider, when it was away."""
        ...

    async def tasks(self, *, since: datetime, count_max: int) -> list[tuple[str, str]]:
        """The tasks that organisations were seen with, so that they stay told apart; everybody's under ""."""
        ...

    async def forget(self, *, hours_before: datetime, days_before: datetime, count_max: int) -> int:
        """Deletes sums by the hour and by the day from before moments; at most so many rows of each. Says how many at most of one kind."""
        ...
