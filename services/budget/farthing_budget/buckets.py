"""What keeps a rate limit: buckets that fill with what is let through and drain at a steady rate.

A bucket is the leaky bucket as a meter (ITU-T I.371, the generic cell rate algorithm in its continuous-state form) in whole numbers: a
token is `unit` units, a minute is as many ticks, so exactly `rate` units drain in a tick and nothing is ever rounded. Ticks are as fine as
keeps every number below 2**53, where Lua counts exactly too: a microsecond, longer for limits beyond a million a minute.

Tokens are taken when a request is admitted and corrected when it ends. What was taken too many comes back as far as it is still in the
bucket: had it drained meanwhile, room was there already, and giving it again would let through more than the limit. Whose tokens are still
in the bucket is told in the order of admission: each admission has a mark (all that was ever taken, itself included), and what has left the
bucket is all that was ever taken less what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from farthing_budget.rate_limits import BurstExceeded, RateLimit, RateLimited

CONCURRENCY_RETRY_S = 1.0
"""When to ask again where somebody else has to end first: nobody can know when."""
OVERDRAFT_S = 3_600
"""No overdraft takes longer to drain than this, whatever was reported."""
REMEMBERED_S = 600
"""For so long a repeated admission is answered as before."""
SKEW_S = 60
"""Clocks of replicas may differ by this much; a bucket that was used later than that from now has seen a clock jump."""
_EXACT_MAX = 2**53
_MINUTE_US = 60_000_000
_TICKS_US = tuple(10**power for power in range(7))


class Kind(StrEnum):
    """What a bucket counts."""

    REQUESTS = "REQUESTS"
    TOKENS = "TOKENS"
    CONCURRENCY = "CONCURRENCY"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One kind of one limit. Of concurrency, `rate` is 0: nothing drains, it is given back."""

    limit: RateLimit
    kind: Kind
    name: str
    most: int
    rate: int
    unit: int
    tick_us: int
    capacity: int

    @property
    def brim(self) -> int:
        """The highest level that corrections may reach."""
        return self.capacity + self.rate * OVERDRAFT_S * 1_000_000 // self.tick_us

    @property
    def skew(self) -> int:
        """SKEW_S in ticks."""
        return SKEW_S * 1_000_000 // self.tick_us


class Level(NamedTuple):
    """How full a bucket is (in units), as of when (in ticks), and all that was ever taken from it (in requests or tokens)."""

    filled: int
    at: int
    total: int


class Charge(NamedTuple):
    """What an admission takes of a bucket: requests or tokens."""

    bucket: Bucket
    asked: int


class Admitted(NamedTuple):
    """A request may go on; what is left of the tightest limit of each kind, None where there is none."""

    limited: bool
    requests_left: int | None
    tokens_left: int | None


UNLIMITED = Admitted(False, None, None)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that asks to be let through. The fingerprint tells two bodies under one request_id apart."""

    organization: str
    request_id: str
    fingerprint: bytes
    charges: Sequence[Charge]
    ttl_s: int


def buckets_of(limit: RateLimit) -> tuple[Bucket, ...]:
    """The buckets that keep a limit."""
    found = []
    if limit.requests_per_minute:
        found.append(_draining(limit, Kind.REQUESTS, limit.requests_per_minute))
    if limit.tokens_per_minute:
        found.append(_draining(limit, Kind.TOKENS, limit.tokens_per_minute))
    if limit.concurrent_requests:
        most, name = limit.concurrent_requests, f"{limit.rate_limit_id}:{Kind.CONCURRENCY.lower()}"
        found.append(Bucket(limit, Kind.CONCURRENCY, name, most, rate=0, unit=1, tick_us=1, capacity=most))
    return tuple(found)


def _draining(limit: RateLimit, kind: Kind, rate: int) -> Bucket:
    span_us = (limit.burst_s + OVERDRAFT_S) * 1_000_000
    tick_us = next(tick for tick in _TICKS_US if rate * (span_us // tick) < _EXACT_MAX)
    unit = _MINUTE_US // tick_us
    # One at least, or a slow limit with a short burst would let nothing through ever.
    capacity = max(unit, rate * (limit.burst_s * 1_000_000 // tick_us))
    return Bucket(limit, kind, f"{limit.rate_limit_id}:{kind.lower()}", rate, rate, unit, tick_us, capacity)


def drained(bucket: Bucket, level: Level | None, now_us: int) -> Level:
    """A bucket's level now; a bucket that nobody knows is empty."""
    at = now_us // bucket.tick_us
    if level is None:
        return Level(0, at, 0)
    if level.at > at and level.at - at <= bucket.skew:
        at = level.at  # used last by a replica whose clock is ahead: time that it has counted is not counted again
    return Level(max(0, level.filled - bucket.rate * max(0, at - level.at)), at, level.total)


def fits(charge: Charge, filled: int) -> bool:
    """Whether what is asked goes into a bucket that is this full."""
    return filled + charge.asked * charge.bucket.unit <= charge.bucket.capacity


def taken(charge: Charge, level: Level) -> Level:
    """The level after an admission."""
    return Level(level.filled + charge.asked * charge.bucket.unit, level.at, level.total + charge.asked)


def corrected(charge: Charge, level: Level, *, mark: int, used: int) -> Level:
    """The level after a request whose admission left `total` at `mark` has used so many tokens."""
    bucket, more = charge.bucket, used - charge.asked
    if more > 0:
        more = min(more, bucket.brim // bucket.unit + 1)
        return Level(min(bucket.brim, level.filled + more * bucket.unit), level.at, level.total + more)
    # A bucket that was forgotten meanwhile knows nothing of the mark, and has nothing to give.
    inside = min(level.filled, level.filled - (level.total - mark) * bucket.unit)
    return Level(level.filled - max(0, min(-more * bucket.unit, inside)), level.at, level.total)


def admitted(charges: Sequence[Charge], levels: Sequence[int]) -> Admitted:
    """What is left after an admission that found the buckets this full."""
    left: dict[Kind, int] = {}
    for charge, filled in zip(charges, levels, strict=True):
        bucket = charge.bucket
        after = (bucket.capacity - filled) // bucket.unit - charge.asked
        left[bucket.kind] = min(left.get(bucket.kind, after), after)
    return Admitted(True, left.get(Kind.REQUESTS), left.get(Kind.TOKENS))


def check_bursts(charges: Sequence[Charge]) -> None:
    """Raises BurstExceeded where a bucket could not take this even when it is empty."""
    for charge in charges:
        bucket = charge.bucket
        if not fits(charge, 0):
            raise BurstExceeded(bucket.limit, asked=charge.asked, burst=bucket.capacity // bucket.unit)


def refusal(charges: Sequence[Charge], levels: Sequence[int]) -> RateLimited:
    """Why an admission that found the buckets this full is refused: by the bucket that has to be waited for longest."""
    waits = [(_wait_s(charge, filled), charge, filled) for charge, filled in zip(charges, levels, strict=True)]
    wait_s, (bucket, _), filled = max(waits, key=lambda each: each[0])
    left = max(0, bucket.capacity - filled) // bucket.unit
    return RateLimited(bucket.limit, bucket.kind, most=bucket.most, left=left, retry_after_s=wait_s)


def _wait_s(charge: Charge, filled: int) -> float:
    bucket = charge.bucket
    over = filled + charge.asked * bucket.unit - bucket.capacity
    if over <= 0:
        return 0.0
    return -(-over // bucket.rate) * bucket.tick_us / 1_000_000 if bucket.rate else CONCURRENCY_RETRY_S
