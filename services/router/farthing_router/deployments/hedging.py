"""When a second deployment is asked because the first takes unusually long, as in Dean and Barroso's "The Tail at Scale"."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from farthing_router.deployments.recent import RecentCounts

_KEPT = 256
_NEEDED = 20
_WINDOW_S = 60.0


class Latencies:
    """The last latencies of a deployment, in order of size."""

    __slots__ = ("_arrived", "_sorted")

    def __init__(self) -> None:
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Takes in one; the oldest is forgotten."""
        if len(self._arrived) == _KEPT:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float | None:
        """The latency that this share of answers does not exceed; None where too few are known."""
        count = len(self._sorted)
        return None if count < _NEEDED else self._sorted[min(count - 1, int(share * count))]


class ShareBudget:
    """Keeps something to a share of all calls within a window, with `spare` beyond it for when there are few."""

    __slots__ = ("_recent", "_share", "_spare")

    def __init__(self, *, share: float, spare: int, window_s: float = _WINDOW_S) -> None:
        self._recent = RecentCounts(window_s)
        self._share = share
        self._spare = spare

    def called(self, now_s: float) -> None:
        """A call."""
        self._recent.add(now_s, first=1)

    def take(self, now_s: float) -> bool:
        """Takes one where there is one left."""
        self._recent.roll(now_s)
        if self._recent.second >= self._recent.first * self._share + self._spare:
            return False
        self._recent.add(now_s, second=1)
        return True
