"""A circuit breaker: a deployment that fails too often rests, is tried with single calls, and takes calls again when they succeed.

States and words are those of Nygard's "Release It!"; the rolling error rate with a least volume is how Hystrix and its successors open one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from farthing_router.deployments.recent import RecentCounts


class CircuitState(StrEnum):
    """What a circuit lets through: everything, nothing, or one call at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitTerms:
    """When a circuit opens and for how long.

    It opens after `failures_in_a_row`, or when of at least `calls_min` calls within `window_s` this share failed. It stays open for
    `open_s`, and twice as long each time it opens anew within `open_s_max` of having closed, at most that long. What no waiting mends
    opens it for `open_at_once_s` first.
    """

    window_s: float = 30.0
    calls_min: int = 20
    failed_share: float = 0.5
    failures_in_a_row: int = 5
    open_s: float = 2.0
    open_at_once_s: float = 30.0
    open_s_max: float = 60.0
    probes_good: int = 3


_USUAL = CircuitTerms()


class Circuit:
    """The circuit of one deployment. Every call that `begin` let through ends in `succeeded`, `failed` or `undecided`."""

    __slots__ = ("_closed_at_s", "_good", "_in_a_row", "_open_until_s", "_opened", "_probing", "_recent", "_terms", "reason")

    def __init__(self, terms: CircuitTerms = _USUAL) -> None:
        self._terms = terms
        self._recent = RecentCounts(terms.window_s)
        self._in_a_row = 0
        self._open_until_s: float | None = None
        self._opened = 0
        self._closed_at_s = 0.0
        self._good = 0
        self._probing = False
        self.reason = ""

    def state(self, now_s: float) -> CircuitState:
        """What it lets through now."""
        if self._open_until_s is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now_s < self._open_until_s else CircuitState.HALF_OPEN

    def lets_through(self, now_s: float) -> bool:
        """Whether a call may begin."""
        return self._open_until_s is None or (now_s >= self._open_until_s and not self._probing)

    def again_at_s(self, now_s: float) -> float:
        """From when on a call may begin, as far as one can say: while a probe is out nobody knows."""
        return max(now_s, self._open_until_s or now_s)

    def begin(self, now_s: float) -> bool:
        """A call that was let through begins; True when it is a probe."""
        if self._open_until_s is None:
            return False
        self._probing = True
        return True

    def succeeded(self, now_s: float, *, probe: bool) -> None:
        """It answered."""
        if not probe:
            if self._open_until_s is None:
                self._in_a_row = 0
                self._recent.add(now_s, first=1)
            return
        self._probing = False
        self._good += 1
        if self._good >= self._terms.probes_good:
            self._closed_at_s = now_s
            self._open_until_s, self._in_a_row, self.reason = None, 0, ""
            self._recent.clear()

    def failed(self, now_s: float, *, probe: bool, reason: str, at_once: bool = False) -> None:
        """It failed in a way that speaks about the deployment; `at_once` when no other call can fare better."""
        if probe:
            self._probing = False
            return self._open(now_s, reason, at_once=at_once)
        if self._open_until_s is not None:
            return None  # it began before the circuit opened and says nothing new
        self._in_a_row += 1
        self._recent.add(now_s, first=1, second=1)
        calls, failed = self._recent.first, self._recent.second
        often = calls >= self._terms.calls_min and failed >= calls * self._terms.failed_share
        if at_once or self._in_a_row >= self._terms.failures_in_a_row or often:
            said = f"{failed} of {calls} calls failed, the last: {reason}" if not at_once else reason
            self._open(now_s, said, at_once=at_once)
        return None

    def undecided(self, *, probe: bool) -> None:
        """A call ended that says nothing about the deployment."""
        if probe:
            self._probing = False

    def _open(self, now_s: float, reason: str, *, at_once: bool) -> None:
        if self._open_until_s is None and now_s - self._closed_at_s >= self._terms.open_s_max:
            self._opened = 0
        first_s = self._terms.open_at_once_s if at_once else self._terms.open_s
        open_s = min(self._terms.open_s_max, first_s * 2**self._opened)
        self._opened = min(self._opened + 1, 16)
        self._open_until_s = now_s + open_s
        self._good = 0
        self.reason = reason
