"""Budgets as people make and change them, and the balances they are kept by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_core.errors import FieldInvalid

from farthing_budget.periods import Period, period_bounds

CHANGEABLE = frozenset({"display_name", "limit_usd_nanos", "limit_tokens"})
BalanceKey = tuple[str, str, datetime]
"""(organisation, budget, start of the period)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A budget's terms. A limit of None does not limit."""

    organization: str
    budget_id: str
    scope: str
    display_name: str
    period: Period
    time_zone: str
    limit_usd_nanos: int | None
    limit_tokens: int | None

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """When the period around `now` began and when it ends, in UTC."""
        return period_bounds(self.period, self.time_zone, now)

    def balance_key(self, now: datetime) -> BalanceKey:
        """Where this budget is charged at a moment."""
        return self.organization, self.budget_id, self.bounds(now)[0]


@dataclass(slots=True)
class Balance:
    """What is spent and held of one budget in one period."""

    period_end: datetime
    spent_usd_nanos: int = 0
    held_usd_nanos: int = 0
    spent_tokens: int = 0
    held_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget with its balance in the current period."""

    terms: Terms
    version: int
    created_at: datetime
    period_start: datetime
    balance: Balance


@dataclass(frozen=True, slots=True)
class Draft:
    """A budget to be made."""

    terms: Terms
    request_id: str
    body_hash: bytes
    created_at: datetime

    def checked(self) -> Draft:
        """This draft; raises FieldInvalid when it limits nothing."""
        must_limit(self.terms.limit_usd_nanos, self.terms.limit_tokens)
        return self


@dataclass(frozen=True, slots=True)
class Change:
    """What changes of a budget: only the fields named."""

    fields: frozenset[str]
    display_name: str
    limit_usd_nanos: int | None
    limit_tokens: int | None
    version: int


def must_limit(limit_usd_nanos: int | None, limit_tokens: int | None) -> None:
    """Raises FieldInvalid when neither money nor tokens are limited."""
    if limit_usd_nanos is None and limit_tokens is None:
        raise FieldInvalid(field="limit_usd_nanos", problem="give it or limit_tokens: a budget limits something")


def changeable(fields: list[str]) -> frozenset[str]:
    """The fields of a mask; raises FieldInvalid for one that cannot change."""
    for name in fields:
        if name not in CHANGEABLE:
            raise FieldInvalid(field="update_mask", problem=f"{name!r} cannot change; {', '.join(sorted(CHANGEABLE))} can")
    if not fields:
        raise FieldInvalid(field="update_mask", problem="names no field")
    return frozenset(fields)
