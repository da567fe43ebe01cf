"""What the cache needs of its stores. The promises are tested in tests/contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from farthing_core.errors import FarthingError


class StoreUnavailable(FarthingError):
    """A store is out of reach."""

    unreachable = True

    def __init__(self) -> None:
        super().__init__("the cache's store is out of reach")


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as it is kept. `payload`, `question` and `reading` are sealed, opaque to the store; `question` is None where the entry
    is only found exactly. `reading` is what the verifier needs of the question beside its vector; `embedder` names the model of the
    vector. From `expires_at` to `stale_at` it may be served stale. `rank` and `density` are of `answers/worth.py`.
    """

    organization: str
    key: bytes
    partition: bytes
    scope: str
    model: str
    tags: tuple[str, ...]
    payload: bytes
    question: bytes | None
    vector: Any
    created_at: datetime
    expires_at: datetime
    reading: bytes | None = None
    embedder: str = ""
    stale_at: datetime | None = None
    cost_usd_nanos: int = 0
    density: float = 0.0
    rank: float = 0.0


@dataclass(frozen=True, slots=True)
class Hot:
    """What is kept close at hand."""

    payload: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """An exact look-up; `partition` is given where it also matters whether the partition holds anything to compare."""

    organization: str
    key: bytes
    partition: bytes | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look-up saw: the entry, and whether its partition holds entries that can be compared by meaning."""

    hot: Hot | None
    comparable: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry near a question; `question`, `reading` and `payload` are sealed."""

    key: bytes
    question: bytes
    vector: Any
    payload: bytes
    reading: bytes | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries: those at or below `scope` that match everything set."""

    scope: str
    organization: str
    keys: tuple[bytes, ...] = ()
    tags: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """What look-ups came to."""

    hits_exact: int = 0
    hits_semantic: int = 0
    misses: int = 0
    avoided_usd_nanos: int = 0


class HotEntries(Protocol):
    """Entries close at hand. May forget anything at any time; raises nothing: out of reach is empty."""

    async def get(self, organization: str, key: bytes) -> Hot | None:
        """An entry that has not expired."""
        ...

    async def put(self, organization: str, key: bytes, hot: Hot) -> None:
        """Keeps an entry until it expires, or for as long as there is room."""
        ...

    async def drop(self, organization: str) -> None:
        """Forgets an organisation's entries."""
        ...

    async def clear(self) -> None:
        """Forgets everything that this process keeps by itself."""
        ...


class EntryStore(Protocol):
    """Keeps entries for good. Every method may raise StoreUnavailable."""

    async def find(self, wanted: Sequence[Wanted]) -> list[Seen]:
        """Exact look-ups, many at once."""
        ...

    async def near(self, organization: str, partition: bytes, vector: Any, *, embedder: str, count_max: int) -> list[Neighbour]:
        """The nearest entries of a partition whose vectors are of the same model, nearest first."""
        ...

    async def put(self, entries: Sequence[Stored]) -> None:
        """Keeps entries; one that was there is replaced."""
        ...

    async def invalidate(self, chosen: Filter, *, dry_run: bool) -> int:
        """Forgets entries, and tells every replica; returns how many."""
        ...

    async def size(self, organization: str, scope: str) -> tuple[int, int]:
        """(entries, bytes of payload) at and below a scope."""
        ...

    async def add_counts(self, counts: dict[tuple[str, str], Counts]) -> None:
        """Adds to what look-ups came to, by (organisation, scope)."""
        ...

    async def counts(self, organization: str, scope: str) -> Counts:
        """What look-ups at and below a scope came to."""
        ...

    async def sweep(self, *, count_max: int) -> int:
        """Forgets at most so many entries that have expired; returns how many."""
        ...

    async def drop(self, organization: str, key: bytes, payload: bytes) -> None:
        """Forgets an entry, unless it has another payload by now."""
        ...

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """Organisations that have entries, by name."""
        ...

    async def drop_unreadable(self, organization: str, headers: Sequence[bytes], *, count_max: int) -> int:
        """Forgets at most so many entries whose payload begins with none of `headers` (of one length); returns how many."""
        ...
