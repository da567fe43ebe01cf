"""The parts of calibrating put together: what is in force, its judges, its checks, its RPCs, and what goes on beside requests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_runtime.refreshing import watching

from farthing_router.calibration.checks import CheckTerms, DriftChecks
from farthing_router.calibration.fits import FitLimits, Fits
from farthing_router.calibration.in_force import ActiveCalibrations
from farthing_router.calibration.kept import CALIBRATIONS_MAX
from farthing_router.edge import fit_worker, messages
from farthing_router.edge.calibrations import CalibrationRpcs
from farthing_router.pricing.price_book import PriceBook
from farthing_router.routing.judges import Judges
from farthing_router.settings import Settings
from farthing_router.store.calibrations import PostgresCalibrations
from farthing_router.store.drift import PostgresEvidence


class Calibrating:
    """Calibrations of this process."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, *, book: PriceBook, clock: Clock, new_id: NewId) -> None:
        self._refresh_s = settings.refresh_s
        entry = book.catalog.drift_checks
        terms = CheckTerms(entry.share, entry.per_hour_max, entry.on_drift == "escalate", settings.refresh_s)
        self.store = PostgresCalibrations(pool, calibrations_max=CALIBRATIONS_MAX)
        self.active = ActiveCalibrations(self.store)
        self.checks = DriftChecks(PostgresEvidence(pool), self.active, clock=clock, terms=terms, prompt_of=messages.prompt_text)
        self.judges = Judges(self.active, prompt_of=messages.prompt_text)
        limits = FitLimits(settings.calibration_examples_max, settings.calibration_bytes_max)
        fits = Fits((sys.executable, "-m", fit_worker.__name__), limits=limits)
        self.rpcs = CalibrationRpcs(self.store, self.active, self.checks, fits=fits, book=book, clock=clock, new_id=new_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Knows what others change, and writes down what is seen, until the block ends."""
        async with watching(self.active.watched, self.checks.watched, interval_s=self._refresh_s), self.checks.running():
            yield
