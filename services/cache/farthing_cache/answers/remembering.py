"""Remembering answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from farthing_core.clock import Clock
from farthing_runtime.batching import Batcher

from farthing_cache.answers.looking_up import Comparing
from farthing_cache.canonical import Address
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.sealing.seals import QUESTION, Seals
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
        """Keeps an answer. Raises StoreUnavailable."""
        now = self._clock.now()
        expires_at, vector, question = now + timedelta(seconds=ttl_s), None, None
        if semantic and address.text is not None and len(address.text) <= self._comparing.characters_max:
            vector = await self._embedder.vector(address.text)
            question = await self._seals.seal(address.organization, address.key + QUESTION, address.text.encode())
        payload = await self._seals.seal(address.organization, address.key, entry.payload)
        entry = replace(entry, payload=payload, vector=vector, question=question, created_at=now, expires_at=expires_at)
        await self._puts.submit(entry)
        await self._hot.put(address.organization, address.key, Hot(entry.payload, expires_at))
        return Kept(True, "stored", expires_at)
