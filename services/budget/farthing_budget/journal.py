"""The journal as people read it, and the proof that the balances are what it says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

DIFFERENCES_MAX = 100


@dataclass(frozen=True, slots=True)
class EntriesQuestion:
    """Which entries are asked for: `before` is the (moment, entry id) where the previous page ended."""

    organization: str
    scope: str
    request_id: str
    budget_id: str
    page_size: int
    before: tuple[datetime, int] | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of comparing the balances with the journal; no differences when the books are right."""

    entries: int
    balances: int
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a balance says, or what the journal says it should."""

    held_usd_nanos: int = 0
    spent_usd_nanos: int = 0
    suspense_usd_nanos: int = 0
    held_tokens: int = 0
    spent_tokens: int = 0
    suspense_tokens: int = 0
    held_requests: int = 0
    spent_requests: int = 0

    def differences(self, other: Figures, *, where: str, what: str) -> list[str]:
        """Every figure in which the other differs, for people."""
        return [
            f"{where}: {name} is {getattr(self, name)}, {what} says {getattr(other, name)}"
            for name in self.__slots__
            if getattr(self, name) != getattr(other, name)
        ]
