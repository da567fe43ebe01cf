"""What is asked of the cache, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_cache.canonical import Address
from farthing_cache.embedding.reading import Vector


@dataclass(frozen=True, slots=True)
class Asked:
    """A look-up. `scope` is who asks, in full; `error_budget_ppm` is None for the service's own, `age_s_max` None for any age.

    `flight_wait_s` is how long to wait for an identical request under way; 0 joins none. On a dry run nothing is counted, learned,
    joined or refreshed.
    """

    address: Address
    scope: str
    semantic: bool = False
    error_budget_ppm: int | None = None
    flight_wait_s: float = 0.0
    age_s_max: int | None = None
    allow_stale: bool = False
    allow_adapted: bool = False
    allow_check: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why a hit by meaning may be trusted, or a candidate was not: see the contract's message of that name."""

    probability: float
    probability_min: float
    error_budget_ppm: int
    wrong_upper_ppm: int
    evidence: str
    category: str = ""
    verifier_id: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """A text of the cached question and answer, and what stands in its place now."""

    cached: str
    asked: str


@dataclass(frozen=True, slots=True)
class Flight:
    """Whoever has it leads until `expires_at`: identical requests wait for the answer or the end."""

    flight_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up found: "exact", "semantic", "adapted" or "miss", why, and the payload of the entry that is served, opened.

    `vector` is that of the question on a miss, where the built-in model computed it: others may use it, too. `similarity` is the cosine
    of the nearest entry that was compared. `joined` is an answer that an identical request bought just now; `in_flight` a miss while one
    is under way.
    """

    outcome: str
    reason: str
    payload: bytes | None = None
    entry_key: bytes = b""
    similarity: float | None = None
    vector: Vector | None = None
    certificate: Certificate | None = None
    hit_id: str = ""
    slots: tuple[Slot, ...] = ()
    stale: bool = False
    flight: Flight | None = None
    joined: bool = False
    check: bool = False
    in_flight: bool = False
