"""Wiring of what looks back: decision log and meter, their stores, and the RPCs over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from farthing_core.clock import Clock
from farthing_core.ids import NewId

from farthing_router.edge.analysis import AnalysisRpcs
from farthing_router.edge.decisions import DecisionRpcs
from farthing_router.edge.performance import PerformanceRpcs
from farthing_router.learning.recording import QualityListener
from farthing_router.performance.cost_quality import CostQuality, InForceCurves
from farthing_router.performance.decision_log import DecisionLog, DecisionLogTerms
from farthing_router.performance.dependence import Days, Diversification
from farthing_router.performance.meter import Meter, MeterTerms
from farthing_router.performance.quality import RatedAnswers
from farthing_router.performance.reports import Reports
from farthing_router.pricing.price_book import PriceBook
from farthing_router.routing.ports import Observer, Speeds
from farthing_router.settings import Settings
from farthing_router.store.decisions import PostgresDecisions
from farthing_router.store.performance import PostgresPerformance


class Recording:
    """What is observed of routes, and what answers questions about it."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, *, clock: Clock, new_id: NewId) -> None:
        self._decided = decided = PostgresDecisions(pool)
        terms = DecisionLogTerms(flush_s=settings.decisions_flush_s, kept_days=settings.decisions_kept_days)
        self._log = DecisionLog(decided, clock=clock, new_id=new_id, terms=terms)
        self._counted = counted = PostgresPerformance(pool)
        kept = MeterTerms(
            flush_s=settings.performance_flush_s,
            refresh_s=settings.performance_refresh_s,
            hours_kept_days=settings.performance_hours_kept_days,
            days_kept=settings.performance_days_kept,
        )
        self._meter = Meter(counted, clock=clock, new_id=new_id, terms=kept)
        self._clock = clock
        self._reports = Reports(
            counted, RatedAnswers(decided), clock=clock, hours_kept_days=settings.performance_hours_kept_days
        )

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of every route's end."""
        return self._log, self._meter

    @property
    def listeners(self) -> tuple[QualityListener, ...]:
        """Who hears what is thought of answers."""
        return (self._log.rated,)

    @property
    def speeds(self) -> Speeds:
        """How fast and how reliable models are now."""
        return self._meter.speeds

    def rpcs(self) -> tuple[Any, ...]:
        """Groups of RPCs."""
        return (
            DecisionRpcs(store=self._decided, log=self._log, clock=self._clock),
            PerformanceRpcs(reports=self._reports, meter=self._meter, clock=self._clock),
        )

    def analyses(self, *, days: Days, curves: InForceCurves, book: PriceBook) -> AnalysisRpcs:
        """RPCs that bring this together with what is known of answers (`days`), of calibrations in force and of prices."""
        counted, decided = self._counted, self._decided
        return AnalysisRpcs(
            cost_quality=CostQuality(counted, decided, days=days, curves=curves),
            diversification=Diversification(counted, decided, days=days, book=book),
            clock=self._clock,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes down what is observed, until the block ends."""
        async with self._log.running(), self._meter.running():
            yield
