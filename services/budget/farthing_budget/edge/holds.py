"""RPCs that set money aside and end what was set aside."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.lane import Lane
from farthing_budget.operations import Record, Release, Reserve, Settle
from farthing_budget.store import LedgerStore


class HoldRpcs:
    """Reservations."""

    def __init__(self, *, lane: Lane, ledger: LedgerStore, hold_ttl_s: int) -> None:
        self._lane = lane
        self._ledger = ledger
        self._hold_ttl_s = hold_ttl_s

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
