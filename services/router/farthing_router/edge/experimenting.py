"""Wiring of experiments: who takes part, what is observed, and the RPCs over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from farthing_core.clock import Clock
from farthing_core.ids import NewId

from farthing_router.calibration.kept import CalibrationStore
from farthing_router.catalog import Catalog
from farthing_router.edge.experiments import ExperimentRpcs
from farthing_router.edge.messages import prompt_text
from farthing_router.experiments.experiment_book import ExperimentBook
from farthing_router.experiments.scoring import AutomaticScorer
from farthing_router.experiments.trials import Trials
from farthing_router.learning.recording import QualityListener
from farthing_router.learning.scoring import FittedScores
from farthing_router.routing.ports import Observer
from farthing_router.store.experiments import PostgresExperiments


class Experimenting:
    """Experiments: `trials` are the assignments and shadows that planning asks for."""

    def __init__(
        self, pool: asyncpg.Pool, *, catalog: Catalog, calibrations: CalibrationStore, clock: Clock, new_id: NewId
    ) -> None:
        store = PostgresExperiments(pool)
        self.trials = Trials(store, clock=clock, replica_id=new_id(), decided=store)
        self._book = ExperimentBook(
            store, catalog=catalog, watched=self.trials.watched, clock=clock, new_id=new_id, calibrations=calibrations
        )

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of every route's end."""
        return (self.trials.counts,)

    @property
    def listeners(self) -> tuple[QualityListener, ...]:
        """Who hears what is thought of answers."""
        return (self.trials.heard,)

    def rpcs(self) -> ExperimentRpcs:
        """The group of RPCs."""
        return ExperimentRpcs(self._book)

    @asynccontextmanager
    async def running(self, *, fitted: FittedScores, interval_s: float) -> AsyncIterator[None]:
        """Runs experiments until the block ends; pairs of answers are scored with what was fitted."""
        self.trials.scorer = AutomaticScorer(fitted=fitted, prompt_of=prompt_text)
        async with self.trials.running(interval_s=interval_s):
            yield
