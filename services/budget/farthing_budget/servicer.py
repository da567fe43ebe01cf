"""Translates: messages in, the ledger's call, messages out."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.budgets import Change, Draft, Terms, changeable
from farthing_budget.lane import Lane
from farthing_budget.operations import Record, Release, Reserve, Settle
from farthing_budget.periods import Period, time_zone
from farthing_budget.store import BudgetStore, LedgerStore, UsageStore

_PAGE_SIZE = 100


class BudgetServicer(budget_pb2_grpc.BudgetServiceServicer):
    """`farthing.budget.v1.BudgetService`."""

    def __init__(
        self,
        *,
        lane: Lane,
        ledger: LedgerStore,
        budgets: BudgetStore,
        usage: UsageStore,
        clock: Clock,
        new_id: NewId,
        hold_ttl_s: int,
    ) -> None:
        self._lane = lane
        self._ledger = ledger
        self._budgets = budgets
        self._usage = usage
        self._clock = clock
        self._new_id = new_id
        self._hold_ttl_s = hold_ttl_s

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

    async def CheckBudget(self, request: Any, context: Any) -> Any:
        """Says what a reservation would be answered."""
        scope = parse_scope(request.scope)
        left, refusal = await self._ledger.check(scope, request.amount_usd_nanos, request.tokens)
        return budget_pb2.CheckBudgetResponse(
            verdict=budget_pb2.VERDICT_DENY if refusal else budget_pb2.VERDICT_ALLOW,
            reason=refusal.message if refusal else "fits",
            left=messages.left(left),
        )

    async def ReserveBudget(self, request: Any, context: Any) -> Any:
        """Sets money and tokens aside."""
        operation = Reserve(
            scope=parse_scope(request.scope),
            request_id=request.request_id.lower(),
            amount_usd_nanos=request.amount_usd_nanos,
            tokens=request.tokens,
            ttl_s=request.ttl_s or self._hold_ttl_s,
            body_hash=messages.body_hash(request),
        )
        outcome = await self._lane.submit(operation)
        return budget_pb2.ReserveBudgetResponse(
            verdict=budget_pb2.VERDICT_ALLOW,
            reservation=messages.reservation(outcome.hold),
            left=messages.left(outcome.left),
            repeated=outcome.repeated,
        )

    async def SettleReservation(self, request: Any, context: Any) -> Any:
        """Ends a reservation with what was used."""
        usage = messages.usage_record(request.usage)
        operation = Settle(parse_scope(request.scope), request.request_id.lower(), usage, messages.body_hash(request))
        outcome = await self._lane.submit(operation)
        return budget_pb2.SettleReservationResponse(
            reservation=messages.reservation(outcome.hold), left=messages.left(outcome.left)
        )

    async def ReleaseReservation(self, request: Any, context: Any) -> Any:
        """Ends a reservation unused."""
        outcome = await self._lane.submit(Release(parse_scope(request.scope), request.request_id.lower()))
        return budget_pb2.ReleaseReservationResponse(reservation=messages.reservation(outcome.hold))

    async def RecordUsage(self, request: Any, context: Any) -> Any:
        """Writes down what has no reservation."""
        usage = messages.usage_record(request.usage)
        await self._lane.submit(
            Record(parse_scope(request.scope), request.request_id.lower(), usage, messages.body_hash(request))
        )
        return budget_pb2.RecordUsageResponse()

    async def QueryUsage(self, request: Any, context: Any) -> Any:
        """Sums usage."""
        asked = messages.question(request, self._clock.now())
        size = asked.page_size
        found = await self._usage.sums(messages.one_more(asked))
        token = messages.page_token(found[size - 1].keys) if len(found) > size else ""
        return budget_pb2.QueryUsageResponse(
            rows=[messages.usage_row(each, asked.groups) for each in found[:size]], next_page_token=token
        )
