"""How loaded a deployment is: calls in flight, and how long an answer takes there.

The latency is an average that rises at once and falls slowly, as in Finagle's "peak EWMA"; what was not heard of for a while drifts back
to what the others take, so that nobody is judged for ever by one bad minute.
"""

from __future__ import annotations

from math import exp

_RISE = 0.5
_FALL = 0.1
_FORGET_S = 10.0
_ERRORS = 0.1
_TOKENS_USUAL = 200
_TOKENS_OF_A_START = 100
"""An answer takes as long as this many tokens before its first one comes."""
_SUCCESS_MIN = 0.2
_LATENCY_S_MIN = 0.001


class Load:
    """The load of one deployment in this process."""

    __slots__ = ("_heard_s", "error_rate", "in_flight", "latency_s", "whole_s")

    def __init__(self) -> None:
        self.in_flight = 0
        self.latency_s: float | None = None
        self.whole_s: float | None = None
        self.error_rate = 0.0
        self._heard_s = 0.0

    def answered(self, seconds: float, *, output_tokens: int, now_s: float) -> None:
        """An answer came after so long; a long one may take longer."""
        usual_s = seconds * (_TOKENS_USUAL + _TOKENS_OF_A_START) / (output_tokens + _TOKENS_OF_A_START)
        self._take(usual_s, now_s)
        self.whole_s = seconds if self.whole_s is None else self.whole_s + _FALL * (seconds - self.whole_s)
        self.error_rate -= _ERRORS * self.error_rate

    def failed(self, seconds: float, *, now_s: float) -> None:
        """None came. A quick failure is no quick answer; a slow one has kept its caller waiting."""
        if self.latency_s is not None and seconds > self.latency_s:
            self._take(seconds, now_s)
        self._heard_s = now_s
        self.error_rate += _ERRORS * (1.0 - self.error_rate)

    def cost(self, now_s: float, *, best_s: float, fair: float) -> float:
        """What a call would cost in time, relative to other deployments.

        `best_s` is the shortest latency known among them, `fair` the calls in flight that would be this one's share.
        """
        fresh = exp((self._heard_s - now_s) / _FORGET_S)
        latency_s = best_s if self.latency_s is None else best_s + (self.latency_s - best_s) * fresh
        success = max(_SUCCESS_MIN, 1.0 - self.error_rate * fresh)
        # Who fails does so quickly, and looks idle: that must weigh less than the failures.
        return max(latency_s, _LATENCY_S_MIN) * (self.in_flight + 1) / ((fair + 1) * success**3)

    def _take(self, seconds: float, now_s: float) -> None:
        self._heard_s = now_s
        if self.latency_s is None:
            self.latency_s = seconds
        else:
            self.latency_s += (_RISE if seconds > self.latency_s else _FALL) * (seconds - self.latency_s)
