"""Buckets of rate limits in this process. Everything happens between two awaits, so callers cannot get between each other."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass

from farthing_core.clock import Clock

from farthing_budget.buckets import (
    REMEMBERED_S,
    Admission,
    Admitted,
    Charge,
    Kind,
    Level,
    admitted,
    corrected,
    drained,
    fits,
    refusal,
    taken,
)
from farthing_budget.refusals import RequestIdReused

_FORGOTTEN_AT_ONCE_MAX = 16
_STALE_MIN = 1_024
_Key = tuple[str, str]
"""(organisation, request_id)."""


@dataclass(slots=True)
class _Record:
    """An admission as it is remembered. `open` holds its tokens with their marks until it has finished."""

    fingerprint: bytes
    answer: Admitted
    open: tuple[tuple[Charge, int], ...] | None
    ends_at_us: int


@dataclass(slots=True)
class _Lease:
    """Concurrency that an admission holds."""

    ends_at_us: int
    names: tuple[str, ...]


class MemoryBuckets:
    """The RateBuckets of one process. What was used longest ago is forgotten when there is too much of it.

    Time is taken from the clock that only goes forward, so setting the machine's clock changes nothing here.
    """

    def __init__(self, clock: Clock, *, buckets_max: int, admissions_max: int) -> None:
        self._clock = clock
        self._buckets_max = buckets_max
        self._admissions_max = admissions_max
        self._levels: OrderedDict[str, Level] = OrderedDict()
        self._running: dict[str, int] = {}
        self._records: OrderedDict[_Key, _Record] = OrderedDict()
        self._leases: dict[_Key, _Lease] = {}
        self._ends: list[tuple[int, _Key]] = []

    async def take(self, admission: Admission) -> Admitted:
        """Takes of every bucket or of none."""
        now_us = self._now_us()
        key = (admission.organization, admission.request_id)
        self._end_leases(now_us)
        self._forget(now_us)
        known = self._records.get(key)
        if known is not None and known.ends_at_us > now_us:
            if known.fingerprint != admission.fingerprint:
                raise RequestIdReused(request_id=admission.request_id)
            return known.answer
        charges = admission.charges
        levels = [self._level(charge, now_us) for charge in charges]
        filled = [level.filled for level in levels]
        if not all(map(fits, charges, filled)):
            raise refusal(charges, filled)
        tokens, names = [], []
        for charge, level in zip(charges, levels, strict=True):
            name = charge.bucket.name
            if charge.bucket.kind is Kind.CONCURRENCY:
                self._running[name] = level.filled + charge.asked
                names.append(name)
            else:
                after = taken(charge, level)
                self._put(name, after)
                if charge.bucket.kind is Kind.TOKENS:
                    tokens.append((charge, after.total))
        if names:
            self._lease(key, _Lease(now_us + admission.ttl_s * 1_000_000, tuple(names)))
        ends_at_us = now_us + max(REMEMBERED_S, admission.ttl_s) * 1_000_000
        answer = admitted(charges, filled)
        self._records.pop(key, None)
        self._records[key] = _Record(admission.fingerprint, answer, tuple(tokens), ends_at_us)
        return answer

    async def finish(self, organization: str, request_id: str, tokens: int | None) -> None:
        """Ends an admission."""
        now_us, key = self._now_us(), (organization, request_id)
        self._end_leases(now_us)
        record = self._records.get(key)
        if record is None or record.open is None or record.ends_at_us <= now_us:
            return
        self._give_back(self._leases.pop(key, None))
        if tokens is not None:
            for charge, mark in record.open:
                level = drained(charge.bucket, self._levels.get(charge.bucket.name), now_us)
                self._put(charge.bucket.name, corrected(charge, level, mark=mark, used=tokens))
        record.open = None
        record.ends_at_us = min(record.ends_at_us, now_us + REMEMBERED_S * 1_000_000)

    def _now_us(self) -> int:
        return round(self._clock.monotonic_s() * 1_000_000)

    def _level(self, charge: Charge, now_us: int) -> Level:
        bucket = charge.bucket
        if bucket.kind is Kind.CONCURRENCY:
            return Level(self._running.get(bucket.name, 0), now_us, 0)
        return drained(bucket, self._levels.get(bucket.name), now_us)

    def _put(self, name: str, level: Level) -> None:
        self._levels[name] = level
        self._levels.move_to_end(name)
        if len(self._levels) > self._buckets_max:
            self._levels.popitem(last=False)

    def _lease(self, key: _Key, lease: _Lease) -> None:
        self._leases[key] = lease
        heapq.heappush(self._ends, (lease.ends_at_us, key))
        if len(self._ends) > 2 * len(self._leases) + _STALE_MIN:  # most of them have finished long before their time
            self._ends = [(each.ends_at_us, of) for of, each in self._leases.items()]
            heapq.heapify(self._ends)

    def _end_leases(self, now_us: int) -> None:
        while self._ends and self._ends[0][0] <= now_us:
            ends_at_us, key = heapq.heappop(self._ends)
            lease = self._leases.get(key)
            if lease is not None and lease.ends_at_us == ends_at_us:
                self._give_back(self._leases.pop(key))

    def _give_back(self, lease: _Lease | None) -> None:
        for name in lease.names if lease else ():
            left = self._running[name] - 1
            if left:
                self._running[name] = left
            else:
                del self._running[name]

    def _forget(self, now_us: int) -> None:
        """Forgets a few of the oldest admissions whose time is over, and more where there are too many: open ones last."""
        full = len(self._records) >= self._admissions_max
        for _ in range(min(_FORGOTTEN_AT_ONCE_MAX, len(self._records))):
            key, record = next(iter(self._records.items()))
            if record.ends_at_us <= now_us or (full and record.open is None):
                self._drop(key)
                full = len(self._records) >= self._admissions_max
            elif full or record.ends_at_us > now_us + REMEMBERED_S * 1_000_000:
                self._records.move_to_end(key)
            else:
                return
        while len(self._records) >= self._admissions_max:
            self._drop(next(iter(self._records)))

    def _drop(self, key: _Key) -> None:
        del self._records[key]
        self._give_back(self._leases.pop(key, None))
