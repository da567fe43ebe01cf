"""Hits by meaning and what is known of them, and what the certification needs of its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from farthing_core.errors import FarthingError

from farthing_cache.answers.asking import Certificate

PERIOD_S = 3 * 86_400
"""Evidence is summed by periods, so that what is old can be forgotten and what has changed can be told from what was before."""
PERIODS_KEPT = 10


class HitUnknown(FarthingError):
    """No such hit, at least not for whoever asks."""

    def __init__(self, *, hit_id: str) -> None:
        super().__init__(f"no hit is called {hit_id}", hit_id=hit_id)


class RequestIdReused(FarthingError):
    """A request_id under which something else was reported."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} belongs to another request", request_id=request_id)


class Verdict(IntEnum):
    """What is known of a hit."""

    UNKNOWN = 0
    RIGHT = 1
    WRONG = 2


class Source(IntEnum):
    """Who says so; those who know better overrule the others: see `overrules`."""

    USER = 1
    CHECK = 2
    FEEDBACK = 3

    def overrules(self, other: Source) -> bool:
        """Whether its word stands against another's."""
        return self <= other


@dataclass(frozen=True, slots=True)
class Place:
    """Where evidence is summed. `chance_ppm` is the chance of a check in force then, 0 where nobody would buy one."""

    organization: str
    verifier_id: str
    category: str
    period: int
    bucket: int
    chance_ppm: int


@dataclass(frozen=True, slots=True)
class Sums:
    """Look-ups at a place: served ones, those chosen for a check and decided by it, misses with a candidate and those that were compared,
    and wrong ones by how they came to be known.
    """

    lookups: int = 0
    hits: int = 0
    chosen: int = 0
    judged: int = 0
    candidates: int = 0
    compared: int = 0
    wrong_hits: float = 0.0
    wrong_misses: float = 0.0
    wrong_reports: float = 0.0

    def plus(self, other: Sums, *, times: int = 1) -> Sums:
        """Both together."""
        return Sums(*(getattr(self, name) + times * getattr(other, name) for name in SUMS))


SUMS = tuple(Sums.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class SumRow:
    """A place's sums as they stand. `number` grows with each change."""

    number: int
    place: Place
    sums: Sums


@dataclass(frozen=True, slots=True)
class Hit:
    """A hit by meaning; `asked` and `cached` are sealed under `hit_id`."""

    hit_id: str
    organization: str
    hit_at: datetime
    scope: str
    asked: bytes
    cached: bytes
    entry_key: bytes
    similarity: float
    certificate: Certificate
    place: Place
    chosen: bool
    adapted: bool = False
    verdict: Verdict = Verdict.UNKNOWN
    source: Source | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A question for which an entry's answer was wrong. Hashes are of normalised texts; `vector` is that of the question, as float16."""

    number: int
    organization: str
    asked_hash: bytes
    cached_hash: bytes
    entry_key: bytes
    vector: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it is written down. `fingerprint` is of its whole request."""

    request_id: str
    organization: str
    fingerprint: bytes
    hit_id: str
    verdict: Verdict
    source: Source
    agreement: float | None
    evicted: bool
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HitsWanted:
    """Which hits are listed: at or below a scope, of one verdict where it is given, before a place in the list."""

    organization: str
    scope: str
    verdict: Verdict | None = None
    before: tuple[datetime, str] | None = None


class EvidenceStore(Protocol):
    """Keeps what is known of hits. Every method may raise StoreUnavailable."""

    async def add(self, hits: Sequence[Hit], sums: Mapping[Place, Sums]) -> None:
        """Keeps new hits, and adds to sums."""
        ...

    async def hit(self, organization: str, hit_id: str) -> Hit:
        """One. Raises HitUnknown."""
        ...

    async def hits(self, wanted: HitsWanted, *, rows_max: int) -> list[Hit]:
        """Hits, newest first."""
        ...

    async def reported(self, organization: str, request_id: str) -> Report | None:
        """What was reported under a request_id."""
        ...

    async def report(self, report: Report, *, change: Sums, place: Place | None) -> None:
        """Writes a report down once: what the hit is worth now, and by how much that changes the sums of its place.

        Raises RequestIdReused.
        """
        ...

    async def block(self, block: Block, *, at: datetime) -> None:
        """Keeps a question from an entry; a second time is no failure."""
        ...

    async def sums_after(self, number: int, *, rows_max: int) -> Sequence[SumRow]:
        """Sums with larger numbers, in order."""
        ...

    async def blocks_after(self, number: int, *, rows_max: int) -> Sequence[Block]:
        """Blocks with larger numbers, in order."""
        ...

    async def sweep(self, *, before: datetime, period_min: int, hits_max: int, count_max: int) -> int:
        """Forgets hits, reports and sums that are older, and an organisation's hits beyond so many; returns how many rows."""
        ...


def contribution(hit: Hit, verdict: Verdict, source: Source | None) -> Sums:
    """What a verdict on a hit adds to the sums of its place.

    A hit that was chosen by chance stands for others that were not, whoever judged it. Any other one stands for itself. Feedback may be
    about the answer and not about the hit, so it counts a quarter. Where nothing is ever checked, reports are all there is.
    """
    wrong = float(verdict is Verdict.WRONG)
    if source is None or verdict is Verdict.UNKNOWN:
        return Sums()
    if source is Source.FEEDBACK:
        return Sums(wrong_reports=wrong / 4)
    return Sums(judged=1, wrong_hits=wrong) if hit.chosen else Sums(wrong_reports=wrong)
