"""The meter: counts every call at once, and brings the counts to the database every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_runtime.beside import beside

from farthing_router.performance.cells import (
    Cell,
    CellKey,
    Flush,
    Minutes,
    speaks_for_the_deployment,
    waited_for,
)
from farthing_router.performance.decisions import attempts_of
from farthing_router.performance.labels import Folding
from farthing_router.performance.speeds import ModelSpeeds
from farthing_router.performance.sums import PerformanceStore
from farthing_router.performance.sweeping import ROWS, sweep_on
from farthing_router.routing.errands import Attempt, AttemptOutcome, Errand, Finished, StreamBroken
from farthing_router.store import StoreUnavailable

_log = structlog.get_logger()
_TURN_S_MAX = 20.0
_TASKS_READ_MAX = 100_000
_TASKS_SEEN_DAYS = 7


@dataclass(frozen=True, slots=True)
class MeterTerms:
    """How often counts are brought to the database and all replicas' are read; how many cells may wait; for how long sums are kept."""

    flush_s: float = 5.0
    refresh_s: float = 60.0
    cells_max: int = 20_000
    hours_kept_days: int = 35
    days_kept: int = 400


class Meter:
    """An Observer that counts calls. `dropped` counts those that found no room while the database was away; `speeds` is the port."""

    def __init__(
        self, store: PerformanceStore, *, clock: Clock, new_id: NewId, terms: MeterTerms, tasks_max: int = 100
    ) -> None:
        self._store = store
        self._clock = clock
        self._terms = terms
        self._replica = new_id()
        self._sequence = 0
        self._tasks = Folding(values_max=tasks_max)
        self._cells: dict[CellKey, Cell] = {}
        self._minutes: dict[tuple[str, datetime, str], Minutes] = {}
        self._sending: Flush | None = None
        self.speeds = ModelSpeeds()
        self.dropped = 0

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """Counts a route's calls."""
        now = self._clock.now()
        hour = now.replace(minute=0, second=0, microsecond=0)
        organization = errand.scope.split("/", 2)[1]
        task = self._tasks.fold(organization, "task", errand.task.replace("\x00", ""))
        for attempt in attempts_of(errand, finished):
            self._count(
                CellKey(organization, hour, attempt.provider, attempt.model, attempt.deployment, task),
                attempt,
                now.minute,
                failure_kind=_kind(attempt, errand, error),
            )

    async def flush(self) -> bool:
        """Brings what was counted to the database; False where that is away: what was sent is kept and sent again as it was."""
        while self._sending is not None or self._cells:
            if self._sending is None:
                self._sending = self._drained()
            try:
                async with asyncio.timeout(_TURN_S_MAX):
                    await self._store.add(self._sending)
            except (StoreUnavailable, TimeoutError) as error:
                _log.warning("counts of calls wait for the database", cells=len(self._cells), error=str(error))
                return False
            except Exception as error:  # counts that cannot be written must not hold up those behind them
                self.dropped += self._sending.attempts
                _log.error("counts of calls could not be written", error=type(error).__name__)
            self._sending = None
        return True

    async def refresh(self) -> None:
        """Brings counts to the database and reads what all replicas counted; what fails is tried again at the next turn."""
        if not await self.flush():
            return
        self.speeds.begin()
        try:
            self.speeds.adopt(await self._store.lines(now=self._clock.now()))
        except StoreUnavailable:
            _log.warning("latencies that other replicas saw could not be read")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Knows what was known before, and counts until the block ends."""
        try:
            await self._begin()
        except StoreUnavailable:
            _log.warning("performance begins without what was known before")
        async with beside(self._work(), sweep_on(self._forget, what="performance")):
            yield
        await self.flush()

    def _count(self, key: CellKey, attempt: Attempt, minute: int, *, failure_kind: str) -> None:
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= self._terms.cells_max:
                self.dropped += 1
                return
            cell = self._cells[key] = Cell()
        before = cell.down
        cell.take(attempt, failure_kind=failure_kind)
        place = (key.organization, key.at, key.provider)
        minutes = self._minutes.get(place)
        if minutes is None:
            minutes = self._minutes[place] = Minutes()
        if attempt.outcome is not AttemptOutcome.CANCELLED:
            minutes.take(minute, down=cell.down > before)
        self._learn(key, attempt, failure_kind or attempt.failure_kind)

    def _learn(self, key: CellKey, attempt: Attempt, failure_kind: str) -> None:
        if attempt.outcome is AttemptOutcome.CANCELLED:
            return
        if attempt.outcome is AttemptOutcome.FAILED or failure_kind:
            self.speeds.fail(key.model, key.task, down=speaks_for_the_deployment(failure_kind))
        elif waited_for(attempt):
            latency_ms = attempt.latency_us / 1000
            self.speeds.take(key.model, key.task, output_tokens=attempt.tokens.output_tokens, latency_ms=latency_ms)

    def _drained(self) -> Flush:
        cells, minutes = self._cells, self._minutes
        self._cells, self._minutes = {}, {}
        self._sequence += 1
        return Flush(self._replica, self._sequence, self._clock.now(), list(cells.items()), list(minutes.items()))

    async def _begin(self) -> None:
        since = self._clock.now() - timedelta(days=_TASKS_SEEN_DAYS)
        for organization, task in await self._store.tasks(since=since, count_max=_TASKS_READ_MAX):
            self._tasks.fold(organization, "task", task)
        await self.refresh()

    async def _work(self) -> None:
        since_s = 0.0
        while True:
            await asyncio.sleep(self._terms.flush_s)
            since_s += self._terms.flush_s
            if since_s < self._terms.refresh_s:
                await self.flush()
            else:
                since_s = 0.0
                await self.refresh()

    async def _forget(self) -> int:
        now = self._clock.now()
        hours, days = timedelta(days=self._terms.hours_kept_days), timedelta(days=self._terms.days_kept)
        return await self._store.forget(hours_before=now - hours, days_before=now - days, count_max=ROWS)


def _kind(attempt: Attempt, errand: Errand, error: BaseException | None) -> str:
    """What kind of failure a call was that does not say so itself; empty for an answer."""
    if attempt.failure_kind:
        return ""
    if attempt.outcome is AttemptOutcome.ACCEPTED and isinstance(error, StreamBroken):
        return "broken_stream"
    if attempt.outcome is AttemptOutcome.FAILED:
        return "rejected" if errand.rejected is not None and attempt is errand.failures[-1] else "other"
    return ""
