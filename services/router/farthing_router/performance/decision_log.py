"""The decision log: takes in what happens at once, and writes it down behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import structlog
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_runtime.beside import beside

from farthing_router.performance.decisions import Decision, DecisionStore, Rating, decision_of
from farthing_router.performance.labels import Labelled, Places
from farthing_router.performance.sweeping import ROWS, sweep_on
from farthing_router.routing.errands import Errand, Finished
from farthing_router.store import StoreUnavailable

_log = structlog.get_logger()
_LAST_FLUSH_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class DecisionLogTerms:
    """How often decisions are written, how many may wait, how many go at once, and for how long they are kept."""

    flush_s: float = 1.0
    waiting_max: int = 20_000
    batch_max: int = 1_000
    kept_days: int = 90


class DecisionLog:
    """An Observer that writes every route's decision down. `dropped` counts those that found no room while the database was away."""

    def __init__(self, store: DecisionStore, *, clock: Clock, new_id: NewId, terms: DecisionLogTerms) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._terms = terms
        self._places = Places()
        self._waiting: deque[Decision] = deque()
        self._sending: list[tuple[Decision, Labelled]] = []
        self._ratings: dict[tuple[str, str], float] = {}
        self._again: dict[tuple[str, str], float] = {}
        self.dropped = 0

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """Takes in a route's end."""
        if len(self._waiting) >= self._terms.waiting_max:
            self.dropped += 1
            return
        self._waiting.append(decision_of(errand, finished, error, decided_at=self._clock.now(), decision_id=self._new_id()))

    def rated(self, organization: str, request_id: str, _model: str, quality: float) -> None:
        """Takes in what is now known of the quality of an answer that was served."""
        if len(self._ratings) < self._terms.waiting_max or (organization, request_id) in self._ratings:
            self._ratings[organization, request_id] = quality
        else:
            self.dropped += 1

    async def flush(self) -> bool:
        """Writes down what waits; False where the database is away: what was sent is kept and sent again as it was."""
        return await self._write_decisions() and await self._write_ratings()

    async def _write_decisions(self) -> bool:
        while self._sending or self._waiting:
            if not self._sending:
                count = min(len(self._waiting), self._terms.batch_max)
                self._sending = [self._placed(self._waiting.popleft()) for _ in range(count)]
            try:
                await self._store.write(self._sending)
            except StoreUnavailable as error:
                _log.warning("decisions wait for the database", waiting=len(self._waiting), error=error.message)
                return False
            except Exception as error:  # a batch that cannot be written must not hold up those behind it
                self.dropped += len(self._sending)
                _log.error("decisions could not be written", count=len(self._sending), error=type(error).__name__)
            self._sending = []
        return True

    async def _write_ratings(self) -> bool:
        # All that is due now is of decisions that are written; what comes while this waits may be of one that is not.
        due, again, self._ratings, self._again = self._ratings, self._again, {}, {}
        while due or again:
            batch = dict(islice((again or due).items(), self._terms.batch_max))
            try:
                missing = await self._store.rate([Rating(*key, quality) for key, quality in batch.items()])
            except StoreUnavailable:
                self._ratings, self._again = due | self._ratings, again
                return False
            except Exception as error:  # as above
                missing = ()
                self.dropped += len(batch)
                _log.error("ratings could not be written", count=len(batch), error=type(error).__name__)
            if not again:  # another replica may be about to write the decision: asked for once more
                self._again |= {(each.organization, each.request_id): each.quality for each in missing}
            for key in batch:
                (again or due).pop(key)
        return True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes and sweeps until the block ends, and writes once more then."""
        async with beside(self._write_on(), sweep_on(self._forget, what="decisions")):
            yield
        try:
            async with asyncio.timeout(_LAST_FLUSH_S_MAX):
                await self.flush()
        except TimeoutError:
            _log.warning("decisions were lost at the end", count=len(self._sending) + len(self._waiting))

    def _placed(self, decision: Decision) -> tuple[Decision, Labelled]:
        if decision.served_model and not decision.shadow_of:
            decision = decision._replace(quality=self._ratings.pop((decision.organization, decision.request_id), None))
        values = (
            decision.task,
            decision.strategy,
            decision.reason,
            decision.rule_id,
            decision.calibration_id,
            decision.experiment_id,
            decision.arm,
            decision.served_model,
            "\n".join(decision.candidates),
        )
        hour = decision.decided_at.replace(minute=0, second=0, microsecond=0)
        return decision, self._places.place(decision.organization, hour, values, shadow=bool(decision.shadow_of))

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(self._terms.flush_s)
            await self.flush()

    async def _forget(self) -> int:
        before = self._clock.now() - timedelta(days=self._terms.kept_days)
        return await self._store.forget(before=before, count_max=ROWS)
