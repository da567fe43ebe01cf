"""What callers ask of the ledger, the holds that come of it, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from farthing_core.scopes import Scope

from farthing_budget.budgets import BalanceKey
from farthing_budget.usage import UsageRecord


class State(IntEnum):
    """The life of a hold; the numbers are the contract's."""

    RESERVED = 1
    SETTLED = 2
    RELEASED = 3
    SUSPENDED = 4


@dataclass(slots=True)
class Hold:
    """Money and tokens set aside for one request, and the balances they were charged to.

    Naming those balances is what lets a late settlement land in the period of its reservation, and in deleted budgets too.
    """

    organization: str
    request_id: str
    scope: str
    body_hash: bytes
    state: State
    amount_usd_nanos: int
    tokens: int
    charges: tuple[BalanceKey, ...]
    created_at: datetime
    expires_at: datetime
    settled_usd_nanos: int = 0
    settled_tokens: int = 0
    settle_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What is left on the tightest budget; None where nothing limits. Negative where more was spent than the limit."""

    budget_id: str = ""
    scope: str = ""
    free_usd_nanos: int | None = None
    free_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set money aside."""

    scope: Scope
    request_id: str
    amount_usd_nanos: int
    tokens: int
    ttl_s: int
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Settle:
    """End a hold with what was used."""

    scope: Scope
    request_id: str
    usage: UsageRecord
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """End a hold unused."""

    scope: Scope
    request_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write down what has no hold."""

    scope: Scope
    request_id: str
    usage: UsageRecord
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Lapse:
    """Move a hold whose time is up into suspense."""

    scope: Scope
    request_id: str


Operation = Reserve | Settle | Release | Record | Lapse


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation came to. The hold is as it was when this operation had been applied."""

    hold: Hold
    left: Left
    repeated: bool = False
