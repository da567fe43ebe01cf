"""The cache itself: exact before semantic, hot before cold, and never an error where a miss will do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_runtime.batching import Batcher

from farthing_cache.canonical import Address
from farthing_cache.embedding.embedder import Embedder, Vector
from farthing_cache.store import Counts, EntryStore, Filter, Hot, HotEntries, Neighbour, Seen, Stored, Wanted
from farthing_cache.verifying.vetoes import normalised, verify


class FilterEmpty(FarthingError):
    """An invalidation that names nothing."""

    def __init__(self) -> None:
        super().__init__("name keys, tags, a model, or say all")


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up found: "exact", "semantic" or "miss", why, and the payload of the entry that is served. `vector` is that of the
    question on a miss, where it was computed: others may use it, too.
    """

    outcome: str
    reason: str
    payload: bytes | None = None
    entry_key: bytes = b""
    similarity: float | None = None
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class SemanticRule:
    """When a similar question's answer may be served.

    `characters_max` bounds the question: one vector cannot be trusted for a long text.
    """

    similarity_min: float
    characters_max: int
    candidates_max: int


class AnswerCache:
    """Looks up, remembers, forgets, counts."""

    def __init__(
        self,
        *,
        hot: HotEntries,
        entries: EntryStore,
        embedder: Embedder,
        finds: Batcher[Wanted, Seen],
        puts: Batcher[Stored, None],
        rule: SemanticRule,
        clock: Clock,
    ) -> None:
        self._hot = hot
        self._entries = entries
        self._embedder = embedder
        self._finds = finds
        self._puts = puts
        self._rule = rule
        self._clock = clock
        self._counts: dict[tuple[str, str], Counts] = {}

    async def look_up(self, address: Address, *, semantic: bool) -> Found:
        """What may be served for a request. A store that is out of reach makes a miss that says so."""
        hot = await self._hot.get(address.organization, address.key)
        if hot is not None:
            return Found("exact", "exact", hot.payload, address.key)
        text = address.text if semantic else None
        fits = text is not None and len(text) <= self._rule.characters_max
        try:
            seen = await self._finds.submit(Wanted(address.organization, address.key, address.partition if fits else None))
            if seen.hot is not None:
                await self._hot.put(address.organization, address.key, seen.hot)
                return Found("exact", "exact", seen.hot.payload, address.key)
            if not semantic:
                return Found("miss", "nothing stored")
            if text is None:
                return Found("miss", "the last turn is not plain text")
            if not fits:
                return Found("miss", "too long to compare by meaning")
            if not seen.comparable:
                return Found("miss", "nothing to compare with")
            return await self._nearest(address, text)
        except FarthingError:
            return Found("miss", "store unavailable")

    async def _nearest(self, address: Address, text: str) -> Found:
        vector = await self._embedder.vector(text)
        near = await self._entries.near(address.organization, address.partition, vector, count_max=self._rule.candidates_max)
        best, why = 0.0, "nothing near"
        for neighbour in near:
            similarity = similarity_of(vector, text, neighbour)
            best = max(best, similarity)
            if similarity < self._rule.similarity_min:
                break
            verdict = verify(text, neighbour.question)
            if verdict.same:
                return Found("semantic", verdict.reason, neighbour.payload, neighbour.key, similarity)
            why = verdict.reason
        return Found("miss", why, similarity=best if near else None, vector=vector)

    async def remember(self, address: Address, stored: Stored, *, ttl_s: int, semantic: bool) -> None:
        """Keeps an answer. Raises StoreUnavailable."""
        now = self._clock.now()
        expires_at, vector, question = now + timedelta(seconds=ttl_s), None, None
        if semantic and address.text is not None and len(address.text) <= self._rule.characters_max:
            vector, question = await self._embedder.vector(address.text), address.text
        entry = replace(stored, vector=vector, question=question, created_at=now, expires_at=expires_at)
        await self._puts.submit(entry)
        await self._hot.put(address.organization, address.key, Hot(entry.payload, expires_at))

    async def invalidate(self, chosen: Filter, *, every: bool, dry_run: bool) -> int:
        """Forgets entries; returns how many. Raises FilterEmpty, StoreUnavailable."""
        if not (chosen.keys or chosen.tags or chosen.model or every):
            raise FilterEmpty
        count = await self._entries.invalidate(chosen, dry_run=dry_run)
        if not dry_run:
            await self._hot.drop(chosen.organization)
        return count

    async def forget_hot(self, organization: str | None) -> None:
        """Another replica has invalidated: its organisation's hot entries go, or all where it is not known whose."""
        await (self._hot.clear() if organization is None else self._hot.drop(organization))

    def count(self, organization: str, scope: str, found: Found, *, avoided_usd_nanos: int) -> None:
        """Counts a look-up; kept here until it is flushed."""
        known = self._counts.get((organization, scope), Counts())
        self._counts[organization, scope] = Counts(
            known.hits_exact + (found.outcome == "exact"),
            known.hits_semantic + (found.outcome == "semantic"),
            known.misses + (found.outcome == "miss"),
            known.avoided_usd_nanos + avoided_usd_nanos,
        )

    async def flush_counts(self) -> None:
        """Writes the counts down; they stay here when the store is out of reach. Raises StoreUnavailable."""
        if not self._counts:
            return
        counts, self._counts = self._counts, {}
        try:
            await self._entries.add_counts(counts)
        except FarthingError:
            for where, lost in counts.items():
                known = self._counts.get(where, Counts())
                self._counts[where] = Counts(
                    known.hits_exact + lost.hits_exact,
                    known.hits_semantic + lost.hits_semantic,
                    known.misses + lost.misses,
                    known.avoided_usd_nanos + lost.avoided_usd_nanos,
                )
            raise

    async def stats(self, organization: str, scope: str) -> tuple[int, int, Counts]:
        """(entries, bytes, what look-ups came to) at and below a scope. Raises StoreUnavailable."""
        await self.flush_counts()
        entries, size_bytes = await self._entries.size(organization, scope)
        return entries, size_bytes, await self._entries.counts(organization, scope)


def similarity_of(vector: Any, text: str, neighbour: Neighbour) -> float:
    """The cosine similarity of a question and a neighbour, scored again on the kept vector; the same words are the same."""
    if normalised(text) == normalised(neighbour.question):
        return 1.0
    length = float(np.linalg.norm(neighbour.vector)) or 1.0
    return float(np.dot(vector, neighbour.vector)) / length
