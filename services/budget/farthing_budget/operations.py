"""What callers ask of the ledger, the holds that come of it, the entries that are written, and what callers are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

from farthing_core.scopes import Scope

from farthing_budget.budgets import BalanceKey, Selector
from farthing_budget.periods import PeriodTerms
from farthing_budget.usage import UsageRecord


class State(IntEnum):
    """The life of a hold; the numbers are the contract's."""

    RESERVED = 1
    SETTLED = 2
    RELEASED = 3
    SUSPENDED = 4
    DISPATCHED = 5
    LAPSED = 6


OPEN = frozenset((State.RESERVED, State.DISPATCHED))
"""States in which money is held."""


class Kind(IntEnum):
    """What an entry of the journal says."""

    RESERVE = 1
    DISPATCH = 2
    TOP_UP = 3
    SETTLE = 4
    RELEASE = 5
    LAPSE = 6
    SUSPEND = 7
    RECORD = 8
    ADJUST = 9
    RESET = 10


@dataclass(frozen=True, slots=True)
class Work:
    """What a wish to spend is for: the models, providers and tags that it may involve, and how much it matters."""

    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    critical: bool = False
    open_models: bool = False

    def matches(self, selector: Selector | None) -> bool:
        """Whether a budget with this selector applies."""
        if selector is None:
            return True
        return selector.name in {"model": self.models, "provider": self.providers, "tag": self.tags}[selector.kind]


ANY_WORK = Work()


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a hold is sized by: the certain cost of its prompt, the price of output and how long that may get."""

    input_usd_nanos: int
    input_tokens: int
    output_usd_nanos_per_million_tokens: int
    output_tokens_max: int
    model: str
    task: str


class Sized(NamedTuple):
    """A hold that the ledger sized: it pays for `output_tokens_held`, and `risk` is what it added to the risk of its balances."""

    sizing: Sizing
    output_tokens_held: int
    risk: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """One balance that a hold is charged to. With a selector on model or provider it is charged only for lines of that."""

    key: BalanceKey
    selector: Selector | None = None


@dataclass(slots=True)
class Hold:
    """Money and tokens set aside for one request, and the balances they were charged to.

    Naming those balances is what lets a late settlement land in the period of its reservation, and in deleted budgets too.
    `keys` are those of all charges, in the same order.
    """

    organization: str
    request_id: str
    scope: str
    body_hash: bytes
    state: State
    amount_usd_nanos: int
    tokens: int
    authorized_usd_nanos: int
    charges: tuple[Charge, ...]
    keys: tuple[BalanceKey, ...]
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    settled_usd_nanos: int = 0
    settled_tokens: int = 0
    settle_hash: bytes | None = None
    critical: bool = False
    sized: Sized | None = None


class Entry(NamedTuple):
    """One entry of the journal: the same change on every balance named."""

    kind: Kind
    at: datetime
    organization: str
    request_id: str
    scope: str
    keys: tuple[BalanceKey, ...]
    held_usd_nanos: int = 0
    spent_usd_nanos: int = 0
    suspense_usd_nanos: int = 0
    held_tokens: int = 0
    spent_tokens: int = 0
    suspense_tokens: int = 0
    held_requests: int = 0
    spent_requests: int = 0
    note: str = ""
    corrects: str | None = None
    entry_id: int = 0


class Left(NamedTuple):
    """What is left on the tightest budget; None where nothing limits. Negative where more was spent than the limit.

    `limit_usd_nanos` is that budget's limit of money, `period_start` when the period began in which it is charged, under `period_terms`.
    """

    budget_id: str = ""
    scope: str = ""
    free_usd_nanos: int | None = None
    free_tokens: int | None = None
    limit_usd_nanos: int | None = None
    period_start: datetime | None = None
    period_terms: PeriodTerms | None = None


# The commonest operation is not frozen: that would cost a microsecond more each.
@dataclass(slots=True)
class Reserve:
    """Set money aside. With `sizing` the amounts are the worst case and the hold may be smaller."""

    scope: Scope
    request_id: str
    amount_usd_nanos: int
    tokens: int
    ttl_s: int
    body_hash: bytes
    work: Work = ANY_WORK
    dispatch: bool = False
    sizing: Sizing | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Note that the provider is being called."""

    scope: Scope
    request_id: str


@dataclass(frozen=True, slots=True)
class TopUp:
    """Raise a hold to new totals; of a sized one, to pay for at least `output_tokens`."""

    scope: Scope
    request_id: str
    amount_usd_nanos: int
    tokens: int
    output_tokens: int


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
    """End a hold whose time is up: back if nobody called the provider, into suspense if somebody did."""

    scope: Scope
    request_id: str


@dataclass(frozen=True, slots=True)
class Adjust:
    """Correct what was spent: of a settled reservation, or of one budget."""

    scope: Scope
    request_id: str
    reservation_id: str
    budget_id: str
    amount_usd_nanos: int
    tokens: int
    reason: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """Stop counting what was spent of one budget in its current period."""

    scope: Scope
    request_id: str
    budget_id: str
    reason: str
    body_hash: bytes


Operation = Reserve | Dispatch | TopUp | Settle | Release | Record | Lapse | Adjust | Reset


class Outcome(NamedTuple):
    """What an operation came to. The hold is as it was when this operation had been applied."""

    hold: Hold
    left: Left
    repeated: bool = False
    entry: Entry | None = None
