"""What happens to rate limits while Redis is away: this process goes on with buckets of its own, and says so."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol

import structlog
from farthing_core.errors import FarthingError
from farthing_runtime.beside import beside

from farthing_budget.buckets import Admission, Admitted
from farthing_budget.rate_limits import BucketsAway
from farthing_budget.store import RateBuckets

_TOLD_AT_ONCE = 128
_log = structlog.get_logger()


class SharedBuckets(RateBuckets, Protocol):
    """Buckets that may be out of reach."""

    async def reachable(self) -> None:
        """Raises BucketsAway when they are."""
        ...


class NoBuckets:
    """The RateBuckets of a process that rather lets nothing through than keep limits by itself."""

    async def take(self, admission: Admission) -> Admitted:
        """Raises BucketsAway."""
        raise BucketsAway

    async def finish(self, organization: str, request_id: str, tokens: int | None) -> None:
        """Nothing was admitted here."""


class FallbackBuckets:
    """Shared buckets while they are in reach, this process's own while they are not.

    One failure is enough to go on alone; then one task asks every `retry_interval_s` whether they are back, so no request waits for them
    meanwhile. What ends while they are away is told to them then, or its concurrency would stay taken until its time is over.
    """

    def __init__(self, shared: SharedBuckets, own: RateBuckets, *, unended_max: int = 10_000) -> None:
        self._shared = shared
        self._own = own
        self._unended: OrderedDict[tuple[str, str], int | None] = OrderedDict()
        self._unended_max = unended_max
        self._away = asyncio.Event()
        self.admitted_alone = 0

    async def take(self, admission: Admission) -> Admitted:
        """Takes of the shared buckets, or of this process's own."""
        if self._away.is_set():
            return await self._take_alone(admission)
        try:
            return await self._shared.take(admission)
        except BucketsAway as error:
            self._lose(error)
        try:
            return await self._take_alone(admission)
        except FarthingError:
            # The shared buckets may have admitted it all the same and only the answer was lost: nobody would end it.
            self._tell_later(admission.organization, admission.request_id, 0)
            raise

    async def finish(self, organization: str, request_id: str, tokens: int | None) -> None:
        """Ends an admission wherever it was made: the same request may have been admitted here and there."""
        await self._own.finish(organization, request_id, tokens)
        if not self._away.is_set():
            try:
                return await self._shared.finish(organization, request_id, tokens)
            except BucketsAway as error:
                self._lose(error)
        self._tell_later(organization, request_id, tokens)

    async def recover(self) -> None:
        """Goes back to the shared buckets when they are in reach and have been told what ended. Raises BucketsAway."""
        await self._shared.reachable()
        while self._unended:
            told = list(islice(self._unended.items(), _TOLD_AT_ONCE))
            await asyncio.gather(*(self._shared.finish(*key, tokens) for key, tokens in told))
            for key, _ in told:
                self._unended.pop(key, None)
        self._away.clear()
        _log.warning("redis is back: rate limits are shared again", admitted_alone=self.admitted_alone)

    @asynccontextmanager
    async def recovering(self, *, retry_interval_s: float) -> AsyncIterator[FallbackBuckets]:
        """Sees to it that the shared buckets are used again, until the block ends."""
        async with beside(self._work(retry_interval_s)):
            yield self

    async def _work(self, retry_interval_s: float) -> None:
        while True:
            await self._away.wait()
            await asyncio.sleep(retry_interval_s)
            try:
                await self.recover()
            except BucketsAway:
                continue
            except Exception as error:  # whatever it is, this must go on: the buckets would never be shared again
                _log.warning("redis answers but is not used yet", error=type(error).__name__)

    async def _take_alone(self, admission: Admission) -> Admitted:
        answer = await self._own.take(admission)
        self.admitted_alone += 1
        return answer

    def _tell_later(self, organization: str, request_id: str, tokens: int | None) -> None:
        self._unended[organization, request_id] = tokens
        if len(self._unended) > self._unended_max:
            self._unended.popitem(last=False)

    def _lose(self, error: BucketsAway) -> None:
        if not self._away.is_set():
            self._away.set()
            cause = type(error.__cause__).__name__ if error.__cause__ else ""
            _log.warning("redis is away: this process keeps rate limits by itself or refuses, as it is set", error=cause)
