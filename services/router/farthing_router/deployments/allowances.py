"""How much a deployment may still be asked: what its provider says is left, and limits of our own."""

from __future__ import annotations

from dataclasses import dataclass

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams.limits import RateLimits

_RESET_UNSAID_S = 1.0
"""For how long a provider's word counts that does not say when its window begins anew."""
_MINUTE_S = 60.0
_SLOT_S = 0.05
"""When to look again for a free place among the calls under way: nobody knows when one of them ends."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Why a deployment takes no call, and from when on it may. `foreseen`: it would likely refuse, though it has not yet.

    `broken`: it failed too often, and nobody knows whether it will be back by then.
    """

    reason: str
    until_s: float
    foreseen: bool = False
    broken: bool = False


class Bucket:
    """So many a minute, as many at once after a quiet minute."""

    __slots__ = ("_at_s", "_left", "per_minute")

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left = float(per_minute)
        self._at_s = 0.0

    def wait_s(self, amount: int, now_s: float) -> float:
        """How long until so much is there; more than it ever holds counts as all of it."""
        self._left = min(float(self.per_minute), self._left + (now_s - self._at_s) * self.per_minute / _MINUTE_S)
        self._at_s = now_s
        return max(0.0, (min(amount, self.per_minute) - self._left) * _MINUTE_S / self.per_minute)

    def take(self, amount: int) -> None:
        """Takes, more than there is if need be; a negative amount is given back."""
        self._left -= amount


class _Said:
    """What a provider said is left of requests or tokens, less what was asked since. None: it said nothing that still counts."""

    __slots__ = ("left", "reset_at_s")

    def __init__(self) -> None:
        self.left: int | None = None
        self.reset_at_s = 0.0

    def hear(self, left: int | None, reset_s: float | None, *, uncounted: int, now_s: float) -> None:
        if left is not None:
            self.left, self.reset_at_s = left - uncounted, now_s + (_RESET_UNSAID_S if reset_s is None else reset_s)

    def lacks(self, amount: int, now_s: float) -> bool:
        if self.left is None:
            return False
        if now_s >= self.reset_at_s:
            self.left = None
            return False
        return self.left < amount


class Allowance:
    """The limits of one deployment."""

    __slots__ = ("_concurrency_max", "_requests", "_tokens", "requests", "tokens")

    def __init__(self, deployment: Deployment) -> None:
        self.requests = _Said()
        self.tokens = _Said()
        self._requests = Bucket(deployment.rpm) if deployment.rpm else None
        self._tokens = Bucket(deployment.tpm) if deployment.tpm else None
        self._concurrency_max = deployment.concurrency_max

    def rest(self, now_s: float, *, tokens: int, in_flight: int) -> Rest | None:
        """Why another call of so many tokens may not begin now; None where it may."""
        if self._concurrency_max and in_flight >= self._concurrency_max:
            return Rest(f"{in_flight} calls are under way, which is all it may have", now_s + _SLOT_S)
        if self._requests is not None and (wait_s := self._requests.wait_s(1, now_s)) > 0:
            return Rest(f"its limit of {self._requests.per_minute} requests a minute is used up", now_s + wait_s)
        if self._tokens is not None and (wait_s := self._tokens.wait_s(tokens, now_s)) > 0:
            return Rest(f"its limit of {self._tokens.per_minute} tokens a minute is used up", now_s + wait_s)
        if self.requests.lacks(1, now_s):
            return Rest("its provider says that no request is left", self.requests.reset_at_s, foreseen=True)
        if self.tokens.lacks(tokens, now_s):
            return Rest("its provider says that too few tokens are left", self.tokens.reset_at_s, foreseen=True)
        return None

    def begin(self, tokens: int) -> None:
        """A call of so many tokens begins."""
        if self.requests.left is not None:
            self.requests.left -= 1
        if self.tokens.left is not None:
            self.tokens.left -= tokens
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def end(self, tokens: int, *, used: int) -> None:
        """A call that had been taken to need so many tokens used so many."""
        if self._tokens is not None:
            self._tokens.take(used - tokens)

    def hear(self, limits: RateLimits, *, uncounted: int, uncounted_tokens: int, now_s: float) -> None:
        """What a provider says is left; some calls that are under way, and their tokens, it has likely not counted yet."""
        self.requests.hear(limits.requests_remaining, limits.requests_reset_s, uncounted=uncounted, now_s=now_s)
        self.tokens.hear(limits.tokens_remaining, limits.tokens_reset_s, uncounted=uncounted_tokens, now_s=now_s)
