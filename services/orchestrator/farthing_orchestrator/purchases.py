"""Buying an answer: calling models, settling what that cost whatever happens, and remembering what came of it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from farthing_orchestrator.accounting import Account, TokensOfPrompt, account_of_answer
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.journey import Completed, Journey
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Peers, PeerUnavailable, Refused
from farthing_orchestrator.request import Generated, Line, Piece, Step, StepName, StepOutcome
from farthing_orchestrator.unmasking import Unmasker

_CHARACTERS_PER_TOKEN = 4


class Purchases:
    """Follows planned routes. Every purchase ends in a settlement or a release, also when its caller has gone away."""

    def __init__(self, *, peers: Peers, policy: Policy, deferred: Deferred) -> None:
        self._peers = peers
        self._policy = policy
        self._deferred = deferred

    async def buy(self, journey: Journey) -> Completed:
        """Follows the route to an answer."""
        assert journey.planned is not None
        with journey.step(StepName.GENERATE) as note:
            try:
                generated = await self._peers.models.generate(journey.ask, journey.planned, timeout_s=journey.time_left_s())
            except BaseException as error:
                await self._end_without_answer(journey, error)
                raise
            note.text = _note_of(generated)
        return await self._finish(journey, generated)

    async def stream(self, journey: Journey) -> AsyncGenerator[Piece | Completed, None]:
        """Follows the route, delivering pieces as they come; the last item is the whole."""
        assert journey.planned is not None
        delivery = _Delivery()
        began_s = journey.clock.monotonic_s()
        try:
            async with aclosing(
                self._peers.models.stream(journey.ask, journey.planned, timeout_s=journey.time_left_s())
            ) as items:
                async for item in items:
                    delivery.note(item)
                    if isinstance(item, Piece) and (piece := delivery.unmasked(item, journey)):
                        yield piece
            if rest := delivery.rest():
                yield rest
            if delivery.generated is None:
                raise PeerUnavailable(peer="router", message="the stream ended without its account")
        except BaseException as error:
            await self._end_broken_stream(journey, delivery, error)
            raise
        duration_us = int((journey.clock.monotonic_s() - began_s) * 1e6)
        journey.steps.append(Step(StepName.GENERATE, StepOutcome.DONE, _note_of(delivery.generated), duration_us))
        yield await self._finish(journey, delivery.generated)

    async def _finish(self, journey: Journey, generated: Generated) -> Completed:
        journey.upstream_us = generated.upstream_us
        account = await self._account(journey, generated)
        await self._settle(journey, account, generated.lines)
        await self._remember(journey, generated)
        if journey.originals:
            journey.steps.append(Step(StepName.UNMASK, StepOutcome.DONE, f"{len(journey.originals)} put back", 0))
        else:
            journey.skip(StepName.UNMASK, "nothing was masked")
        receipt = journey.receipt(account, generated)
        return Completed(generated.answer, generated.model, generated.usage, generated.extra_json, journey.unmasker(), receipt)

    async def _account(self, journey: Journey, generated: Generated) -> Account:
        assert journey.planned is not None
        model, price = await self._peers.models.price(journey.planned.baseline_model)
        before, after = (journey.shaped.tokens_before, journey.shaped.tokens_after) if journey.shaped else ({}, {})
        tokens = TokensOfPrompt(before, after, generated.input_tokens)
        return account_of_answer(
            price,
            baseline_model=model,
            cost_usd_nanos=generated.cost_usd_nanos,
            tokens=tokens,
            output_tokens=generated.output_tokens,
        )

    async def _settle(self, journey: Journey, account: Account, lines: tuple[Line, ...]) -> None:
        """Settles beside the answer's path: the hold is durable, so a crash in between leaves it in suspense, never forgotten."""
        ledger, request_id, scope, reserved = self._peers.ledger, journey.ask.request_id, journey.ask.scope, journey.reserved
        usage = journey.usage(account, lines)

        async def settle() -> None:
            # Without a hold (the ledger was out of reach and the policy said to go on) the spending is written down as it is.
            await (ledger.settle if reserved else ledger.record)(request_id, scope, usage)

        journey.defer(StepName.SETTLE, f"{account.cost_usd_nanos} nanos")
        await self._deferred.run("settle", settle, request_id=request_id)

    async def _remember(self, journey: Journey, generated: Generated) -> None:
        cache, ask = self._policy.cache, journey.cache_ask
        mode = journey.ask.overrides.cache_mode or cache.mode
        if mode == "off" or ask is None or not generated.storable:
            return journey.skip(StepName.REMEMBER, "off" if mode == "off" else "not an answer to keep")
        model_policy, sharing = journey.model_policy(), journey.sharing()
        ttl_s = journey.ask.overrides.cache_ttl_s or cache.ttl_s

        async def remember() -> None:
            await self._peers.answers.remember(
                ask, generated, model_policy=model_policy, sharing=sharing, ttl_s=ttl_s, semantic=mode == "semantic"
            )

        journey.defer(StepName.REMEMBER, f"for {ttl_s} s")
        await self._deferred.run("remember", remember, request_id=journey.ask.request_id, may_fail=True)
        return None

    async def _end_without_answer(self, journey: Journey, error: BaseException) -> None:
        """No answer: what was billed all the same is settled, else the hold goes back.

        When nobody knows (the answer was lost on the way) the hold is left alone: it lapses into suspense and counts as spent.
        """
        if not isinstance(error, Refused):
            return None
        cost = int(error.facts.get("cost_usd_nanos", "0"))
        if cost:
            assert journey.planned is not None
            line = Line(journey.planned.models[0], "", "", 0, 0, 0, cost, "failed")
            return await self._settle(journey, Account(cost, cost, ""), (line,))
        return await self._release(journey)

    async def _end_broken_stream(self, journey: Journey, delivery: _Delivery, error: BaseException) -> None:
        """A stream that broke or was cancelled is settled at what its providers reported, or else at what was delivered."""
        if delivery.generated is not None:
            account = await self._account(journey, delivery.generated)
            return await self._settle(journey, account, delivery.generated.lines)
        if not delivery.model and not delivery.ended:
            return await self._end_without_answer(journey, error)
        lines = [*delivery.ended, await self._line_of_delivered(journey, delivery)]
        cost = sum(line.cost_usd_nanos for line in lines)
        await self._settle(journey, Account(cost, cost, ""), tuple(lines))
        return None

    async def _line_of_delivered(self, journey: Journey, delivery: _Delivery) -> Line:
        assert journey.planned is not None
        model = delivery.model or journey.planned.models[-1]
        input_tokens = journey.planned.input_tokens.get(model, 0)
        output_tokens = math.ceil(delivery.characters / _CHARACTERS_PER_TOKEN)
        _, price = await self._peers.models.price(model)
        cost = price.of(input_tokens, output_tokens) if price else 0
        return Line(model, "", "", input_tokens, 0, output_tokens, cost, "cancelled", estimated=True)

    async def _release(self, journey: Journey) -> None:
        if not journey.reserved:
            return
        ledger, request_id, scope = self._peers.ledger, journey.ask.request_id, journey.ask.scope
        await self._deferred.run("release", lambda: ledger.release(request_id, scope), request_id=request_id)


class _Delivery:
    """What of a stream has come so far."""

    def __init__(self) -> None:
        self.generated: Generated | None = None
        self.ended: list[Line] = []
        self.model = ""
        self.characters = 0
        self._unmasker: Unmasker | None = None

    def note(self, item: Piece | Line | Generated) -> None:
        """Counts an item."""
        if isinstance(item, Generated):
            self.generated = item
        elif isinstance(item, Line):
            self.ended.append(item)
        else:
            self.model = item.model or self.model
            self.characters += len(item.content) + len(item.extra_json)

    def unmasked(self, piece: Piece, journey: Journey) -> Piece | None:
        """The piece with its originals; None while all of it is held back."""
        if not journey.originals:
            return piece
        if self._unmasker is None:
            self._unmasker = journey.unmasker()
        assert self._unmasker is not None
        content = self._unmasker.piece(piece.content)
        extra_json = self._unmasker.json(piece.extra_json)
        return replace(piece, content=content, extra_json=extra_json) if content or extra_json else None

    def rest(self) -> Piece | None:
        """What was held back at the end."""
        text = self._unmasker.rest() if self._unmasker else ""
        return Piece(text, "", self.model) if text else None


def _note_of(generated: Generated) -> str:
    calls = len(generated.lines)
    return f"{generated.model} after {calls} call{'s' if calls > 1 else ''}{', escalated' if generated.escalated else ''}"
