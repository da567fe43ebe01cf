"""Buckets of rate limits in Redis, shared by replicas: one script admits, one corrects, so callers come one after the other.

Time is handed in. Keys carry the organisation as a hash tag, so that a cluster keeps together what a script touches; all expire.
The arithmetic is that of `buckets.py`; every number is whole and below 2**53.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any

from farthing_core.clock import Clock
from farthing_runtime.batching import Batcher
from farthing_runtime.redis_client import AWAY, open_redis
from redis.exceptions import NoScriptError

from farthing_budget.buckets import REMEMBERED_S, Admission, Admitted, Charge, Kind, refusal
from farthing_budget.rate_limits import BucketsAway
from farthing_budget.refusals import RequestIdReused
from farthing_budget.store.scripts import ADMIT, FINISH

_BATCH_MAX = 128
_QUEUE_MAX = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ADMIT_SHA, _FINISH_SHA = (sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (ADMIT, FINISH))
_Command = tuple[int | str | bytes, ...]
_Key = tuple[str, str]
"""(organisation, request_id)."""


@asynccontextmanager
async def open_buckets(url: str, clock: Clock, *, timeout_s: float) -> AsyncIterator[RedisBuckets]:
    """Buckets in the Redis at a URL, until the block ends and all that waits is answered. Every wait for Redis is bounded."""
    client = open_redis(url, timeout_s=timeout_s)
    try:
        async with RedisBuckets(client, clock).running() as buckets:
            yield buckets
    finally:
        await client.aclose()


class RedisBuckets:
    """The RateBuckets of all replicas. What is asked at the same time shares a round trip; may raise QueueFull when too many wait."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        # Admissions and the first look at their ends are one queue, so that an end never overtakes its admission.
        self._asks: Batcher[Admission | _Key, Any] = Batcher(self._ask, batch_size_max=_BATCH_MAX, queue_size_max=_QUEUE_MAX)
        self._ends: Batcher[_Command, Any] = Batcher(self._finish, batch_size_max=_BATCH_MAX, queue_size_max=_QUEUE_MAX)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RedisBuckets]:
        """Talks to Redis until the block ends and all that waits is answered."""
        async with self._asks.running(), self._ends.running():
            yield self

    async def take(self, admission: Admission) -> Admitted:
        """Takes of every bucket or of none."""
        verdict, *numbers = await self._asks.submit(admission)
        if verdict == b"REUSED":
            raise RequestIdReused(request_id=admission.request_id)
        if verdict == b"REFUSED":
            raise refusal(admission.charges, [int(number) for number in numbers])
        requests_left, tokens_left = (int(number) if int(number) >= 0 else None for number in numbers)
        return Admitted(True, requests_left, tokens_left)

    async def finish(self, organization: str, request_id: str, tokens: int | None) -> None:
        """Ends an admission."""
        key = (organization, request_id)
        lines, ends_at_us = await self._asks.submit(key)
        now_us = self._now_us()
        if lines is not None and int(ends_at_us) > now_us:
            await self._ends.submit(_ending(key, lines.decode(), tokens, now_us))

    async def reachable(self) -> None:
        """Raises BucketsAway when Redis does not take a write now."""
        try:
            await self._client.set("farthing:budget:reachable", "1", px=1_000)
        except AWAY as error:
            raise BucketsAway from error

    async def _ask(self, asked: Sequence[Admission | _Key]) -> list[Any]:
        now_us = self._now_us()
        return await self._run(
            ADMIT, [_taking(each, now_us) if isinstance(each, Admission) else _looking(each) for each in asked]
        )

    async def _finish(self, endings: Sequence[_Command]) -> list[Any]:
        return await self._run(FINISH, endings)

    async def _run(self, script: str, commands: Sequence[_Command]) -> list[Any]:
        """The answers to commands, in one round trip; in three when Redis does not have the script yet."""
        try:
            answers = await self._pipelined(commands)
            missing = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if missing:
                await self._client.script_load(script)
                again = await self._pipelined([commands[number] for number in missing])
                for number, answer in zip(missing, again, strict=True):
                    answers[number] = answer
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        except AWAY as error:
            raise BucketsAway from error
        return answers

    async def _pipelined(self, commands: Sequence[_Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def _now_us(self) -> int:
        return (self._clock.now() - _EPOCH) // _MICROSECOND


def _taking(admission: Admission, now_us: int) -> _Command:
    organization, charges = admission.organization, admission.charges
    keys = [_admission(organization, admission.request_id), *(_bucket(organization, bucket.name) for bucket, _ in charges)]
    return (
        "EVALSHA",
        _ADMIT_SHA,
        len(keys),
        *keys,
        now_us,
        admission.fingerprint,
        admission.request_id,
        now_us + admission.ttl_s * 1_000_000,
        now_us + max(REMEMBERED_S, admission.ttl_s) * 1_000_000,
        "\n".join(_line(charge, now_us) for charge in charges),
    )


def _looking(key: _Key) -> _Command:
    return "HMGET", _admission(*key), "charges", "ends_at_us"


def _ending(key: _Key, lines: str, tokens: int | None, now_us: int) -> _Command:
    organization, request_id = key
    charges = [line.split() for line in lines.split("\n")]
    keys = [_admission(*key), *(_bucket(organization, name) for name, *_ in charges)]
    corrections = "\n".join(_correction(numbers, tokens, now_us) for _, *numbers in charges)
    return "EVALSHA", _FINISH_SHA, len(keys), *keys, request_id, now_us, REMEMBERED_S * 1_000_000, corrections


def _line(charge: Charge, now_us: int) -> str:
    """What the script has to know of a bucket; it is kept for the end of the admission."""
    b = charge.bucket
    at = now_us // b.tick_us
    return f"{b.name} {b.kind[0]} {b.rate} {b.unit} {b.tick_us} {b.skew} {b.brim} {b.capacity} {charge.asked} {at}"


def _correction(line: Sequence[str], tokens: int | None, now_us: int) -> str:
    """What the other script has to know of it: how many more tokens were used than taken, or how many fewer."""
    kind = line[0]
    rate, unit, tick_us, skew, brim, _, asked, _ = map(int, line[1:])
    more = 0 if tokens is None or kind != Kind.TOKENS[0] else min(tokens - asked, brim // unit + 1)
    return f"{kind} {rate} {unit} {tick_us} {skew} {brim} {now_us // tick_us} {more}"


def _admission(organization: str, request_id: str) -> str:
    return f"farthing:budget:{{{organization}}}:admission:{request_id}"


def _bucket(organization: str, name: str) -> str:
    return f"farthing:budget:{{{organization}}}:bucket:{name}"
