"""The parts of learning put together, and what goes on beside requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from farthing_core.clock import Clock
from farthing_runtime.beside import beside
from farthing_runtime.refreshing import Watched, watching

from farthing_router.learning.arms import Arms
from farthing_router.learning.feedback import Feedback
from farthing_router.learning.fitted_scores import FittedScoreBook
from farthing_router.learning.outcomes import Arm, OutcomeStore
from farthing_router.learning.qualities import LearnedQualities, catalog_prior
from farthing_router.learning.recording import QualityListener, Recorder
from farthing_router.learning.reports import QualityReports

_UNPRICED_PRIOR = 0.7
_FORGET_EVERY_S = 600.0
_FORGET_ROWS = 5_000
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often outcomes are written and what others wrote is read, how many answers are scored in a second, and for how long answers
    are kept."""

    write_s: float
    refresh_s: float
    scored_per_s: float
    keep_days: int


class Learner:
    """Learns from answers and from what is thought of them. `listeners` hear of every score and opinion, `opinion_listeners` of
    opinions only; they must return at once.
    """

    def __init__(
        self,
        *,
        store: OutcomeStore,
        clock: Clock,
        pace: Pace,
        prompt_of: Callable[[Any], str],
        listeners: Sequence[QualityListener] = (),
        opinion_listeners: Sequence[QualityListener] = (),
    ) -> None:
        self.store = store
        self._clock = clock
        self._pace = pace
        self._prior: dict[str, float] = {}
        self.arms = Arms(prior=lambda model: self._prior.get(model, _UNPRICED_PRIOR), clock=clock)
        self.qualities = LearnedQualities(self.arms)
        self.fitted = FittedScoreBook(store=store, clock=clock)
        self.recorder = Recorder(
            store=store,
            fitted=self.fitted,
            clock=clock,
            prompt_of=prompt_of,
            scored_per_s=pace.scored_per_s,
            listeners=listeners,
        )
        heard = (*listeners, *opinion_listeners)
        self.feedback = Feedback(store=store, recorder=self.recorder, arms=self.arms, clock=clock, listeners=heard)
        self.reports = QualityReports(store)

    def suppose(self, cheap_to_dear: Sequence[str]) -> None:
        """Says in which order of price the models come: a dear one is taken to be a little better until more is known."""
        self._prior = catalog_prior(cheap_to_dear)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Learns until the block ends. Raises StoreUnavailable where the database is out of reach at the start."""
        arms = Watched("arms", after=self.store.arms, take=self._take)
        async with (
            watching(arms, interval_s=self._pace.refresh_s),
            self.recorder.running(interval_s=self._pace.write_s),
            beside(self._refitting(), self._forgetting()),
        ):
            yield

    def _take(self, arm: Arm) -> None:
        self.arms.take(arm)
        self.fitted.take(arm)

    async def _refitting(self) -> None:
        while True:
            await _quietly(self.fitted.refit, "scores could not be fitted")
            await asyncio.sleep(self._pace.refresh_s)

    async def _forgetting(self) -> None:
        async def forget() -> None:
            before = self._clock.now() - timedelta(days=self._pace.keep_days)
            more = True
            while more:
                more = await self.store.forget(before=before, rows_max=_FORGET_ROWS) >= _FORGET_ROWS

        while True:
            await asyncio.sleep(_FORGET_EVERY_S)
            await _quietly(forget, "old outcomes could not be deleted")


async def _quietly(work: Callable[[], Any], problem: str) -> None:
    try:
        await work()
    except Exception as error:  # whatever it is, the next turn must come
        _log.warning(problem, error=type(error).__name__)
