"""RPCs that make, read, change and correct budgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.budgets import (
    CRITICAL_PERCENT,
    Change,
    Draft,
    Exhaustion,
    Limits,
    LimitTerms,
    Measure,
    Selector,
    Terms,
    changeable,
)
from farthing_budget.lane import Lane
from farthing_budget.operations import Adjust, Reset
from farthing_budget.periods import Period, PeriodTerms, time_zone
from farthing_budget.store import BudgetStore
from farthing_budget.velocity import Velocity, velocity_of

_PAGE_SIZE = 100
Changed = Callable[[str, str], None]
"""Told of (organisation, budget) when terms were changed."""


class BudgetRpcs:
    """Budgets."""

    def __init__(self, *, budgets: BudgetStore, lane: Lane, clock: Clock, new_id: NewId, changed: Changed) -> None:
        self._budgets = budgets
        self._lane = lane
        self._clock = clock
        self._new_id = new_id
        self._changed = changed

    async def CreateBudget(self, request: Any, context: Any) -> Any:
        """Creates a budget."""
        period = request.period_terms
        terms = Terms(
            organization=parse_scope(request.scope).organization,
            budget_id=self._new_id(),
            scope=request.scope,
            display_name=messages.text(request.display_name, field="display_name"),
            period_terms=PeriodTerms(
                period=Period(request.period),
                time_zone=time_zone(request.time_zone).key,
                start_month=period.fiscal_start_month or 1,
                start_day=period.start_day or 1,
                window_s=period.window_s,
            ),
            limits=_limits(request),
            limit_terms=_limit_terms(request.limit_terms),
            selector=_selector(request.selector),
        )
        draft = Draft(terms, request.request_id.lower(), messages.body_hash(request), self._clock.now()).checked()
        return budget_pb2.CreateBudgetResponse(budget=messages.budget(await self._budgets.create(draft)))

    async def GetBudget(self, request: Any, context: Any) -> Any:
        """Reads a budget."""
        found = await self._budgets.get(parse_scope(request.scope).organization, _budget_id(request))
        return budget_pb2.GetBudgetResponse(budget=messages.budget(found))

    async def ListBudgets(self, request: Any, context: Any) -> Any:
        """Lists budgets."""
        size, last = request.page_size or _PAGE_SIZE, messages.last_budget(request.page_token)
        found = await self._budgets.list_from(parse_scope(request.scope), after=last, count_max=size + 1)
        more = found[size - 1].terms if len(found) > size else None
        token = messages.page_token((more.scope, str(int(more.period_terms.period)), more.budget_id)) if more else ""
        return budget_pb2.ListBudgetsResponse(budgets=[messages.budget(each) for each in found[:size]], next_page_token=token)

    async def UpdateBudget(self, request: Any, context: Any) -> Any:
        """Changes a budget."""
        change = Change(
            fields=changeable(list(request.update_mask.paths)),
            display_name=messages.text(request.display_name, field="display_name"),
            limits=_limits(request),
            limit_terms=_limit_terms(request.limit_terms),
            version=request.version,
        )
        changed = await self._budgets.update(parse_scope(request.scope).organization, _budget_id(request), change)
        self._changed(changed.terms.organization, changed.terms.budget_id)
        return budget_pb2.UpdateBudgetResponse(budget=messages.budget(changed))

    async def DeleteBudget(self, request: Any, context: Any) -> Any:
        """Deletes a budget."""
        await self._budgets.delete(parse_scope(request.scope).organization, _budget_id(request))
        return budget_pb2.DeleteBudgetResponse()

    async def ResetBudget(self, request: Any, context: Any) -> Any:
        """Starts a budget afresh."""
        scope, budget_id = parse_scope(request.scope), _budget_id(request)
        reason = messages.text(request.reason, field="reason")
        await self._lane.submit(Reset(scope, request.request_id.lower(), budget_id, reason, messages.body_hash(request)))
        found = await self._budgets.get(scope.organization, budget_id)
        return budget_pb2.ResetBudgetResponse(budget=messages.budget(found))

    async def AdjustBudget(self, request: Any, context: Any) -> Any:
        """Corrects the books."""
        operation = Adjust(
            scope=parse_scope(request.scope),
            request_id=request.request_id.lower(),
            reservation_id=request.reservation_id.lower(),
            budget_id=messages.text(request.budget_id, field="budget_id"),
            amount_usd_nanos=request.amount_usd_nanos,
            tokens=request.tokens,
            reason=messages.text(request.reason, field="reason"),
            body_hash=messages.body_hash(request),
        )
        outcome = await self._lane.submit(operation)
        entry = messages.entry(outcome.entry) if outcome.entry else messages.entry_of_correction(outcome.hold, operation)
        return budget_pb2.AdjustBudgetResponse(entry=entry)

    async def GetSpendingVelocity(self, request: Any, context: Any) -> Any:
        """How fast the budgets of a scope are used up."""
        now, scope = self._clock.now(), parse_scope(request.scope)
        found = [velocity_of(each.terms, each.period_start, each.counted, now) for each in await self._budgets.on_path(scope)]
        late = max([now, *(each.exhausted_at for each in found if each.exhausted_at)])
        found.sort(key=lambda each: (each.exhausted_at is None, each.exhausted_at or late, each.terms.budget_id))
        return budget_pb2.GetSpendingVelocityResponse(velocities=[_velocity(each) for each in found])


def _budget_id(request: Any) -> str:
    return messages.text(request.budget_id, field="budget_id")


def _limits(request: Any) -> Limits:
    return Limits(
        usd_nanos=request.limit_usd_nanos if request.HasField("limit_usd_nanos") else None,
        tokens=request.limit_tokens if request.HasField("limit_tokens") else None,
        requests=request.limit_requests if request.HasField("limit_requests") else None,
    )


def _limit_terms(given: Any) -> LimitTerms:
    return LimitTerms(
        soft_percent=given.soft_limit_percent,
        critical_percent=given.critical_limit_percent or CRITICAL_PERCENT,
        on_exhaustion=Exhaustion(given.on_exhaustion or Exhaustion.DENY),
        measure=Measure(given.velocity_measure or Measure.NONE),
        hold_worst_case=given.hold_worst_case,
    )


def _selector(given: Any) -> Selector | None:
    kind = given.WhichOneof("only")
    if kind is None:
        return None
    name = getattr(given, kind)
    if not name.isprintable():
        raise FieldInvalid(field=f"selector.{kind}", problem="must not contain control characters")
    return Selector(kind, name)


def _velocity(given: Velocity) -> Any:
    ends = given.exhausted_at
    measure = int(given.terms.limit_terms.measure) if ends else 0
    text = f"ends at {ends:%Y-%m-%d %H:%M} UTC at this rate" if ends else "lasts at this rate"
    return budget_pb2.Velocity(
        budget_id=given.terms.budget_id,
        scope=given.terms.scope,
        rate_usd_nanos_per_hour=given.rate_usd_nanos_per_hour,
        mean_usd_nanos_per_hour=given.mean_usd_nanos_per_hour,
        exhaust_time=messages.timestamp(ends) if ends else None,
        projected_usd_nanos=given.projected_usd_nanos,
        measure=measure,  # type: ignore[arg-type]
        message=text,
    )
