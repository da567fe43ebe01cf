"""RPCs that set money aside and end what was set aside: one by one, in batches and over a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.decisions import Need, Verdict
from farthing_budget.edge.operations import Reader, decision, result
from farthing_budget.lane import Lane
from farthing_budget.operations import Operation
from farthing_budget.store import LedgerStore

_STREAM_MESSAGES_MAX = 64
_VERDICTS = {
    Verdict.ALLOW: budget_pb2.VERDICT_ALLOW,
    Verdict.DEGRADE: budget_pb2.VERDICT_DEGRADE,
    Verdict.DENY: budget_pb2.VERDICT_DENY,
}


class HoldRpcs:
    """Reservations."""

    def __init__(self, *, lane: Lane, ledger: LedgerStore, hold_ttl_s: int) -> None:
        self._lane = lane
        self._ledger = ledger
        self._reader = Reader(hold_ttl_s)

    async def CheckBudget(self, request: Any, context: Any) -> Any:
        """Says what a reservation would be answered."""
        sizing = self._reader.sizing(request)
        need = Need(request.amount_usd_nanos, request.tokens, 1, (), sizing)
        made = await self._ledger.check(parse_scope(request.scope), need, self._reader.work(request))
        message = decision(made)
        return budget_pb2.CheckBudgetResponse(
            verdict=_VERDICTS[made.verdict], reason=message.message, left=message.left, decision=message
        )

    async def ReserveBudget(self, request: Any, context: Any) -> Any:
        """Sets money and tokens aside."""
        outcome = await self._lane.submit(self._reader.reserve(request))
        return budget_pb2.ReserveBudgetResponse(
            verdict=budget_pb2.VERDICT_ALLOW,
            reservation=messages.reservation(outcome.hold),
            left=messages.left(outcome.left),
            repeated=outcome.repeated,
        )

    async def DispatchReservation(self, request: Any, context: Any) -> Any:
        """Notes that the provider is being called."""
        outcome = await self._lane.submit(self._reader.dispatch(request))
        return budget_pb2.DispatchReservationResponse(reservation=messages.reservation(outcome.hold))

    async def TopUpReservation(self, request: Any, context: Any) -> Any:
        """Raises a hold."""
        outcome = await self._lane.submit(self._reader.top_up(request))
        return budget_pb2.TopUpReservationResponse(
            reservation=messages.reservation(outcome.hold), left=messages.left(outcome.left)
        )

    async def SettleReservation(self, request: Any, context: Any) -> Any:
        """Ends a reservation with what was used."""
        outcome = await self._lane.submit(self._reader.settle(request))
        return budget_pb2.SettleReservationResponse(
            reservation=messages.reservation(outcome.hold), left=messages.left(outcome.left)
        )

    async def ReleaseReservation(self, request: Any, context: Any) -> Any:
        """Ends a reservation unused."""
        outcome = await self._lane.submit(self._reader.release(request))
        return budget_pb2.ReleaseReservationResponse(reservation=messages.reservation(outcome.hold))

    async def RecordUsage(self, request: Any, context: Any) -> Any:
        """Writes down what has no reservation."""
        await self._lane.submit(self._reader.record(request))
        return budget_pb2.RecordUsageResponse()

    async def GetReservation(self, request: Any, context: Any) -> Any:
        """Reads a reservation."""
        hold, entries = await self._ledger.find(parse_scope(request.scope), request.request_id.lower())
        return budget_pb2.GetReservationResponse(
            reservation=messages.reservation(hold), entries=[messages.entry(each) for each in entries]
        )

    async def BatchReserve(self, request: Any, context: Any) -> Any:
        """Does many operations at once."""
        return budget_pb2.BatchReserveResponse(results=await self._do(request.operations))

    async def StreamReservations(self, requests: AsyncIterator[Any], context: Any) -> AsyncGenerator[Any, None]:
        """Does operations as they come; answers in order. Whoever sends faster than we work is held back by flow control."""
        waiting: asyncio.Queue[asyncio.Task[list[Any]] | None] = asyncio.Queue(_STREAM_MESSAGES_MAX)

        async def read() -> None:
            try:
                async for request in requests:
                    await waiting.put(asyncio.create_task(self._do(request.operations)))
            finally:
                await waiting.put(None)

        reading = asyncio.create_task(read())
        try:
            while (task := await waiting.get()) is not None:
                yield budget_pb2.StreamReservationsResponse(results=await task)
            await reading
        finally:
            reading.cancel()

    async def _do(self, given: Sequence[Any]) -> list[Any]:
        """Each operation's result, in order. What cannot be read is answered so, and the others are done."""
        read: list[Operation | FarthingError] = []
        for each in given:
            try:
                read.append(self._reader.operation(each))
            except FieldInvalid as error:
                read.append(error)
        operations = [each for each in read if not isinstance(each, FarthingError)]
        verdicts = iter(await self._lane.submit_all(operations) if operations else ())
        return [result(each if isinstance(each, FarthingError) else next(verdicts)) for each in read]
