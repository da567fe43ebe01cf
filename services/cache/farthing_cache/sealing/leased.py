"""Seals under keys on loan from the privacy service: used at home, renewed while they are in use, forgotten when the loan ends."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from farthing_core.clock import Clock
from farthing_runtime.envelopes import DataKeys, header_of, number_of

from farthing_cache.sealing.seals import KeysGone, SealUnavailable

_INLINE_BYTES_MAX = 256 * 1024
"""More than this is sealed and opened in a thread: it takes the better part of a millisecond."""
_RENEW_AT = 0.5
"""The part of a lease after which it is renewed beside the next use."""
_RETRY_S = 1.0
"""Seconds between attempts to get keys that are not to be had, or newer ones than are at hand."""
_GONE_LEASE_S = 10.0
"""How long it is believed that keys are erased: they may be made again."""


@dataclass(frozen=True, slots=True)
class Lent:
    """Keys on loan, and for how long."""

    keys: DataKeys
    lease_s: float


class KeyLender(Protocol):
    """Lends organisations' data keys for the cache."""

    async def lend(self, organization: str) -> Lent:
        """The keys. Raises KeysGone where they were erased for good, SealUnavailable where they are out of reach. Bounded in time."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    """A loan at home, on the monotonic clock; no keys where they are gone."""

    keys: DataKeys | None
    began_s: float
    ends_s: float

    @property
    def renew_s(self) -> float:
        return self.began_s + (self.ends_s - self.began_s) * _RENEW_AT


class LeasedSeals:
    """The Seals of a cache that has the organisation's keys on loan. At most `organizations_max` loans are held at once.

    A loan counts from before it was asked for, so that it ends here no later than its lender believes.
    """

    def __init__(self, lender: KeyLender, *, clock: Clock, organizations_max: int) -> None:
        self._lender = lender
        self._clock = clock
        self._organizations_max = organizations_max
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._failed: OrderedDict[str, float] = OrderedDict()
        self.unreadable = 0
        """Sealed texts that could not be opened though the keys were at hand."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Lets loans be renewed until the block ends; then every key is forgotten."""
        try:
            yield
        finally:
            asking = list(self._asking.values())
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            self._held.clear()

    async def seal(self, organization: str, belongs_to: bytes, payload: bytes) -> bytes:
        """The payload under the organisation's newest key. Raises SealUnavailable, KeysGone."""
        held = await self._at_hand(organization)
        if held is None:
            raise SealUnavailable
        if held.keys is None:
            raise KeysGone
        if len(payload) <= _INLINE_BYTES_MAX:
            return held.keys.seal(payload, belongs_to=belongs_to)
        return await asyncio.to_thread(held.keys.seal, payload, belongs_to=belongs_to)

    async def open(self, organization: str, belongs_to: bytes, sealed: bytes) -> bytes | None:
        """What was sealed; None where it cannot be read, now or ever."""
        held = await self._at_hand(organization)
        if held is not None and held.keys is not None and number_of(sealed) > held.keys.newest:
            held = await self._newer(organization, held)
        if held is None:
            return None
        if held.keys is None:
            self.unreadable += 1
            return None
        if len(sealed) <= _INLINE_BYTES_MAX:
            opened = held.keys.open(sealed, belongs_to=belongs_to)
        else:
            opened = await asyncio.to_thread(held.keys.open, sealed, belongs_to=belongs_to)
        self.unreadable += opened is None
        return opened

    def gone(self, organization: str, sealed: bytes) -> bool:
        """Whether what could not be opened never will be."""
        held = self._valid(organization)
        return held is not None and (held.keys is None or number_of(sealed) <= held.keys.newest)

    async def headers(self, organization: str) -> list[bytes] | None:
        """What texts that can be read begin with; None where that is not known now."""
        held = await self._at_hand(organization)
        if held is None:
            return None
        return [] if held.keys is None else [header_of(number) for number in sorted(held.keys.numbers)]

    async def forget_ended(self) -> None:
        """Drops the keys of loans that have ended."""
        now_s = self._clock.monotonic_s()
        for organization in [name for name, held in self._held.items() if held.ends_s <= now_s]:
            del self._held[organization]
        for organization in [name for name, failed_s in self._failed.items() if failed_s + _RETRY_S <= now_s]:
            del self._failed[organization]

    def _valid(self, organization: str) -> _Held | None:
        held = self._held.get(organization)
        return held if held is not None and held.ends_s > self._clock.monotonic_s() else None

    async def _at_hand(self, organization: str) -> _Held | None:
        """The loan; asked for where there is none, renewed beside where it is half over."""
        held = self._held.get(organization)
        now_s = self._clock.monotonic_s()
        if held is None or held.ends_s <= now_s:
            return await self._asked(organization)
        self._held.move_to_end(organization)
        if held.renew_s <= now_s and self._may_ask(organization):
            self._ask(organization)
        return held

    async def _newer(self, organization: str, held: _Held) -> _Held | None:
        """The loan anew: a text names a key that another replica may know already. Not more often than every second."""
        if self._clock.monotonic_s() - held.began_s < _RETRY_S:
            return held
        return await self._asked(organization)

    async def _asked(self, organization: str) -> _Held | None:
        """The loan, after asking; callers at the same time share one question."""
        if self._may_ask(organization):
            await asyncio.shield(self._ask(organization))
        return self._valid(organization)

    def _may_ask(self, organization: str) -> bool:
        failed_s = self._failed.get(organization)
        return failed_s is None or failed_s + _RETRY_S <= self._clock.monotonic_s()

    def _ask(self, organization: str) -> asyncio.Task[None]:
        task = self._asking.get(organization)
        if task is None:
            task = self._asking[organization] = asyncio.create_task(self._borrow(organization))
            task.add_done_callback(lambda _: self._asking.pop(organization, None))
        return task

    async def _borrow(self, organization: str) -> None:
        began_s = self._clock.monotonic_s()
        try:
            lent = await self._lender.lend(organization)
            self._held[organization] = _Held(lent.keys, began_s, began_s + lent.lease_s)
            self._failed.pop(organization, None)
        except KeysGone:
            self._held[organization] = _Held(None, began_s, began_s + _GONE_LEASE_S)
        except SealUnavailable:
            self._failed[organization] = self._clock.monotonic_s()
        if organization in self._held:
            self._held.move_to_end(organization)
        for known in (self._held, self._failed):
            while len(known) > self._organizations_max:
                known.popitem(last=False)
