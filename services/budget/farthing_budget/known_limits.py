"""The rate limits that a process knows, so that admitting asks no database; changes are heard of by looking every so often."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
from farthing_core.scopes import Scope
from farthing_runtime.beside import beside

from farthing_budget.buckets import Bucket, buckets_of
from farthing_budget.rate_limits import RateLimit

_CHANGES_MAX = 1_000
_log = structlog.get_logger()


class LimitsSource(Protocol):
    """Where limits are read from: the part of the RateLimitStore that is needed here."""

    async def limits_of(self, organization: str) -> tuple[int, Sequence[RateLimit]]:
        """All limits of an organisation, and the epoch of its last change."""
        ...

    async def last_epoch(self) -> int:
        """The epoch of the last change of any organisation."""
        ...

    async def changed_since(self, epoch: int, *, count_max: int) -> Sequence[tuple[str, int]]:
        """Organisations whose limits changed after an epoch, each with the epoch of that change, in order."""
        ...


@dataclass(frozen=True, slots=True)
class OrganizationLimits:
    """The buckets of an organisation's limits by (scope, model); of limits for every model, the model is empty."""

    epoch: int
    buckets: dict[tuple[str, str], tuple[Bucket, ...]]

    def applying(self, scope: Scope, model: str) -> list[Bucket]:
        """The buckets that a request has to fit: of its scope and every ancestor, for its model and for all."""
        found: list[Bucket] = []
        if self.buckets:
            for path in scope.ancestors:
                found += self.buckets.get((path, ""), ())
                if model:
                    found += self.buckets.get((path, model), ())
        return found


class KnownLimits:
    """Limits by organisation, also that there are none; those unused for longest are forgotten when there are too many."""

    def __init__(self, source: LimitsSource, *, places_max: int) -> None:
        self._source = source
        self._places_max = places_max
        self._known: OrderedDict[str, OrganizationLimits] = OrderedDict()
        self._places = 0
        self._loading: dict[str, asyncio.Event] = {}
        self._changed_while_loading: set[str] = set()
        self._epoch = 0

    async def of(self, organization: str) -> OrganizationLimits:
        """An organisation's limits: at once when they are known. Raises StoreUnavailable when they are not and cannot be read."""
        known = self._known.get(organization)
        if known is not None:
            self._known.move_to_end(organization)
            return known
        return await self._load(organization)

    async def reread(self, organization: str) -> None:
        """Reads an organisation's limits again, after a change. Raises StoreUnavailable."""
        self._changed_while_loading.update(self._loading.keys() & {organization})
        if organization in self._known:
            self._keep(organization, *await self._source.limits_of(organization))

    @asynccontextmanager
    async def watching(self, *, interval_s: float) -> AsyncIterator[KnownLimits]:
        """Hears of changes until the block ends. While the database is away, what is known stays."""
        with suppress(Exception):  # then everything that ever changed is read again, which is only slower
            self._epoch = await self._source.last_epoch()
        async with beside(self._watch(interval_s)):
            yield self

    async def look(self) -> None:
        """Takes over what has changed since the last look. Raises StoreUnavailable."""
        while True:
            changed = await self._source.changed_since(self._epoch, count_max=_CHANGES_MAX)
            for organization, epoch in changed:
                await self.reread(organization)
                self._epoch = epoch
            if len(changed) < _CHANGES_MAX:
                return

    async def _watch(self, interval_s: float) -> None:
        away = False
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.look()
            except Exception as error:  # whatever it is, the watch must go on: changes would never be heard of again
                if not away:
                    _log.warning("changes of rate limits are not heard of; those known stay", error=type(error).__name__)
                away = True
            else:
                away = False

    async def _load(self, organization: str) -> OrganizationLimits:
        """Reads an organisation's limits; whoever asks for the same meanwhile waits for it instead of asking too."""
        while (loading := self._loading.get(organization)) is not None:
            await loading.wait()
            if (known := self._known.get(organization)) is not None:
                return known
        done = self._loading[organization] = asyncio.Event()
        try:
            while True:
                self._changed_while_loading.discard(organization)
                epoch, limits = await self._source.limits_of(organization)
                if organization not in self._changed_while_loading:
                    return self._keep(organization, epoch, limits)
        finally:
            self._changed_while_loading.discard(organization)
            del self._loading[organization]
            done.set()

    def _keep(self, organization: str, epoch: int, limits: Sequence[RateLimit]) -> OrganizationLimits:
        before = self._known.get(organization)
        if before is not None and before.epoch > epoch:
            return before  # read earlier, answered later
        found = OrganizationLimits(epoch, {(limit.scope, limit.model): buckets_of(limit) for limit in limits})
        self._known[organization] = found
        self._known.move_to_end(organization)
        self._places += 1 + len(found.buckets) - (1 + len(before.buckets) if before else 0)
        while self._places > self._places_max and len(self._known) > 1:
            _, gone = self._known.popitem(last=False)
            self._places -= 1 + len(gone.buckets)
        return found
