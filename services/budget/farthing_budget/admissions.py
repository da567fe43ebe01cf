"""Admissions: a request is let through by every rate limit that applies to it, or by none."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from farthing_core.scopes import Scope

from farthing_budget.buckets import UNLIMITED, Admission, Admitted, Bucket, Charge, Kind, check_bursts
from farthing_budget.known_limits import KnownLimits
from farthing_budget.store import RateBuckets


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that wants to go on. `model` is empty while it is not known."""

    scope: Scope
    request_id: str
    model: str
    tokens: int
    ttl_s: int


class Admissions:
    """Lets requests through and hears of their end."""

    def __init__(self, limits: KnownLimits, buckets: RateBuckets) -> None:
        self._limits = limits
        self._buckets = buckets

    async def admit(self, ask: Ask) -> Admitted:
        """Lets a request through, or raises RateLimited, BurstExceeded, RequestIdReused, BucketsAway or StoreUnavailable."""
        limits = await self._limits.of(ask.scope.organization)
        applying = limits.applying(ask.scope, ask.model)
        if not applying:
            return UNLIMITED
        charges = tuple(Charge(bucket, _count(bucket, ask)) for bucket in applying)
        check_bursts(charges)
        body = f"{ask.scope.path}\n{ask.model}\n{ask.tokens}\n{ask.ttl_s}"
        fingerprint = blake2b(body.encode(), digest_size=8).digest()
        return await self._buckets.take(Admission(ask.scope.organization, ask.request_id, fingerprint, charges, ask.ttl_s))

    async def finish(self, scope: Scope, request_id: str, tokens: int | None) -> None:
        """Gives a request's concurrency back and corrects its tokens, once. Raises BucketsAway."""
        await self._buckets.finish(scope.organization, request_id, tokens)


def _count(bucket: Bucket, ask: Ask) -> int:
    return ask.tokens if bucket.kind is Kind.TOKENS else 1
