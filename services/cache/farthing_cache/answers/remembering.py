"""Remembering answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from farthing_core.clock import Clock
from farthing_runtime.batching import Batcher

from farthing_cache.answers.looking_up import Comparing
from farthing_cache.canonical import Address
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.sealing.seals import QUESTION, READING, Seals
from farthing_cache.store import Hot, HotEntries, Stored


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an answer: until when it is kept, or that it is not, and why."""

    stored: bool
    reason: str
    expires_at: datetime


class Memory:
    """Keeps answers."""

    def __init__(
        self,
        *,
        hot: HotEntries,
        puts: Batcher[Stored, None],
        embedder: Embedder,
        seals: Seals,
        comparing: Comparing,
        clock: Clock,
    ) -> None:
        self._hot = hot
        self._puts = puts
        self._embedder = embedder
        self._seals = seals
        self._comparing = comparing
        self._clock = clock

    async def remember(self, address: Address, entry: Stored, *, ttl_s: int, semantic: bool) -> Kept:
        """Keeps an answer. Raises SealUnavailable, StoreUnavailable; nothing is written then."""
        now = self._clock.now()
        expires_at = now + timedelta(seconds=ttl_s)
        reason = "stored"
        if semantic and address.text is not None and len(address.text) <= self._comparing.characters_max:
            try:
                entry = await self._comparable(address, entry, address.text)
            except EmbeddingUnavailable as error:
                reason = f"found exactly only: {error.reason}"
        payload = await self._seals.seal(address.organization, address.key, entry.payload)
        entry = replace(entry, payload=payload, created_at=now, expires_at=expires_at)
        await self._puts.submit(entry)
        await self._hot.put(address.organization, address.key, Hot(entry.payload, expires_at))
        return Kept(True, reason, expires_at)

    async def _comparable(self, address: Address, entry: Stored, text: str) -> Stored:
        """The entry with what it takes to find it by meaning."""
        reading = await self._embedder.reading(address.organization, text, urgent=False)
        organization, key = address.organization, address.key
        return replace(
            entry,
            vector=reading.vector,
            embedder=self._embedder.fingerprint,
            question=await self._seals.seal(organization, key + QUESTION, text.encode()),
            reading=await self._seals.seal(organization, key + READING, reading.to_bytes()),
        )
