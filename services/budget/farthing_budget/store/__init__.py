"""What the ledger needs of a database. The promises are tested in tests/contract/test_ledger_store.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farthing_core.scopes import Scope

from farthing_budget.budgets import Budget, Change, Draft
from farthing_budget.decisions import Decision, Need
from farthing_budget.journal import EntriesQuestion, Verification
from farthing_budget.lane import Verdict
from farthing_budget.operations import Entry, Hold, Operation, Work
from farthing_budget.questions import UsageQuestion, UsageSum


class LedgerStore(Protocol):
    """Applies operations: exactly, durably, all or none, whatever other processes do at the same time."""

    async def commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        """Applies operations in order in one transaction; a refused one changes nothing and does not disturb the others.

        Operations that the database itself will not take are separated from the others, which then take several transactions. A limit
        that was changed before this call is kept to.

        Raises StoreUnavailable when the database is out of reach, and LedgerBusy when others would not let go of the rows: then nothing
        was done, or (if the connection broke while committing) all of it was; repeating with the same request ids tells.
        """
        ...

    async def check(self, scope: Scope, need: Need, work: Work) -> Decision:
        """What a reservation would be answered. Raises StoreUnavailable."""
        ...

    async def find(self, scope: Scope, request_id: str) -> tuple[Hold, list[Entry]]:
        """A hold with its entries in the journal, oldest first. Raises ReservationNotFound and StoreUnavailable."""
        ...

    async def lapsed(self, count_max: int) -> list[tuple[str, str]]:
        """At most `count_max` (scope, request_id) of open holds whose time is up, the oldest first. Raises StoreUnavailable."""
        ...


class BudgetStore(Protocol):
    """Keeps budgets. Everything here may raise StoreUnavailable."""

    async def create(self, draft: Draft) -> Budget:
        """Makes a budget. The same request_id and body give the same budget, as it is now.

        Raises BudgetExists, RequestIdReused for another body, and BudgetNotFound when that budget was deleted since.
        """
        ...

    async def get(self, organization: str, budget_id: str) -> Budget:
        """A budget. Raises BudgetNotFound, also for one of another organisation."""
        ...

    async def list_from(self, scope: Scope, *, after: tuple[str, int, str] | None, count_max: int) -> list[Budget]:
        """Budgets at and below a scope, by scope, period and id, from behind `after`."""
        ...

    async def on_path(self, scope: Scope) -> list[Budget]:
        """The budgets of a scope and its ancestors, outermost first."""
        ...

    async def update(self, organization: str, budget_id: str, change: Change) -> Budget:
        """Changes a budget; what is committed to the ledger afterwards keeps to it.

        Raises BudgetNotFound, VersionMismatch, FieldInvalid.
        """
        ...

    async def delete(self, organization: str, budget_id: str) -> None:
        """Ends a budget; holds that were charged to it can still settle. Raises BudgetNotFound."""
        ...


class JournalStore(Protocol):
    """Reads the journal. Everything here may raise StoreUnavailable."""

    async def entries(self, question: EntriesQuestion) -> list[Entry]:
        """A page of entries, newest first."""
        ...

    async def verify(self, organization: str) -> Verification:
        """Recomputes every balance of an organisation from the journal, and what is held from the open holds, and compares."""
        ...


class UsageStore(Protocol):
    """Answers questions about usage from the hourly roll-up, never from raw rows."""

    async def sums(self, question: UsageQuestion) -> list[UsageSum]:
        """A page of sums, ordered by their keys."""
        ...
