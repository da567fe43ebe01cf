"""What the ledger needs of a database. The promises are tested in tests/contract/test_ledger_store.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farthing_core.scopes import Scope

from farthing_budget.budgets import Budget, Change, Draft
from farthing_budget.lane import Verdict
from farthing_budget.ledger import Left, Operation
from farthing_budget.usage import UsageQuestion, UsageSum


class LedgerStore(Protocol):
    """Applies operations: exactly, durably, all or none, whatever other processes do at the same time."""

    async def commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        """Applies operations in order in one transaction; a refused one changes nothing and does not disturb the others.

        Raises StoreUnavailable when the database is out of reach: then nothing was done, or (if the connection broke while committing)
        all of it was; repeating with the same request ids tells.
        """
        ...

    async def check(self, scope: Scope, amount_usd_nanos: int, tokens: int) -> Left:
        """What would be left after a reservation; raises BudgetExhausted where it would not fit."""
        ...

    async def lapsed(self, count_max: int) -> list[tuple[str, str]]:
        """(scope, request_id) of open holds whose time is up."""
        ...


class BudgetStore(Protocol):
    """Keeps budgets."""

    async def create(self, draft: Draft) -> Budget:
        """Makes a budget. The same request_id gives the same budget. Raises BudgetExists."""
        ...

    async def get(self, organization: str, budget_id: str) -> Budget:
        """A budget. Raises BudgetNotFound, also for one of another organisation."""
        ...

    async def list_from(self, scope: Scope, *, after: tuple[str, int] | None, count_max: int) -> list[Budget]:
        """Budgets at and below a scope, by scope and period, from behind `after`."""
        ...

    async def update(self, organization: str, budget_id: str, change: Change) -> Budget:
        """Changes a budget. Raises BudgetNotFound, VersionMismatch, FieldInvalid."""
        ...

    async def delete(self, organization: str, budget_id: str) -> None:
        """Ends a budget. Raises BudgetNotFound."""
        ...


class UsageStore(Protocol):
    """Answers questions about usage from the hourly roll-up, never from raw rows."""

    async def sums(self, question: UsageQuestion) -> list[UsageSum]:
        """A page of sums, ordered by their keys."""
        ...
