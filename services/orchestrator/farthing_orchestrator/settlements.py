"""The ends of purchases in the ledger: what was bought is settled, what was not is given back, what nobody knows stays."""

from __future__ import annotations

from dataclasses import replace

from farthing_orchestrator.accounting import Account, TokensOfPrompt, account_of_answer, account_of_shadow
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.ports import Peers, PeerUnavailable, Refused
from farthing_orchestrator.request import Generated, Line, StepName
from farthing_orchestrator.reserving import Reservations


class Settlements:
    """Ends holds. Every purchase ends in a settlement or a release, also when its caller has gone away."""

    def __init__(self, *, peers: Peers, deferred: Deferred, reservations: Reservations) -> None:
        self._peers = peers
        self._deferred = deferred
        self._reservations = reservations

    async def account(self, journey: Journey, generated: Generated) -> Account:
        """What an answer cost and saved."""
        assert journey.planned is not None
        if journey.ask.shadow_of:
            return account_of_shadow(generated.cost_usd_nanos)
        model, price = await self._peers.models.price(journey.planned.baseline_model, journey.ask.scope)
        before, after = (journey.shaped.tokens_before, journey.shaped.tokens_after) if journey.shaped else ({}, {})
        tokens = TokensOfPrompt(before, after, generated.input_tokens)
        return account_of_answer(
            price,
            baseline_model=model,
            cost_usd_nanos=generated.cost_usd_nanos,
            tokens=tokens,
            output_tokens=generated.output_tokens,
        )

    async def settle(self, journey: Journey, account: Account, lines: tuple[Line, ...]) -> None:
        """Settles beside the answer's path: the hold is durable, so a crash in between leaves it in suspense, never forgotten."""
        ledger, request_id, scope, reserved = self._peers.ledger, journey.ask.request_id, journey.ask.scope, journey.reserved
        if journey.ask.shadow_of:
            lines = tuple(replace(line, outcome=f"shadow_{line.outcome}") for line in lines)
        usage = journey.usage(account, lines)
        journey.tokens_used = sum(line.input_tokens + line.output_tokens for line in lines)

        async def settle() -> None:
            # Without a hold (the ledger was out of reach and the policy said to go on) the spending is written down as it is.
            if reserved is False:
                return await ledger.record(request_id, scope, usage)
            try:
                await ledger.settle(request_id, scope, usage)
            except Refused as refused:
                if reserved or refused.reason != "RESERVATION_NOT_FOUND":
                    raise
                await ledger.record(request_id, scope, usage)

        journey.defer(StepName.SETTLE, f"{account.cost_usd_nanos} nanos")
        await self._deferred.run("settle", settle, request_id=request_id)

    async def end_without_answer(self, journey: Journey, error: BaseException) -> None:
        """No answer: what was billed all the same is settled, else the hold goes back. When nobody knows, it stays."""
        lost = error.facts.get("may_be_billed") == "True" if isinstance(error, Refused) else True
        if isinstance(error, PeerUnavailable):
            lost = error.may_have_acted
        if lost:
            return self._reservations.leave_in_suspense(journey)
        cost = int(error.facts.get("cost_usd_nanos", "0")) if isinstance(error, Refused) else 0
        if cost:
            assert journey.planned is not None
            account = account_of_shadow(cost) if journey.ask.shadow_of else Account(cost, cost, "")
            line = Line(journey.planned.models[0], "", "", 0, 0, 0, cost, "failed")
            return await self.settle(journey, account, (line,))
        return await self._reservations.release(journey)
