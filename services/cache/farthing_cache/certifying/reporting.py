"""Reports on hits: what is believed of them, what becomes of their entries, and what that teaches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from farthing_core.clock import Clock

from farthing_cache.certifying.agreement import RIGHT, WRONG, Agreement, Said, compare
from farthing_cache.certifying.blocking import Blocks, text_hash
from farthing_cache.certifying.budgets import ErrorBudgets
from farthing_cache.certifying.evidence import Evidence
from farthing_cache.certifying.hits import (
    Block,
    EvidenceStore,
    Hit,
    HitUnknown,
    Report,
    RequestIdReused,
    Source,
    Sums,
    Verdict,
    contribution,
)
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.sealing.seals import Seals

_CHARACTERS_MAX = 2_000
"""So much of an answer is embedded."""
_VERDICTS = {RIGHT: Verdict.RIGHT, WRONG: Verdict.WRONG}


@dataclass(frozen=True, slots=True)
class Reported:
    """What somebody says of a hit, or of an entry (then `hit_id` is empty): a verdict, or a fresh answer to compare it with."""

    request_id: str
    organization: str
    scope: str
    fingerprint: bytes
    hit_id: str
    entry_key: bytes
    verdict: Verdict
    fresh: Said | None
    source: Source
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was made of it. `hit` is as it stood before; None for a report on an entry."""

    verdict: Verdict
    evicted: bool
    agreement: float | None
    hit: Hit | None


class Reports:
    """Takes reports in. `evict` forgets an entry in every replica, `payload_of` gives an entry's opened payload."""

    def __init__(
        self,
        store: EvidenceStore,
        evidence: Evidence,
        *,
        budgets: ErrorBudgets,
        blocks: Blocks,
        embedder: Embedder,
        seals: Seals,
        entries: tuple[Callable[[str, bytes], Awaitable[int]], Callable[[str, bytes], Awaitable[Said | None]]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._evidence = evidence
        self._budgets = budgets
        self._blocks = blocks
        self._embedder = embedder
        self._seals = seals
        self._evict, self._answer_of = entries
        self._clock = clock

    async def take(self, given: Reported) -> Outcome:
        """Takes a report in; a repeated one is answered as before. Raises HitUnknown, RequestIdReused, StoreUnavailable."""
        known = await self._store.reported(given.organization, given.request_id)
        if known is not None and known.fingerprint != given.fingerprint:
            raise RequestIdReused(request_id=given.request_id)
        hit = await self._hit(given) if given.hit_id else None
        if known is not None:
            return Outcome(known.verdict, known.evicted, known.agreement, hit)
        found = await self._compared(given, hit)
        verdict = given.verdict if found is None else _VERDICTS.get(found.verdict, Verdict.UNKNOWN)
        agreement = found.agreement if found is not None else None
        stands = hit is None or hit.source is None or given.source.overrules(hit.source)
        believed = verdict if stands and verdict else (hit.verdict if hit else verdict)
        evicted = await self._forget(given, hit) if stands and verdict is Verdict.WRONG else False
        change = _change(hit, verdict, given.source) if hit is not None and stands else Sums()
        report = Report(
            request_id=given.request_id,
            organization=given.organization,
            fingerprint=given.fingerprint,
            hit_id=given.hit_id,
            verdict=believed,
            source=given.source if stands and verdict else (hit.source if hit and hit.source else given.source),
            agreement=agreement,
            evicted=evicted,
            reason=given.reason,
            at=self._clock.now(),
        )
        await self._store.report(report, change=change, place=hit.place if hit else None)
        await self._budgets.watched.refresh()
        self._budgets.forget_reckoned(given.organization)
        return Outcome(believed, evicted, agreement, hit)

    async def _hit(self, given: Reported) -> Hit:
        """The hit, for those who were answered and for those above. What was served a moment ago may not be written down yet."""
        try:
            hit = await self._store.hit(given.organization, given.hit_id)
        except HitUnknown:
            await self._evidence.flush()
            hit = await self._store.hit(given.organization, given.hit_id)
        if hit.scope != given.scope and not hit.scope.startswith(given.scope + "/"):
            raise HitUnknown(hit_id=given.hit_id)
        return hit

    async def _compared(self, given: Reported, hit: Hit | None) -> Agreement | None:
        if given.fresh is None:
            return None
        served = await self._answer_of(given.organization, hit.entry_key if hit else given.entry_key)
        if served is None or (hit is not None and hit.adapted):
            # What was served is not at hand any more, or not word for word.
            return Agreement(0.0, "")
        found = compare(served, given.fresh)
        if found.verdict in _VERDICTS or not served.content or not given.fresh.content:
            return found
        texts = [each.content[:_CHARACTERS_MAX] for each in (served, given.fresh)]
        try:
            one, two = await self._embedder.readings(given.organization, texts)
        except EmbeddingUnavailable:
            return found
        return compare(served, given.fresh, similarity=float(np.dot(one.vector, two.vector)))

    async def _forget(self, given: Reported, hit: Hit | None) -> bool:
        """Evicts the entry, and keeps the question from it. Feedback may be about the answer as such: it only counts."""
        if given.source is Source.FEEDBACK:
            return False
        if hit is not None:
            await self._block(hit)
        return bool(await self._evict(given.organization, hit.entry_key if hit else given.entry_key))

    async def _block(self, hit: Hit) -> None:
        name = hit.hit_id.encode()
        asked = await self._seals.open(hit.organization, name + b"asked", hit.asked)
        cached = await self._seals.open(hit.organization, name + b"cached", hit.cached)
        if asked is None or cached is None:
            return
        try:
            reading = await self._embedder.reading(hit.organization, asked.decode(), urgent=False)
            vector = reading.vector.astype("<f2").tobytes()
        except EmbeddingUnavailable:
            vector = b""  # then the question is kept from the entry in these words only
        hashes = text_hash(asked.decode()), text_hash(cached.decode())
        await self._store.block(Block(0, hit.organization, *hashes, hit.entry_key, vector), at=self._clock.now())
        await self._blocks.watched.refresh()


def _change(hit: Hit, verdict: Verdict, source: Source) -> Sums:
    """By how much the sums change: what the hit adds now, without what it added before."""
    if not verdict:
        return Sums()
    return contribution(hit, verdict, source).plus(contribution(hit, hit.verdict, hit.source), times=-1)
