"""Buying an answer: calling models, settling what that cost whatever happens, and remembering what came of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing

from farthing_orchestrator.accounting import Account
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.delivery import Delivery
from farthing_orchestrator.flights import FlightLeads
from farthing_orchestrator.journey import Completed, Journey
from farthing_orchestrator.lookups import Keeping
from farthing_orchestrator.metering import BudgetCut, Meter
from farthing_orchestrator.outlet import Outlet
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Peers, PeerUnavailable
from farthing_orchestrator.request import Generated, Piece, Step, StepName, StepOutcome
from farthing_orchestrator.settlements import Settlements
from farthing_orchestrator.shadows import Shadows


class Purchases:
    """Follows planned routes. Every purchase ends in a settlement or a release, also when its caller has gone away."""

    def __init__(
        self,
        *,
        peers: Peers,
        policy: Policy,
        deferred: Deferred,
        settlements: Settlements,
        shadows: Shadows,
        flights: FlightLeads,
    ) -> None:
        self._flights = flights
        self._peers = peers
        self._policy = policy
        self._deferred = deferred
        self._settlements = settlements
        self._shadows = shadows

    async def buy(self, journey: Journey) -> Completed:
        """Follows the route to an answer."""
        assert journey.planned is not None
        with journey.step(StepName.GENERATE) as note:
            try:
                generated = await self._peers.models.generate(journey.ask, journey.planned, timeout_s=journey.time_left_s())
            except BaseException as error:
                await self._settlements.end_without_answer(journey, error)
                raise
            note.text = _note_of(generated)
        return await self._finish(journey, generated)

    async def follow(self, journey: Journey, outlet: Outlet | None) -> Completed:
        """Follows the route as the answer comes, never further than it is paid for; pieces go to the outlet, where there is one.

        When its caller goes away the providers' calls end, or go on to their end, as the policy says.
        Raises BudgetCut where nothing more could be paid.
        """
        delivery, meter = Delivery(journey), self._meter(journey)
        began_s = journey.clock.monotonic_s()
        try:
            async with AsyncExitStack() as stack:
                if outlet is not None and self._policy.budget.on_cancel == "abort":
                    await stack.enter_async_context(outlet.attended())
                await stack.enter_async_context(meter)
                await self._read(journey, delivery, meter, outlet)
            if delivery.generated is None:
                raise PeerUnavailable(peer="router", message="the stream ended without its account")
        except BaseException as error:
            await self._end_broken(journey, delivery, meter.tokens, error)
            raise
        duration_us = int((journey.clock.monotonic_s() - began_s) * 1e6)
        journey.steps.append(Step(StepName.GENERATE, StepOutcome.DONE, _note_of(delivery.generated), duration_us))
        return await self._finish(journey, delivery.generated)

    async def _read(self, journey: Journey, delivery: Delivery, meter: Meter, outlet: Outlet | None) -> None:
        assert journey.planned is not None
        stream = self._peers.models.stream(journey.ask, journey.planned, timeout_s=journey.time_left_s())
        async with aclosing(stream) as items:
            async for item in items:
                if isinstance(item, Piece):
                    await meter.admit(item)
                delivery.note(item)
                if outlet is not None and isinstance(item, Piece) and (piece := delivery.unmasked(item)):
                    await outlet.put(piece)
        if outlet is not None and (rest := delivery.rest()):
            await outlet.put(rest)

    def _meter(self, journey: Journey) -> Meter:
        assert journey.planned is not None
        ledger, request_id, scope = self._peers.ledger, journey.ask.request_id, journey.ask.scope
        live = [offer for offer in journey.planned.offers if offer.streams]
        return Meter(
            top_up=lambda tokens: ledger.top_up(request_id, scope, tokens),
            paid_tokens=journey.paid_tokens,
            tokens_max=max((offer.output_tokens_max for offer in live), default=0),
            models=frozenset(offer.model for offer in live),
            unpaid_if_unreachable=self._policy.budget.unreachable == "fail_open",
        )

    async def _finish(self, journey: Journey, generated: Generated) -> Completed:
        journey.upstream_us = generated.upstream_us
        account = await self._settlements.account(journey, generated)
        await self._settlements.settle(journey, account, generated.lines)
        await self._remember(journey, generated)
        if journey.originals:
            journey.steps.append(Step(StepName.UNMASK, StepOutcome.DONE, f"{len(journey.originals)} put back", 0))
        else:
            journey.skip(StepName.UNMASK, "nothing was masked")
        self._shadows.start(journey, generated)
        receipt = journey.receipt(account, generated)
        return Completed(generated.answer, generated.model, generated.usage, generated.extra_json, journey.unmasker(), receipt)

    async def _remember(self, journey: Journey, generated: Generated) -> None:
        cache, ask = self._policy.cache, journey.cache_ask
        mode = journey.ask.overrides.cache_mode or cache.mode
        if mode == "off" or ask is None or not generated.storable:
            return journey.skip(StepName.REMEMBER, "off" if mode == "off" else "not an answer to keep")
        if journey.objection is not None:
            return journey.skip(StepName.REMEMBER, "open models stood in for want of money")
        if journey.planned is not None and journey.planned.on_trial:
            return journey.skip(StepName.REMEMBER, "an experiment's arm on trial: nobody else is given its answers")
        model_policy, sharing = journey.model_policy(), journey.sharing()
        ttl_s = journey.ask.overrides.cache_ttl_s or cache.ttl_s
        flight = self._flights.landing(journey)
        keeping = Keeping(
            mode == "semantic", ttl_s, cache.ttl_s_max, cache.stale_s, flight.flight_id if flight is not None else ""
        )

        async def remember() -> None:
            await self._peers.answers.remember(ask, generated, model_policy=model_policy, sharing=sharing, keeping=keeping)

        journey.defer(StepName.REMEMBER, f"for {ttl_s} s" if ttl_s else f"for {cache.ttl_s_max} s at most")
        await self._deferred.run("remember", remember, request_id=journey.ask.request_id, may_fail=True)
        return None

    async def _end_broken(self, journey: Journey, delivery: Delivery, output_tokens: int, error: BaseException) -> None:
        """An answer that broke, was cut off or was cancelled is settled at what its providers reported, or else at what was delivered."""
        if delivery.generated is not None:
            account = await self._settlements.account(journey, delivery.generated)
            return await self._settlements.settle(journey, account, delivery.generated.lines)
        cancelled = isinstance(error, asyncio.CancelledError)
        cut = isinstance(error, BudgetCut) or (isinstance(error, PeerUnavailable) and error.peer == "budget")
        if not (delivery.model or cancelled or cut):
            return await self._settlements.end_without_answer(journey, error)
        lines = delivery.lines(output_tokens, "cancelled" if cancelled else "cut" if cut else "broken")
        cost = sum(line.cost_usd_nanos for line in lines)
        await self._settlements.settle(journey, Account(cost, cost, ""), lines)
        return None


def _note_of(generated: Generated) -> str:
    calls = len(generated.lines)
    return f"{generated.model} after {calls} call{'s' if calls > 1 else ''}{', escalated' if generated.escalated else ''}"
