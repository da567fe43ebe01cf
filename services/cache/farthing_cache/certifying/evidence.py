"""What look-ups by meaning came to, written down behind them, and would-be hits compared with the answers that were bought instead."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import structlog
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_core.ids import NewId

from farthing_cache.answers.asking import Asked
from farthing_cache.certifying.agreement import UNSURE, WRONG, Said, compare
from farthing_cache.certifying.budgets import PPM, ErrorBudgets
from farthing_cache.certifying.categories import category_of
from farthing_cache.certifying.choosing import Chosen
from farthing_cache.certifying.hits import EvidenceStore, Hit, Place, Sums
from farthing_cache.certifying.thresholds import bucket_of
from farthing_cache.sealing.seals import Seals

_HITS_WAITING_MAX = 5_000
_MISSES_WAITING_MAX = 1_000
_MISS_BYTES_MAX = 64 * 1024
_MISS_WAITS_S = 600.0
_COMPARED_AT_ONCE = 100
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _WouldBe:
    """A candidate that was not served: its sealed payload, until the fresh answer comes."""

    place: Place
    entry_key: bytes
    payload: bytes
    until_s: float


class Evidence:
    """Notes hits and misses in memory; `flush` writes them down. What is too much is dropped and counted in `dropped`.

    `read` gives what an entry's opened payload says.
    """

    def __init__(
        self,
        store: EvidenceStore,
        budgets: ErrorBudgets,
        *,
        seals: Seals,
        read: Callable[[bytes], Said],
        clock: Clock,
        new_id: NewId,
        chance: Random,
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._seals = seals
        self._read = read
        self._clock = clock
        self._new_id = new_id
        self._chance = chance
        self._hits: deque[tuple[Hit, str, str]] = deque()
        self._sums: dict[Place, Sums] = {}
        self._would_be: OrderedDict[tuple[str, bytes], _WouldBe] = OrderedDict()
        self._to_compare: deque[tuple[_WouldBe, bytes]] = deque()
        self._flushing = asyncio.Lock()
        self.dropped = 0

    def served(self, asked: Asked, text: str, chosen: Chosen) -> tuple[str, bool]:
        """Notes a hit; gives its name, and whether it is to be checked. A dry run is not noted."""
        if asked.dry_run or chosen.certificate is None or chosen.candidate is None:
            return "", False
        place, chance = self._place(asked, chosen)
        check = asked.allow_check and self._chance.random() < chance
        hit = Hit(
            hit_id=self._new_id(),
            organization=place.organization,
            hit_at=self._clock.now(),
            scope=asked.scope,
            asked=b"",
            cached=b"",
            entry_key=chosen.candidate.neighbour.key,
            similarity=chosen.similarity or 0.0,
            certificate=chosen.certificate,
            place=place,
            chosen=check,
        )
        self._add(place, Sums(lookups=1, hits=1, chosen=int(check)))
        if len(self._hits) >= _HITS_WAITING_MAX:
            self.dropped += 1
            return "", False
        self._hits.append((hit, text, chosen.candidate.question))
        return hit.hit_id, check

    def missed(self, asked: Asked, chosen: Chosen) -> None:
        """Notes a miss; the likeliest candidate that no rule objects to waits for the answer that is bought instead."""
        if asked.dry_run:
            return
        place, _ = self._place(asked, chosen)
        best = chosen.best
        comparable = best is not None and place.bucket >= 0 and len(best.candidate.neighbour.payload) <= _MISS_BYTES_MAX
        self._add(place, Sums(lookups=1, candidates=int(comparable)))
        if best is None or not comparable:
            return
        neighbour, until_s = best.candidate.neighbour, self._clock.monotonic_s() + _MISS_WAITS_S
        key = asked.address.organization, asked.address.key
        self._would_be[key] = _WouldBe(place, neighbour.key, neighbour.payload, until_s)
        while len(self._would_be) > _MISSES_WAITING_MAX:
            self._would_be.popitem(last=False)

    def bought(self, organization: str, key: bytes, written: Callable[[], bytes]) -> None:
        """An answer was bought: where its look-up had a candidate, both are compared later, at no cost. `written` makes its payload."""
        would_be = self._would_be.pop((organization, key), None)
        if would_be is None or would_be.until_s < self._clock.monotonic_s():
            return
        if len(self._to_compare) >= _MISSES_WAITING_MAX:
            self.dropped += 1
            return
        self._to_compare.append((would_be, written()))

    async def flush(self) -> None:
        """Writes down what was noted; it stays here while the store is out of reach. Raises StoreUnavailable."""
        async with self._flushing:
            await self._compare()
            waiting, sums = list(self._hits), self._sums
            if not waiting and not sums:
                return
            hits = [hit for each in waiting if (hit := await self._sealed(*each)) is not None]
            self._sums = {}
            try:
                await self._store.add(hits, sums)
            except FarthingError:
                for place, added in sums.items():
                    self._add(place, added)
                raise
            for _ in waiting:
                self._hits.popleft()

    async def _compare(self) -> None:
        for _ in range(min(_COMPARED_AT_ONCE, len(self._to_compare))):
            would_be, payload = self._to_compare.popleft()
            place = would_be.place
            kept = await self._seals.open(place.organization, would_be.entry_key, would_be.payload)
            if kept is None:
                continue
            found = compare(self._read(kept), self._read(payload))
            if found.verdict != UNSURE:
                self._add(place, Sums(compared=1, wrong_misses=float(found.verdict == WRONG)))

    async def _sealed(self, hit: Hit, asked: str, cached: str) -> Hit | None:
        name = hit.hit_id.encode()
        try:
            first = await self._seals.seal(hit.organization, name + b"asked", asked.encode())
            second = await self._seals.seal(hit.organization, name + b"cached", cached.encode())
        except FarthingError as error:
            self.dropped += 1
            _log.warning("a hit is not written down: its questions cannot be sealed", error=type(error).__name__)
            return None
        return replace(hit, asked=first, cached=second)

    def _place(self, asked: Asked, chosen: Chosen) -> tuple[Place, float]:
        certificate, best = chosen.certificate, chosen.best
        verifier_id = certificate.verifier_id if certificate else ""
        organization = asked.address.organization
        chance = self._budgets.check_chance(organization, verifier_id=verifier_id) if asked.allow_check else 0.0
        place = Place(
            organization=organization,
            verifier_id=verifier_id,
            category=category_of(asked.address.text or "", asked.address.partition),
            period=self._budgets.period(self._clock.now()),
            bucket=bucket_of(best.probability) if best is not None and not best.objection else -1,
            chance_ppm=round(chance * PPM),
        )
        return place, chance

    def _add(self, place: Place, added: Sums) -> None:
        self._sums[place] = self._sums.get(place, Sums()).plus(added)
