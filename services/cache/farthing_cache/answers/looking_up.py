"""Looking up: exact before semantic, hot before cold, and never an error where a miss will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from farthing_core.errors import FarthingError
from farthing_runtime.batching import Batcher

from farthing_cache.answers.asking import Asked, Found
from farthing_cache.certifying.choosing import Candidate, Chooser
from farthing_cache.certifying.evidence import Evidence
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.sealing.seals import QUESTION, READING, Seals
from farthing_cache.store import EntryStore, Hot, HotEntries, Neighbour, Seen, Wanted


@dataclass(frozen=True, slots=True)
class Comparing:
    """What is compared by meaning. `characters_max` bounds the question: one vector cannot be trusted for a long text."""

    characters_max: int
    candidates_max: int


class LookUps:
    """Finds answers."""

    def __init__(
        self,
        *,
        hot: HotEntries,
        entries: EntryStore,
        finds: Batcher[Wanted, Seen],
        embedder: Embedder,
        chooser: Chooser,
        evidence: Evidence,
        seals: Seals,
        comparing: Comparing,
    ) -> None:
        self._hot = hot
        self._entries = entries
        self._finds = finds
        self._embedder = embedder
        self._chooser = chooser
        self._evidence = evidence
        self._seals = seals
        self._comparing = comparing

    async def look_up(self, asked: Asked) -> Found:
        """What may be served for a request. A store that is out of reach makes a miss that says so."""
        return await self.at_hand(asked) or await self.further(asked)

    async def at_hand(self, asked: Asked) -> Found | None:
        """What is served without asking the store."""
        hot = await self._hot.get(asked.address.organization, asked.address.key)
        return await self._exact(asked, hot) if hot is not None else None

    async def further(self, asked: Asked) -> Found:
        """What may be served where nothing is at hand. A store that is out of reach makes a miss that says so."""
        address = asked.address
        unreadable = False
        text = address.text if asked.semantic else None
        fits = text is not None and len(text) <= self._comparing.characters_max
        try:
            seen = await self._finds.submit(Wanted(address.organization, address.key, address.partition if fits else None))
            if seen.hot is not None and (found := await self._exact(asked, seen.hot)):
                await self._hot.put(address.organization, address.key, seen.hot)
                return found
            if seen.hot is not None:
                unreadable = True
                await self._drop(address.organization, address.key, seen.hot.payload, dry_run=asked.dry_run)
            if not asked.semantic:
                return Found("miss", "cannot be read" if unreadable else "nothing stored")
            if text is None:
                return Found("miss", "the last turn is not plain text")
            if not fits:
                return Found("miss", "too long to compare by meaning")
            if not seen.comparable:
                return Found("miss", "cannot be read" if unreadable else "nothing to compare with")
            found = await self._nearest(asked, text)
            return replace(found, reason="cannot be read") if unreadable and found.outcome == "miss" else found
        except EmbeddingUnavailable as error:
            return Found("miss", error.reason)
        except FarthingError:
            return Found("miss", "store unavailable")

    async def _exact(self, asked: Asked, hot: Hot) -> Found | None:
        """The entry of the same request; None where it cannot be read."""
        payload = await self._seals.open(asked.address.organization, asked.address.key, hot.payload)
        return None if payload is None else Found("exact", "exact", payload, asked.address.key)

    async def _drop(self, organization: str, key: bytes, sealed: bytes, *, dry_run: bool) -> None:
        """An entry that nobody can read any more only stands in the way. One whose key is out of reach just now stays."""
        if not dry_run and self._seals.gone(organization, sealed):
            await self._entries.drop(organization, key, sealed)

    async def _nearest(self, asked: Asked, text: str) -> Found:
        address = asked.address
        reading = await self._embedder.reading(address.organization, text)
        shown = reading.vector if self._embedder.built_in else None
        near = await self._entries.near(
            address.organization,
            address.partition,
            reading.vector,
            embedder=self._embedder.fingerprint,
            count_max=self._comparing.candidates_max,
        )
        chosen = self._chooser.choose(
            asked, text, reading, await self._readable(address.organization, near, dry_run=asked.dry_run)
        )
        if chosen.candidate is None:
            self._evidence.missed(asked, chosen)
            return Found("miss", chosen.reason, similarity=chosen.similarity, vector=shown, certificate=chosen.certificate)
        served = chosen.candidate.neighbour
        payload = await self._seals.open(address.organization, served.key, served.payload)
        if payload is None:
            return Found("miss", "cannot be read", similarity=chosen.similarity, vector=shown)
        hit_id, check = self._evidence.served(asked, text, chosen)
        return Found(
            "semantic",
            chosen.reason,
            payload,
            served.key,
            similarity=chosen.similarity,
            certificate=chosen.certificate,
            hit_id=hit_id,
            check=check,
        )

    async def _readable(self, organization: str, near: Sequence[Neighbour], *, dry_run: bool) -> list[Candidate]:
        """The neighbours whose questions can be read."""
        candidates = []
        for each in near:
            question = await self._seals.open(organization, each.key + QUESTION, each.question)
            if question is None:
                if self._seals.gone(organization, each.question):
                    await self._drop(organization, each.key, each.payload, dry_run=dry_run)
                continue
            reading = None if each.reading is None else await self._seals.open(organization, each.key + READING, each.reading)
            candidates.append(Candidate(each, question.decode(), reading))
        return candidates
