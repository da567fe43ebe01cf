"""Counts over the last seconds, forgotten slot by slot."""

from __future__ import annotations

_SLOTS = 10


class RecentCounts:
    """How often each of two things happened within a window; memory is ten slots, whatever happens."""

    __slots__ = ("_first", "_second", "_slot", "_slot_s", "first", "second")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / _SLOTS
        self._slot = 0
        self._first = [0] * _SLOTS
        self._second = [0] * _SLOTS
        self.first = 0
        self.second = 0

    def add(self, now_s: float, *, first: int = 0, second: int = 0) -> None:
        """Counts."""
        self.roll(now_s)
        at = self._slot % _SLOTS
        self._first[at] += first
        self._second[at] += second
        self.first += first
        self.second += second

    def roll(self, now_s: float) -> None:
        """Forgets what is older than the window; `first` and `second` are right after it."""
        slot = int(now_s / self._slot_s)
        for passed in range(self._slot + 1, min(slot, self._slot + _SLOTS) + 1):
            at = passed % _SLOTS
            self.first -= self._first[at]
            self.second -= self._second[at]
            self._first[at] = self._second[at] = 0
        self._slot = max(slot, self._slot)

    def clear(self) -> None:
        """Forgets everything."""
        self._first = [0] * _SLOTS
        self._second = [0] * _SLOTS
        self.first = self.second = 0
