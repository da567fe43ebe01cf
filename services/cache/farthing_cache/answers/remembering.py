"""Remembering answers: those that are fit for it and worth it, for as long as they are likely to be true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from farthing_core.clock import Clock
from farthing_runtime.batching import Batcher

from farthing_cache.answers.lifetimes import Lifetime, lifetime
from farthing_cache.answers.looking_up import Comparing
from farthing_cache.answers.soundness import Answer, Soundness, soundness
from farthing_cache.answers.valuing import Valuation, Weighed
from farthing_cache.answers.worth import Candidate
from farthing_cache.canonical import Address
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.sealing.seals import QUESTION, READING, Seals
from farthing_cache.store import Hot, HotEntries, Stored


@dataclass(frozen=True, slots=True)
class Times:
    """When an entry was answered, when it expires, and until when it may be served stale."""

    created_at: datetime
    expires_at: datetime
    stale_at: datetime


@dataclass(frozen=True, slots=True)
class Offered:
    """An answer that may be kept. `turns` are what the user said, the last one last.

    `ttl_s` 0 leaves it to the cache how long, at most `ttl_s_max` (0: the service's own). `answered_at` is None for just now.
    `written` makes the payload, once its times are known.
    """

    address: Address
    answer: Answer
    turns: tuple[str, ...]
    model: str
    cost_usd_nanos: int
    written: Callable[[Times], bytes]
    output_tokens_max: int | None = None
    tags: tuple[str, ...] = ()
    ttl_s: int = 0
    ttl_s_max: int = 0
    stale_s: int = 0
    semantic: bool = False
    answered_at: datetime | None = None


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
        valuation: Valuation,
        clock: Clock,
        ttl_s_default: int,
    ) -> None:
        self._hot = hot
        self._puts = puts
        self._embedder = embedder
        self._seals = seals
        self._comparing = comparing
        self._valuation = valuation
        self._clock = clock
        self._ttl_s_default = ttl_s_default

    async def remember(self, offered: Offered) -> Kept:
        """Keeps an answer, if it is to be kept. Raises SealUnavailable, StoreUnavailable; nothing is written then."""
        now, address = self._clock.now(), offered.address
        sound = soundness(offered.answer, output_tokens_max=offered.output_tokens_max)
        if not sound.keep:
            return Kept(False, sound.reason, now)
        lasting = self._lifetime(offered, now)
        times = _times(offered, now, lasting)
        if times.stale_at <= now:
            return Kept(False, "expired", times.expires_at)
        written = offered.written(times)
        weighed = self._valuation.weigh(address.organization, _candidate(offered, written, lasting))
        if weighed.objection:
            return Kept(False, weighed.objection, now)
        payload = await self._seals.seal(address.organization, address.key, written)
        entry, reason = await self._findable(_entry(offered, times, payload, weighed), offered, sound)
        await self._puts.submit(entry)
        await self._hot.put(address.organization, address.key, Hot(payload, times.expires_at))
        return Kept(True, reason or lasting.reason, times.expires_at)

    def written(self, offered: Offered) -> bytes:
        """The payload of an answer, whether or not it is kept."""
        now = self._clock.now()
        return offered.written(_times(offered, now, self._lifetime(offered, now)))

    def _lifetime(self, offered: Offered, now: datetime) -> Lifetime:
        limit_s = offered.ttl_s or offered.ttl_s_max or self._ttl_s_default
        found = lifetime(offered.turns, now=now, limit_s=limit_s)
        return Lifetime(offered.ttl_s, found.kind, "as asked") if offered.ttl_s else found

    async def _findable(self, entry: Stored, offered: Offered, sound: Soundness) -> tuple[Stored, str]:
        """The entry as it may be found, and why only exactly, where that is so though more was asked for."""
        text = offered.address.text
        fits = text is not None and len(text) <= self._comparing.characters_max
        if not (offered.semantic and sound.by_meaning and fits):
            return entry, sound.reason
        try:
            return await self._comparable(entry, text or ""), ""
        except EmbeddingUnavailable as error:
            return entry, f"found exactly only: {error.reason}"

    async def _comparable(self, entry: Stored, text: str) -> Stored:
        """The entry with what it takes to find it by meaning."""
        reading = await self._embedder.reading(entry.organization, text, urgent=False)
        return replace(
            entry,
            vector=reading.vector,
            embedder=self._embedder.fingerprint,
            question=await self._seals.seal(entry.organization, entry.key + QUESTION, text.encode()),
            reading=await self._seals.seal(entry.organization, entry.key + READING, reading.to_bytes()),
        )


def _times(offered: Offered, now: datetime, lasting: Lifetime) -> Times:
    created_at = offered.answered_at or now
    expires_at = created_at + timedelta(seconds=lasting.ttl_s)
    return Times(created_at, expires_at, expires_at + timedelta(seconds=offered.stale_s))


def _candidate(offered: Offered, written: bytes, lasting: Lifetime) -> Candidate:
    address = offered.address
    return Candidate(address.key, address.partition, address.text, offered.cost_usd_nanos, len(written), lasting.ttl_s)


def _entry(offered: Offered, times: Times, payload: bytes, weighed: Weighed) -> Stored:
    address = offered.address
    return Stored(
        organization=address.organization,
        key=address.key,
        partition=address.partition,
        scope=address.scope,
        model=offered.model,
        tags=offered.tags,
        payload=payload,
        question=None,
        vector=None,
        created_at=times.created_at,
        expires_at=times.expires_at,
        stale_at=times.stale_at,
        cost_usd_nanos=offered.cost_usd_nanos,
        density=weighed.density,
        rank=weighed.rank,
    )
