"""RPCs that make, read and change budgets."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.budgets import Change, Draft, Terms, changeable
from farthing_budget.periods import Period, time_zone
from farthing_budget.store import BudgetStore

_PAGE_SIZE = 100


class BudgetRpcs:
    """Budgets."""

    def __init__(self, *, budgets: BudgetStore, clock: Clock, new_id: NewId) -> None:
        self._budgets = budgets
        self._clock = clock
        self._new_id = new_id

    async def CreateBudget(self, request: Any, context: Any) -> Any:
        """Creates a budget."""
        terms = Terms(
            organization=parse_scope(request.scope).organization,
            budget_id=self._new_id(),
            scope=request.scope,
            display_name=messages.text(request.display_name, field="display_name"),
            period=Period(request.period),
            time_zone=time_zone(request.time_zone).key,
            limit_usd_nanos=request.limit_usd_nanos if request.HasField("limit_usd_nanos") else None,
            limit_tokens=request.limit_tokens if request.HasField("limit_tokens") else None,
        )
        draft = Draft(terms, request.request_id.lower(), messages.body_hash(request), self._clock.now()).checked()
        return budget_pb2.CreateBudgetResponse(budget=messages.budget(await self._budgets.create(draft)))

    async def GetBudget(self, request: Any, context: Any) -> Any:
        """Reads a budget."""
        found = await self._budgets.get(
            parse_scope(request.scope).organization, messages.text(request.budget_id, field="budget_id")
        )
        return budget_pb2.GetBudgetResponse(budget=messages.budget(found))

    async def ListBudgets(self, request: Any, context: Any) -> Any:
        """Lists budgets."""
        size, last = request.page_size or _PAGE_SIZE, messages.last_budget(request.page_token)
        found = await self._budgets.list_from(parse_scope(request.scope), after=last, count_max=size + 1)
        more = found[size - 1].terms if len(found) > size else None
        token = messages.page_token((more.scope, str(int(more.period)))) if more else ""
        return budget_pb2.ListBudgetsResponse(budgets=[messages.budget(each) for each in found[:size]], next_page_token=token)

    async def UpdateBudget(self, request: Any, context: Any) -> Any:
        """Changes a budget."""
        change = Change(
            fields=changeable(list(request.update_mask.paths)),
            display_name=messages.text(request.display_name, field="display_name"),
            limit_usd_nanos=request.limit_usd_nanos if request.HasField("limit_usd_nanos") else None,
            limit_tokens=request.limit_tokens if request.HasField("limit_tokens") else None,
            version=request.version,
        )
        changed = await self._budgets.update(
            parse_scope(request.scope).organization, messages.text(request.budget_id, field="budget_id"), change
        )
        return budget_pb2.UpdateBudgetResponse(budget=messages.budget(changed))

    async def DeleteBudget(self, request: Any, context: Any) -> Any:
        """Deletes a budget."""
        await self._budgets.delete(parse_scope(request.scope).organization, messages.text(request.budget_id, field="budget_id"))
        return budget_pb2.DeleteBudgetResponse()
