"""The ports to the accounts of ε and to data keys, and their promises.

- What is charged is never given back and never lost: a charge is durable before `charge` returns.
- The sum of an organisation's charges never passes its total, however many processes charge at once.
- A charge and its answer are stored together or not at all; the same request_id gets the stored answer and is charged once.
- Whoever changes an organisation's keys has them alone: racing callers that need its first key get the same one.
- An erased key's wrapped bytes are gone with the commit; its number is never given again.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from farthing_core.errors import FarthingError

from farthing_privacy.keys.masters import Wrapped


class PrivacyBudgetExhausted(FarthingError):
    """An organisation has less ε left than is asked for."""

    def __init__(self, *, organization: str, asked_micros: int, left_micros: int, total_micros: int) -> None:
        super().__init__(
            f"{asked_micros} millionths of ε are asked for and {left_micros} are left",
            subject=f"organizations/{organization}",
            asked_micros=asked_micros,
            left_micros=left_micros,
            total_micros=total_micros,
        )


class RequestIdReused(FarthingError):
    """A request_id that another request was answered under."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} belongs to another request", request_id=request_id)


class StoreUnavailable(FarthingError):
    """The database is out of reach."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(f"the database is out of reach ({problem})")


@dataclass(frozen=True, slots=True)
class Charge:
    """What a question costs: ε in millionths, under a request_id; the fingerprint tells questions apart."""

    organization: str
    request_id: str
    fingerprint: bytes
    epsilon_micros: int


@dataclass(frozen=True, slots=True)
class Release:
    """A noised answer as it was given, with the ε that was left after it, in millionths."""

    value: int
    noise_half_width_95: int
    epsilon_left_micros: int


@dataclass(frozen=True, slots=True)
class Account:
    """An organisation's ε, in millionths."""

    total_micros: int
    spent_micros: int


class AccountStore(Protocol):
    """Durable accounts of ε."""

    async def look_up(self, charge: Charge) -> Release | None:
        """The stored answer of a charge made before; None when there is none and the ε is there.

        Raises PrivacyBudgetExhausted, RequestIdReused, StoreUnavailable.
        """
        ...

    async def charge(self, charge: Charge, *, value: int, noise_half_width_95: int) -> Release:
        """Charges and stores the answer in one transaction; gives the stored answer where the charge was made before.

        Raises PrivacyBudgetExhausted, RequestIdReused, StoreUnavailable.
        """
        ...

    async def account(self, organization: str) -> Account:
        """What may be spent and what was spent. Raises StoreUnavailable."""
        ...


class KeysErased(FarthingError):
    """An organisation's keys of a purpose were erased and are not made again."""

    def __init__(self, *, organization: str, purpose: str) -> None:
        super().__init__(
            f"the keys of {organization} for {purpose!r} were erased and are not made again",
            organization=organization,
            purpose=purpose,
        )


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A data key as it is kept: wrapped."""

    organization: str
    purpose: str
    number: int
    wrapped: Wrapped


@dataclass(frozen=True, slots=True)
class KeyState:
    """What is known of a key, erased ones too."""

    purpose: str
    number: int
    master_key_id: str
    created_at: datetime
    erased_at: datetime | None
    erased_by: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many keys were made and wrapped anew."""

    made: int
    rewrapped: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """Whose keys go (every purpose when it is empty), and what the audit row says."""

    purpose: str
    may_begin_again: bool
    actor: str
    reason: str


class KeyChanges(Protocol):
    """Changes of one organisation's keys: nobody else changes them meanwhile, and all are made or none."""

    async def check_not_erased(self, purpose: str) -> None:
        """Raises KeysErased where the latest erasure of the purpose, or of all, says that keys are not made again."""
        ...

    async def purposes(self) -> list[str]:
        """Purposes that have keys which still decrypt."""
        ...

    async def live(self, purpose: str) -> list[StoredKey]:
        """Keys that still decrypt, by number."""
        ...

    async def next_number(self, purpose: str) -> int:
        """A number that no key of the purpose ever had."""
        ...

    async def add(self, key: StoredKey, *, at: datetime) -> None:
        """Keeps a new key."""
        ...

    async def replace(self, key: StoredKey) -> None:
        """Keeps a key that was wrapped anew."""
        ...

    async def erase(self, erasure: Erasure, *, at: datetime) -> int:
        """Forgets wrapped keys and writes the audit row; returns how many. Numbers and times stay."""
        ...

    async def rotation(self, request_id: str, fingerprint: bytes) -> Rotation | None:
        """What was done under a request_id. Raises RequestIdReused."""
        ...

    async def note_rotation(self, request_id: str, fingerprint: bytes, rotation: Rotation, *, at: datetime) -> None:
        """Writes down what was done."""
        ...


class KeyStore(Protocol):
    """Durable data keys. Every method may raise StoreUnavailable."""

    async def live(self, organization: str, purpose: str) -> list[StoredKey]:
        """Keys that still decrypt, by number."""
        ...

    def changing(self, organization: str) -> AbstractAsyncContextManager[KeyChanges]:
        """Changes to make in the block, kept at its end; a block that raises changes nothing."""
        ...

    async def states(self, organization: str, *, after: tuple[str, int], count_max: int) -> list[KeyState]:
        """Keys behind (purpose, number), in that order."""
        ...
