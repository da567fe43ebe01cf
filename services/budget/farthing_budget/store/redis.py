"""Buckets of rate limits in Redis, shared by replicas: one script admits, one corrects, so callers come one after the other.

Time is handed in. Keys carry the organisation as a hash tag, so that a cluster keeps together what a script touches; all expire.
The arithmetic is that of `buckets.py`; every number is whole and below 2**53.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from farthing_core.clock import Clock
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from farthing_budget.buckets import REMEMBERED_S, Admission, Admitted, Charge, Kind, refusal
from farthing_budget.rate_limits import BucketsAway
from farthing_budget.refusals import RequestIdReused
from farthing_budget.store.scripts import ADMIT, FINISH

_AWAY = (RedisError, OSError, TimeoutError)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def open_client(url: str, *, timeout_s: float, connections_max: int) -> Redis:
    """A client whose every wait is bounded. It tries once more at once: a connection may have broken while nobody used it."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections_max,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


class RedisBuckets:
    """The RateBuckets of all replicas."""

    def __init__(self, client: Redis, clock: Clock) -> None:
        self._client: Any = client
        self._clock = clock
        self._admit = self._client.register_script(ADMIT)
        self._finish = self._client.register_script(FINISH)

    async def take(self, admission: Admission) -> Admitted:
        """Takes of every bucket or of none."""
        now_us, organization, charges = self._now_us(), admission.organization, admission.charges
        keys = [_admission(organization, admission.request_id)]
        arguments: list[int | str | bytes] = [
            now_us,
            admission.fingerprint,
            admission.request_id,
            now_us + admission.ttl_s * 1_000_000,
            now_us + max(REMEMBERED_S, admission.ttl_s) * 1_000_000,
            json.dumps([_described(charge) for charge in charges], separators=(",", ":")),
        ]
        for bucket, asked in charges:
            keys.append(_bucket(organization, bucket.name))
            arguments += (bucket.rate, bucket.unit, bucket.tick_us, bucket.skew, now_us // bucket.tick_us)
            arguments += (bucket.capacity, asked, bucket.kind[0])
        try:
            verdict, *numbers = await self._admit(keys=keys, args=arguments)
        except _AWAY as error:
            raise BucketsAway from error
        if verdict == b"REUSED":
            raise RequestIdReused(request_id=admission.request_id)
        if verdict == b"REFUSED":
            raise refusal(charges, [int(number) for number in numbers])
        requests_left, tokens_left = (int(number) if int(number) >= 0 else None for number in numbers)
        return Admitted(True, requests_left, tokens_left)

    async def finish(self, organization: str, request_id: str, tokens: int | None) -> None:
        """Ends an admission."""
        now_us, key = self._now_us(), _admission(organization, request_id)
        try:
            described, ends_at_us = await self._client.hmget(key, "charges", "ends_at_us")
            if described is None or int(ends_at_us) <= now_us:
                return
            keys = [key]
            arguments: list[int | str] = [request_id, now_us, REMEMBERED_S * 1_000_000]
            for charge in json.loads(described):
                name, *numbers = charge
                keys.append(_bucket(organization, name))
                arguments += _correction(numbers, tokens, now_us)
            await self._finish(keys=keys, args=arguments)
        except _AWAY as error:
            raise BucketsAway from error

    async def reachable(self) -> None:
        """Raises BucketsAway when Redis does not take a write now."""
        try:
            await self._client.set("farthing:budget:reachable", "1", px=1_000)
        except _AWAY as error:
            raise BucketsAway from error

    def _now_us(self) -> int:
        return (self._clock.now() - _EPOCH) // _MICROSECOND


def _described(charge: Charge) -> tuple[str | int, ...]:
    """What the end of an admission has to know of a bucket; -1 where nothing is corrected."""
    bucket = charge.bucket
    asked = charge.asked if bucket.kind is Kind.TOKENS else -1
    return bucket.name, bucket.rate, bucket.unit, bucket.tick_us, bucket.brim, bucket.skew, asked


def _correction(numbers: Sequence[int], tokens: int | None, now_us: int) -> tuple[int, ...]:
    """What the script has to know of a bucket: how many more tokens were used than taken, or how many fewer."""
    rate, unit, tick_us, brim, skew, asked = numbers
    more = 0 if tokens is None or asked < 0 else min(tokens - asked, brim // unit + 1)
    return rate, unit, tick_us, skew, now_us // tick_us, brim, more


def _admission(organization: str, request_id: str) -> str:
    return f"farthing:budget:{{{organization}}}:admission:{request_id}"


def _bucket(organization: str, name: str) -> str:
    return f"farthing:budget:{{{organization}}}:bucket:{name}"
