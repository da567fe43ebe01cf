"""Budgets as people make and change them, and the balances they are kept by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from farthing_core.errors import FieldInvalid

from farthing_budget.periods import Period, PeriodTerms, neighbours, period_bounds, window_starts

CHANGEABLE = ("display_name", "limit_usd_nanos", "limit_tokens", "limit_requests", "limit_terms")
CRITICAL_PERCENT = 200
BalanceKey = tuple[str, str, datetime]
"""(organisation, budget, start of the period)."""


class Exhaustion(IntEnum):
    """What work that is not critical is told at the limit; the numbers are the contract's."""

    DENY = 1
    DEGRADE = 2


class Measure(IntEnum):
    """What is done when the limit would be reached before the period ends; the numbers are the contract's."""

    NONE = 1
    ALERT = 2
    DEGRADE = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """The most of each kind that a period may use. None does not limit."""

    usd_nanos: int | None = None
    tokens: int | None = None
    requests: int | None = None

    def checked(self) -> Limits:
        """These limits; raises FieldInvalid when they limit nothing."""
        if self.usd_nanos is None and self.tokens is None and self.requests is None:
            raise FieldInvalid(
                field="limit_usd_nanos", problem="give it, limit_tokens or limit_requests: a budget limits something"
            )
        return self


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """What happens near and at a limit. Percentages are of the limit; a soft limit of 0 is none.

    With `hold_worst_case` every hold is the most that its request may cost: nothing is sized by what was learned.
    """

    soft_percent: int = 0
    critical_percent: int = CRITICAL_PERCENT
    on_exhaustion: Exhaustion = Exhaustion.DENY
    measure: Measure = Measure.NONE
    hold_worst_case: bool = False

    def checked(self) -> LimitTerms:
        """These terms; raises FieldInvalid for a critical limit below the limit."""
        if self.critical_percent < 100:
            raise FieldInvalid(field="limit_terms.critical_limit_percent", problem="must be 100 to 1000, or 0 for 200")
        return self


@dataclass(frozen=True, slots=True)
class Selector:
    """What part of a scope's work a budget limits: `kind` is model, provider or tag."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}={self.name}"


@dataclass(frozen=True, slots=True)
class Terms:
    """A budget's terms."""

    organization: str
    budget_id: str
    scope: str
    display_name: str
    period_terms: PeriodTerms
    limits: Limits
    limit_terms: LimitTerms = field(default_factory=LimitTerms)
    selector: Selector | None = None

    @property
    def rolling(self) -> bool:
        """Whether its period is a moving window."""
        return self.period_terms.period is Period.ROLLING

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """When the period (or the slot of a window) around `now` began and when it ends, in UTC."""
        return period_bounds(self.period_terms, now)

    def balance_key(self, now: datetime) -> BalanceKey:
        """Where this budget is charged at a moment."""
        return self.organization, self.budget_id, self.bounds(now)[0]

    def counted_keys(self, now: datetime) -> Sequence[BalanceKey]:
        """The balances that count against the limit at a moment; the last one is where is charged."""
        if not self.rolling:
            return (self.balance_key(now),)
        return [(self.organization, self.budget_id, start) for start in window_starts(self.period_terms, now)]

    def kept_keys(self, now: datetime) -> dict[BalanceKey, datetime]:
        """The balances that are made where they are missing, with the ends of their periods: whoever may be charged now locks them all."""
        return {(self.organization, self.budget_id, start): end for start, end in neighbours(self.period_terms, now)}


@dataclass(slots=True)
class Balance:
    """What is spent and held of one budget in one period. What is in suspense is part of what is spent.

    `burn_usd_nanos` is what was spent lately, fading with time (`velocity.py`), as it was at `burn_at`. `risk` sums what the open
    holds that the ledger sized may yet cost (`sizing`); empty when there are none.
    """

    period_end: datetime
    spent_usd_nanos: int = 0
    held_usd_nanos: int = 0
    suspense_usd_nanos: int = 0
    spent_tokens: int = 0
    held_tokens: int = 0
    suspense_tokens: int = 0
    spent_requests: int = 0
    held_requests: int = 0
    burn_usd_nanos: float = 0.0
    burn_at: datetime | None = None
    risk: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget with what counts against it now; of a rolling window, the sum of its slots (`counted`)."""

    terms: Terms
    version: int
    created_at: datetime
    period_start: datetime
    balance: Balance
    counted: Sequence[Balance]


@dataclass(frozen=True, slots=True)
class Draft:
    """A budget to be made."""

    terms: Terms
    request_id: str
    body_hash: bytes
    created_at: datetime

    def checked(self) -> Draft:
        """This draft; raises FieldInvalid when it limits nothing or its terms contradict themselves."""
        self.terms.limits.checked()
        self.terms.limit_terms.checked()
        self.terms.period_terms.checked()
        return self


@dataclass(frozen=True, slots=True)
class Change:
    """What changes of a budget: only the fields named."""

    fields: frozenset[str]
    display_name: str
    limits: Limits
    limit_terms: LimitTerms
    version: int

    def of(self, terms: Terms) -> tuple[str, Limits, LimitTerms]:
        """Name, limits and terms after the change. Raises FieldInvalid when nothing would be limited any more."""
        named, limits = self.fields, terms.limits
        changed = Limits(
            usd_nanos=self.limits.usd_nanos if "limit_usd_nanos" in named else limits.usd_nanos,
            tokens=self.limits.tokens if "limit_tokens" in named else limits.tokens,
            requests=self.limits.requests if "limit_requests" in named else limits.requests,
        )
        return (
            self.display_name if "display_name" in named else terms.display_name,
            changed.checked(),
            (self.limit_terms if "limit_terms" in named else terms.limit_terms).checked(),
        )


def changeable(fields: list[str]) -> frozenset[str]:
    """The fields of a mask; raises FieldInvalid for one that cannot change."""
    for name in fields:
        if name not in CHANGEABLE:
            raise FieldInvalid(field="update_mask", problem=f"{name!r} cannot change; {', '.join(sorted(CHANGEABLE))} can")
    if not fields:
        raise FieldInvalid(field="update_mask", problem="names no field")
    return frozenset(fields)


def total(balances: Sequence[Balance]) -> Balance:
    """The sum of a window's slots, ending when the last one does."""
    if len(balances) == 1:
        return balances[0]
    return Balance(
        period_end=balances[-1].period_end,
        spent_usd_nanos=sum(each.spent_usd_nanos for each in balances),
        held_usd_nanos=sum(each.held_usd_nanos for each in balances),
        suspense_usd_nanos=sum(each.suspense_usd_nanos for each in balances),
        spent_tokens=sum(each.spent_tokens for each in balances),
        held_tokens=sum(each.held_tokens for each in balances),
        suspense_tokens=sum(each.suspense_tokens for each in balances),
        spent_requests=sum(each.spent_requests for each in balances),
        held_requests=sum(each.held_requests for each in balances),
    )
