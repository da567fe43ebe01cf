"""The port to the accounts of ε, and its promises.

- What is charged is never given back and never lost: a charge is durable before `charge` returns.
- The sum of an organisation's charges never passes its total, however many processes charge at once.
- A charge and its answer are stored together or not at all; the same request_id gets the stored answer and is charged once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from farthing_core.errors import FarthingError


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
    """A request_id that another question was answered under."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} belongs to another question", request_id=request_id)


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
