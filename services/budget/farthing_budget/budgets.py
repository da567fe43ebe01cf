"""Budgets as people make and change them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_core.errors import FarthingError, FieldInvalid

from farthing_budget.ledger import Balance, Terms
from farthing_budget.periods import Period


class BudgetExists(FarthingError):
    """The scope has a budget of this period already."""

    def __init__(self, *, scope: str, period: Period) -> None:
        super().__init__(f"{scope} has a budget per {period.name.lower()} already", scope=scope, period=period.name)


class BudgetNotFound(FarthingError):
    """No such budget in this organisation."""

    def __init__(self, *, budget_id: str) -> None:
        super().__init__(f"no budget {budget_id}", budget_id=budget_id)


class VersionMismatch(FarthingError):
    """The budget was changed since the caller saw it."""

    def __init__(self, *, budget_id: str, version: int, asked: int) -> None:
        super().__init__(f"budget {budget_id} is at version {version}, not {asked}", budget_id=budget_id, version=version)


class StoreUnavailable(FarthingError):
    """The database is out of reach; nothing was done."""

    unreachable = True

    def __init__(self) -> None:
        super().__init__("the ledger's database is out of reach")
        self.retry_after_s = 1.0


@dataclass(frozen=True, slots=True)
class Draft:
    """A budget to be made."""

    terms: Terms
    request_id: str
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


CHANGEABLE = frozenset({"display_name", "limit_usd_nanos", "limit_tokens"})


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget with its balance in the current period."""

    terms: Terms
    version: int
    created_at: datetime
    period_start: datetime
    balance: Balance


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
