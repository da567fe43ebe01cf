"""Time, handed in: the domain never reads a clock of its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The moment, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that only goes forward, for measuring."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The moment, in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


class ManualClock:
    """A clock for tests and simulations: it moves when it is told to."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """The moment it was last set to."""
        return self._now

    def monotonic_s(self) -> float:
        """Seconds it was advanced in all."""
        return self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += seconds

    def jump(self, to: datetime) -> None:
        """Sets the wall clock, as a time server would; measured time goes on undisturbed."""
        self._now = to
