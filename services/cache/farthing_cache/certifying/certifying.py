"""The parts of certification put together: budgets, blocks, evidence and reports of this process, and what goes on beside look-ups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_core.ids import NewId
from farthing_runtime.refreshing import watching

from farthing_cache.answers.forgetting import Invalidations
from farthing_cache.certifying.agreement import Said
from farthing_cache.certifying.blocking import Blocks
from farthing_cache.certifying.budgets import BudgetTerms, ErrorBudgets
from farthing_cache.certifying.choosing import Chooser, RuleVerifier
from farthing_cache.certifying.evidence import Evidence
from farthing_cache.certifying.hits import PERIODS_KEPT, EvidenceStore
from farthing_cache.certifying.reporting import Reports
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.sealing.seals import Seals
from farthing_cache.store import EntryStore, Filter, Wanted

_KEPT_DAYS = 30
_SWEPT_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What certification stands on. `read` gives what an entry's opened payload says."""

    store: EvidenceStore
    entries: EntryStore
    invalidations: Invalidations
    embedder: Embedder
    seals: Seals
    read: Callable[[bytes], Said]


class Certification:
    """The certification of this process."""

    def __init__(
        self, parts: Parts, *, terms: BudgetTerms, similarity_min: float, clock: Clock, new_id: NewId, chance: Random
    ) -> None:
        self._parts = parts
        self._clock = clock
        self.verifier = RuleVerifier()
        self.store = parts.store
        self.budgets = ErrorBudgets(parts.store, terms=terms, clock=clock)
        self.blocks = Blocks(parts.store)
        self.chooser = Chooser(similarity_min=similarity_min, verifier=self.verifier, budgets=self.budgets, blocks=self.blocks)
        self.evidence = Evidence(
            parts.store, self.budgets, seals=parts.seals, read=parts.read, clock=clock, new_id=new_id, chance=chance
        )
        self.reports = Reports(
            parts.store,
            self.evidence,
            budgets=self.budgets,
            blocks=self.blocks,
            embedder=parts.embedder,
            seals=parts.seals,
            entries=(self._evict, self._answer_of),
            clock=clock,
        )

    @asynccontextmanager
    async def running(self, *, refresh_s: float) -> AsyncIterator[None]:
        """Knows what other replicas learn, until the block ends; what was noted is written down at the end."""
        async with watching(self.budgets.watched, self.blocks.watched, interval_s=refresh_s):
            try:
                yield
            finally:
                with suppress(FarthingError):
                    await self.evidence.flush()

    async def sweep(self, *, hits_max: int) -> None:
        """Forgets what is too old or too much. Raises StoreUnavailable."""
        now = self._clock.now()
        oldest = self.budgets.period(now) - PERIODS_KEPT
        before = now - timedelta(days=_KEPT_DAYS)
        await self._parts.store.sweep(before=before, period_min=oldest, hits_max=hits_max, count_max=_SWEPT_MAX)

    async def _evict(self, organization: str, key: bytes) -> int:
        chosen = Filter(scope=f"organizations/{organization}", organization=organization, keys=(key,))
        return await self._parts.invalidations.invalidate(chosen, every=False, dry_run=False)

    async def _answer_of(self, organization: str, key: bytes) -> Said | None:
        [seen] = await self._parts.entries.find([Wanted(organization, key, None)])
        payload = None if seen.hot is None else await self._parts.seals.open(organization, key, seen.hot.payload)
        return None if payload is None else self._parts.read(payload)
