"""What is asked of the cache, what it said, and how an answer is to be remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farthing_orchestrator.request import AnswerBody, Ask


@dataclass(frozen=True, slots=True)
class LookupTerms:
    """How far a look-up may go: see the cache's contract. 0 leaves the error budget to the cache, and takes an answer of any age."""

    mode: str
    error_budget_ppm: int = 0
    age_s_max: int = 0
    allow_check: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the cache said. `answer` and what follows are set on a hit. `said` is its whole answer, opaque here, for the receipt; `check` is
    whether a fresh answer is to be bought beside, to compare the hit called `hit_id` with.

    Whoever has a `flight_id` leads identical requests, which wait for its answer. `in_flight` is a miss while one is under way, and
    `joined` a hit that it bought. `lease_s` is how long nothing need be heard of a leader.
    """

    outcome: str
    reason: str
    key: str
    similarity: float | None = None
    answer: AnswerBody = None
    model: str = ""
    usage: Any = None
    entry_key: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    embedding: bytes = b""
    hit_id: str = ""
    check: bool = False
    said: Any = None
    flight_id: str = ""
    lease_s: float = 0.0
    in_flight: bool = False
    joined: bool = False

    @property
    def hit(self) -> bool:
        """Whether an answer may be served."""
        return self.answer is not None


@dataclass(frozen=True, slots=True)
class Flight:
    """A flight that a request leads, with what the cache knows it by: the request as it was looked up."""

    flight_id: str
    lease_s: float
    ask: Ask
    model_policy: str
    sharing: str


@dataclass(frozen=True, slots=True)
class Keeping:
    """How an answer is to be remembered: also by meaning or not, for how many seconds (0: as the cache decides, `ttl_s_max` at most), and
    for how many more it may be served stale. Whoever waits for the flight has it, too.
    """

    semantic: bool
    ttl_s: int
    ttl_s_max: int
    stale_s: int
    flight_id: str = ""
