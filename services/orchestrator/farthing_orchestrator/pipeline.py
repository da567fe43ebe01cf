"""The pipeline: what happens to a request, in which order, and what happens when a peer is out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_orchestrator.accounting import account_of_hit
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.journey import Completed, Journey
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Peers, PeerUnavailable, Refused
from farthing_orchestrator.purchases import Purchases
from farthing_orchestrator.request import Ask, Line, Lookup, Piece, StepName

_SETTLE_SLACK_S = 60


class Pipeline:
    """Answers requests by a policy over its peers."""

    def __init__(self, *, peers: Peers, policy: Policy, clock: Clock, deferred: Deferred) -> None:
        self._peers = peers
        self._policy = policy
        self._clock = clock
        self._deferred = deferred
        self._purchases = Purchases(peers=peers, policy=policy, deferred=deferred)

    async def complete(self, ask: Ask, *, time_left_s: float | None) -> Completed:
        """Answers a request.

        Once money is set aside the rest runs to its end even when the caller goes away: what was bought is settled and remembered.
        """
        journey = await self._prepare(ask, time_left_s)
        if journey.lookup is not None and journey.lookup.hit:
            return await self._serve_hit(journey, journey.lookup)
        await self._reserve(journey)
        return await asyncio.shield(self._deferred.adopt(self._purchases.buy(journey)))

    async def stream(self, ask: Ask, *, time_left_s: float | None) -> AsyncGenerator[Piece | Completed, None]:
        """Answers a request piece by piece; the last item is the whole with its receipt.

        A caller who goes away ends the providers' calls; what was delivered by then is settled.
        """
        journey = await self._prepare(ask, time_left_s)
        if journey.lookup is not None and journey.lookup.hit:
            yield await self._serve_hit(journey, journey.lookup)
            return
        await self._reserve(journey)
        async with aclosing(self._purchases.stream(journey)) as items:
            async for item in items:
                yield item

    async def estimate(self, ask: Ask, *, time_left_s: float | None) -> tuple[Journey, str]:
        """What would happen: the journey up to the plan, and the ledger's verdict."""
        journey = await self._prepare(ask, time_left_s)
        if journey.planned is None:
            return journey, "allow"
        verdict, journey.left = await self._peers.ledger.check(journey.ask, journey.planned)
        return journey, verdict

    async def _prepare(self, ask: Ask, time_left_s: float | None) -> Journey:
        task = self._policy.task(ask.task)
        began_s = self._clock.monotonic_s()
        seconds = task.timeout_s if time_left_s is None else min(task.timeout_s, time_left_s)
        journey = Journey(ask, self._policy, task, self._clock, began_s + seconds, began_s)
        await self._mask(journey)
        await self._look_up(journey)
        if journey.lookup is None or not journey.lookup.hit:
            await self._shape(journey)
            await self._plan(journey)
        return journey

    async def _mask(self, journey: Journey) -> None:
        privacy = self._policy.privacy
        if journey.ask.overrides.skip_masking and not privacy.may_skip_masking:
            raise FieldInvalid(
                field="overrides.skip_masking", problem="the policy does not allow it (privacy.may_skip_masking)"
            )
        if not privacy.mask or journey.ask.overrides.skip_masking:
            return journey.skip(StepName.MASK, "off")
        with journey.step(StepName.MASK) as note:
            try:
                masked = await self._peers.masking.mask(journey.ask.conversation)
            except PeerUnavailable as error:
                if privacy.unreachable == "fail_closed":
                    raise
                return note.unavailable(error.message)
            journey.originals = masked.originals
            journey.with_ask(conversation=masked.conversation)
            note.text = f"{len(masked.originals)} masked" if masked.originals else "nothing to mask"
        return None

    async def _look_up(self, journey: Journey) -> None:
        ask = journey.ask
        journey.cache_ask = ask
        mode = ask.overrides.cache_mode or self._policy.cache.mode
        if mode == "off":
            return journey.skip(StepName.LOOK_UP, "off")
        with journey.step(StepName.LOOK_UP) as note:
            try:
                journey.lookup = await self._peers.answers.look_up(
                    ask, model_policy=journey.model_policy(), mode=mode, sharing=journey.sharing()
                )
            except PeerUnavailable as error:
                return note.unavailable(error.message)
            note.text = f"{journey.lookup.outcome}: {journey.lookup.reason}"
        return None

    async def _shape(self, journey: Journey) -> None:
        level = journey.ask.overrides.prompt_level or self._policy.prompt.level
        with journey.step(StepName.SHAPE) as note:
            try:
                shaped = await self._peers.prompts.shape(journey.ask, level=level)
            except PeerUnavailable as error:
                return note.unavailable(error.message)
            journey.shaped = shaped
            journey.with_ask(conversation=shaped.conversation)
            saved = sum(shaped.tokens_before.values()) - sum(shaped.tokens_after.values())
            note.text = f"{saved // max(1, len(shaped.tokens_before))} tokens saved" if shaped.changed else "nothing to shorten"
        return None

    async def _plan(self, journey: Journey) -> None:
        if journey.ask.overrides.open_models_only:
            journey.with_ask(open_models_only=True)
        with journey.step(StepName.PLAN) as note:
            baseline = self._policy.baseline_model or ""
            try:
                planned = await self._peers.models.plan(journey.ask, shaped=journey.shaped, baseline_model=baseline)
            except Refused as refused:
                fits = journey.ask.overrides.fit_context or self._policy.prompt.fit_context
                if refused.reason != "CONTEXT_TOO_LONG" or not fits:
                    raise
                await self._fit(journey, refused)
                planned = await self._peers.models.plan(journey.ask, shaped=journey.shaped, baseline_model=baseline)
            journey.planned = planned
            note.text = " → ".join(planned.models)

    async def _fit(self, journey: Journey, refused: Refused) -> None:
        limit = int(refused.facts.get("input_tokens_max", "0"))
        if limit <= 0:
            raise refused
        journey.with_ask(conversation=await self._peers.prompts.fit(journey.ask, input_tokens_max=limit))
        before = journey.shaped
        journey.shaped = await self._peers.prompts.shape(journey.ask, level="off")
        if before is not None:
            journey.shaped = replace(journey.shaped, tokens_before=before.tokens_before, changed=True)

    async def _reserve(self, journey: Journey) -> None:
        with journey.step(StepName.RESERVE) as note:
            assert journey.planned is not None
            ttl_s = int(journey.time_left_s()) + _SETTLE_SLACK_S
            try:
                journey.left = await self._peers.ledger.reserve(journey.ask, journey.planned, ttl_s=ttl_s)
                journey.reserved = True
            except PeerUnavailable as error:
                if self._policy.budget.unreachable == "fail_closed":
                    raise
                return note.unavailable(error.message)
            except Refused as refused:
                await self._degrade(journey, refused, ttl_s)
                note.text = "over budget: open models only, "
            note.text += f"{journey.planned.worst_case_usd_nanos} nanos held"
        return None

    async def _degrade(self, journey: Journey, refused: Refused, ttl_s: int) -> None:
        """Over budget, work that is not critical goes to open models where there are any."""
        may = self._policy.budget.on_exhaustion == "degrade" and not journey.task.critical and not journey.ask.open_models_only
        if refused.reason != "BUDGET_EXHAUSTED" or not may:
            raise refused
        journey.with_ask(open_models_only=True)
        try:
            baseline = self._policy.baseline_model or ""
            journey.planned = await self._peers.models.plan(journey.ask, shaped=journey.shaped, baseline_model=baseline)
            journey.left = await self._peers.ledger.reserve(journey.ask, journey.planned, ttl_s=ttl_s)
        except Refused:
            raise refused from None
        journey.reserved = True

    async def _serve_hit(self, journey: Journey, lookup: Lookup) -> Completed:
        model, price = await self._peers.models.price(self._policy.baseline_model or "")
        account = account_of_hit(
            price, baseline_model=model, input_tokens=lookup.input_tokens, output_tokens=lookup.output_tokens
        )
        line = Line(lookup.model, "cache", "", lookup.input_tokens, 0, lookup.output_tokens, 0, f"cache_{lookup.outcome}")
        ask, usage = journey.ask, journey.usage(account, (line,))
        journey.defer(StepName.SETTLE, "written down as a hit")
        await self._deferred.run(
            "record hit", lambda: self._peers.ledger.record(ask.request_id, ask.scope, usage), request_id=ask.request_id
        )
        unmasker = journey.unmasker()
        return Completed(lookup.answer, lookup.model, lookup.usage, "", unmasker, journey.receipt(account, None))
