"""Keeping what is worth most: admission, uses that are written behind, and eviction where an organisation's room is full."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from farthing_core.clock import Clock
from farthing_core.errors import FarthingError

from farthing_cache.answers.asking import Asked, Found
from farthing_cache.answers.rooms import Room, Rooms
from farthing_cache.answers.worth import HALF_LIFE_S, Candidate, Worth, log_density, rank

_USES_MAX = 20_000
_BATCH = 1_000
_EVICTED_MAX = 500
_BATCHES_MAX = 40


@dataclass(frozen=True, slots=True)
class Use:
    """Uses of an entry. `gain` is the rank that they would give to an entry of density 0 by themselves."""

    organization: str
    key: bytes
    hits: int
    saved_usd_nanos: int
    hit_at: datetime
    gain: float


@dataclass(frozen=True, slots=True)
class Evicted:
    """What had to go: how many entries, and the highest rank among them."""

    entries: int
    rank_max: float


@dataclass(frozen=True, slots=True)
class RoomFigures:
    """What an organisation's entries take, and how many were evicted or not let in so far."""

    room: Room
    evicted: int
    not_admitted: int


class Values(Protocol):
    """How entries are used and what they take. Every method may raise StoreUnavailable."""

    async def add_uses(self, uses: Sequence[Use]) -> int:
        """Adds to the uses of entries, and raises their ranks; returns how many entries there still are."""
        ...

    async def changed_rooms(self) -> dict[str, Room]:
        """Adds up what has changed; the rooms of all organisations where that was lately."""
        ...

    async def evict(self, organization: str, *, down_to: Room, count_max: int) -> Evicted | None:
        """Forgets the lowest ranked entries until no more than `down_to` is left, at most `count_max`.

        None where another replica is at it.
        """
        ...

    async def add_not_admitted(self, counts: dict[str, int]) -> None:
        """Adds to the answers that were not worth keeping, by organisation."""
        ...

    async def figures(self, organization: str) -> RoomFigures:
        """How an organisation's room stands."""
        ...


@dataclass(frozen=True, slots=True)
class Weighed:
    """The rank of an answer, and why it is not let in; empty where it is."""

    rank: float
    density: float
    objection: str


class Valuation:
    """What entries are worth, as this process learns of it. `uses_dropped` counts hits that there was no room to remember."""

    def __init__(self, values: Values, *, rooms: Rooms, clock: Clock) -> None:
        self._values = values
        self._rooms = rooms
        self._clock = clock
        self._worth = Worth()
        self._uses: dict[tuple[str, bytes], tuple[int, int]] = {}
        self._not_admitted: dict[str, int] = {}
        self.uses_dropped = 0

    @property
    def rooms(self) -> Rooms:
        """The bounds of organisations, and how full they are."""
        return self._rooms

    def note(self, asked: Asked, found: Found, *, saved_usd_nanos: int) -> None:
        """Takes in what a look-up came to."""
        address, hit = asked.address, found.payload is not None
        compared = address.text if found.vector is not None else None
        self._worth.note(address.organization, key=address.key, partition=address.partition, hit=hit, text=compared)
        if not hit or found.joined:
            return
        place = address.organization, found.entry_key
        hits, saved = self._uses.get(place, (0, 0))
        if hits or len(self._uses) < _USES_MAX:
            self._uses[place] = hits + 1, saved + saved_usd_nanos
        else:
            self.uses_dropped += 1

    def weigh(self, organization: str, candidate: Candidate) -> Weighed:
        """What an answer is worth, and whether there is room for it."""
        given = rank(
            uses=self._worth.uses(organization, candidate),
            cost_usd_nanos=candidate.cost_usd_nanos,
            payload_bytes=candidate.payload_bytes,
            at_s=self._clock.now().timestamp(),
        )
        objection = self._rooms.objection(organization, rank=given, payload_bytes=candidate.payload_bytes)
        if objection:
            self._not_admitted[organization] = self._not_admitted.get(organization, 0) + 1
        return Weighed(given, log_density(candidate.cost_usd_nanos, candidate.payload_bytes), objection)

    async def flush(self) -> None:
        """Writes uses down, in batches; what does not get there is tried again, as far as there is room. Raises StoreUnavailable."""
        now = self._clock.now()
        uses, self._uses = self._uses, {}
        waiting = [
            Use(*place, hits, saved, now, math.log2(hits) + now.timestamp() / HALF_LIFE_S)
            for place, (hits, saved) in uses.items()
        ]
        try:
            while waiting:
                await self._values.add_uses(sorted(waiting[:_BATCH], key=lambda use: (use.organization, use.key)))
                del waiting[:_BATCH]
        except FarthingError:
            for use in waiting:
                self._uses.setdefault((use.organization, use.key), (use.hits, use.saved_usd_nanos))
            raise
        counts, self._not_admitted = self._not_admitted, {}
        if counts:
            await self._values.add_not_admitted(counts)

    async def make_room(self) -> int:
        """Evicts in organisations that are too full, in batches; returns how many entries went. Raises StoreUnavailable."""
        evicted = 0
        for organization, room in (await self._values.changed_rooms()).items():
            if self._rooms.note(organization, room):
                evicted += await self._evict(organization)
        return evicted

    async def figures(self, organization: str) -> RoomFigures:
        """How an organisation's room stands. Raises StoreUnavailable."""
        return await self._values.figures(organization)

    async def _evict(self, organization: str) -> int:
        evicted = 0
        for _ in range(_BATCHES_MAX):
            batch = await self._values.evict(organization, down_to=self._rooms.down_to, count_max=_EVICTED_MAX)
            if batch is None or not batch.entries:
                break
            evicted += batch.entries
            self._rooms.note_evicted(organization, rank_max=batch.rank_max)
            if batch.entries < _EVICTED_MAX:
                break
        return evicted
