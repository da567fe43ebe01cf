"""The pipeline: what happens to a request, in which order, and what happens when a peer is out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_orchestrator.accounting import account_of_hit
from farthing_orchestrator.admission import Admissions
from farthing_orchestrator.aside import Aside, AsideLimits
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.flights import FlightLeads
from farthing_orchestrator.fresh_answers import MONEY_SHORT_SHARE, FreshAnswers
from farthing_orchestrator.holds import Wish, sizing_of
from farthing_orchestrator.journey import Completed, Journey
from farthing_orchestrator.lookups import Lookup, LookupTerms
from farthing_orchestrator.outlet import Outlet
from farthing_orchestrator.pacing import Paces
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Checked, Peers, PeerUnavailable, Refused
from farthing_orchestrator.purchases import Purchases
from farthing_orchestrator.request import Ask, Line, Piece, StepName
from farthing_orchestrator.reserving import Reservations
from farthing_orchestrator.settlements import Settlements
from farthing_orchestrator.shadows import Shadows
from farthing_orchestrator.wanting import wanted

_FINISH_SLACK_S = 60
_NOT_ALLOWED = "the policy does not allow it"


class Pipeline:
    """Answers requests by a policy over its peers."""

    def __init__(self, *, peers: Peers, policy: Policy, clock: Clock, deferred: Deferred, beside: AsideLimits) -> None:
        self._peers = peers
        self._policy = policy
        self._clock = clock
        self._deferred = deferred
        self._admissions = Admissions(ledger=peers.ledger, policy=policy, deferred=deferred)
        self._paces = Paces()
        self._reservations = Reservations(peers=peers, policy=policy, deferred=deferred, paces=self._paces)
        settlements = Settlements(peers=peers, deferred=deferred, reservations=self._reservations)
        aside = Aside(deferred=deferred, limits=beside)
        shadows = Shadows(models=peers.models, reservations=self._reservations, settlements=settlements, aside=aside)
        self._flights = FlightLeads(answers=peers.answers, deferred=deferred, single_flight=policy.cache.single_flight)
        self._purchases = Purchases(
            peers=peers, policy=policy, deferred=deferred, settlements=settlements, shadows=shadows, flights=self._flights
        )
        self._fresh = FreshAnswers(
            peers=peers,
            reservations=self._reservations,
            settlements=settlements,
            deferred=deferred,
            aside=aside,
            prepare=self._shape_and_plan,
        )

    async def complete(self, ask: Ask, *, time_left_s: float | None) -> Completed:
        """Answers a request.

        Once a model is called the rest runs to its end even when the caller goes away: what was bought is settled and remembered.
        """
        journey = self._journey(ask, time_left_s)
        async with self._admissions.admitted(journey, ttl_s=_ttl_s(journey)), self._flights.led(journey):
            await self._prepare(journey)
            if journey.lookup is not None and journey.lookup.hit:
                return await self._serve_hit(journey, journey.lookup)
            outlet = Outlet()
            purchase = self._set_off(journey, outlet, streamed=False)
            try:
                return await asyncio.shield(purchase)
            finally:
                outlet.leave()

    async def stream(self, ask: Ask, *, time_left_s: float | None) -> AsyncGenerator[Piece | Completed, None]:
        """Answers a request piece by piece; the last item is the whole with its receipt.

        A caller who goes away ends the providers' calls, or leaves them to end by themselves, as the policy says; what was delivered is
        settled. Raises BudgetCut after the pieces that could be paid for.
        """
        journey = self._journey(ask, time_left_s)
        async with self._admissions.admitted(journey, ttl_s=_ttl_s(journey)), self._flights.led(journey):
            await self._prepare(journey)
            if journey.lookup is not None and journey.lookup.hit:
                yield await self._serve_hit(journey, journey.lookup)
                return
            outlet = Outlet()
            purchase = self._set_off(journey, outlet, streamed=True)
            try:
                async with aclosing(outlet.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
                yield await asyncio.shield(purchase)
            finally:
                outlet.leave()

    async def estimate(self, ask: Ask, *, time_left_s: float | None) -> tuple[Journey, Checked | None]:
        """What would happen: the journey up to the plan, and the ledger's verdict; None on a hit."""
        journey = self._journey(ask, time_left_s)
        journey.dry_run = True
        await self._prepare(journey)
        if journey.planned is None:
            return journey, None
        wish = Wish(journey.ask, journey.planned, journey.critical, sizing_of(journey.planned))
        checked = await self._peers.ledger.check(wish)
        journey.left = checked.left
        return journey, checked

    def _set_off(self, journey: Journey, outlet: Outlet, *, streamed: bool) -> asyncio.Task[Completed]:
        """Starts a purchase that outlives its caller."""
        journey.handed_on = True
        purchase = self._deferred.adopt(self._purchase(journey, outlet, streamed=streamed))
        purchase.add_done_callback(lambda _: outlet.end())
        return purchase

    async def _purchase(self, journey: Journey, outlet: Outlet, *, streamed: bool) -> Completed:
        try:
            await self._reservations.reserve(journey, streamed=streamed)
            if outlet.left:
                await self._reservations.release(journey)
                raise asyncio.CancelledError
            if streamed or journey.paid_tokens is not None:
                return await self._purchases.follow(journey, outlet if streamed else None)
            return await self._purchases.buy(journey)
        finally:
            await self._flights.finish(journey)
            await self._admissions.finish(journey)

    def _journey(self, ask: Ask, time_left_s: float | None) -> Journey:
        """Raises FieldInvalid for an override that the policy does not allow."""
        task, privacy, budget = self._policy.task(ask.task), self._policy.privacy, self._policy.budget
        if ask.overrides.skip_masking and not privacy.may_skip_masking:
            raise FieldInvalid(field="overrides.skip_masking", problem=f"{_NOT_ALLOWED} (privacy.may_skip_masking)")
        if ask.overrides.critical and not budget.may_mark_critical:
            raise FieldInvalid(field="overrides.critical", problem=f"{_NOT_ALLOWED} (budget.may_mark_critical)")
        began_s = self._clock.monotonic_s()
        seconds = task.timeout_s if time_left_s is None else min(task.timeout_s, time_left_s)
        wants = wanted(self._policy.routing, ask.overrides, model=ask.model)
        journey = Journey(ask, self._policy, task, self._clock, began_s + seconds, began_s, wants)
        journey.pace = self._paces.of(ask.scope, self._clock.now())
        return journey

    async def _prepare(self, journey: Journey) -> None:
        await self._mask(journey)
        await self._look_up(journey)
        if journey.lookup is None or not journey.lookup.hit:
            await self._shape_and_plan(journey)

    async def _shape_and_plan(self, journey: Journey) -> None:
        await self._shape(journey)
        await self._plan(journey)

    async def _mask(self, journey: Journey) -> None:
        privacy = self._policy.privacy
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
                journey.lookup = await self._flights.look_up(journey, self._terms(journey, mode))
            except PeerUnavailable as error:
                return note.unavailable(error.message)
            note.text = f"{journey.lookup.outcome}: {journey.lookup.reason}"
        return None

    def _terms(self, journey: Journey, mode: str) -> LookupTerms:
        """How far the cache may go. Only whoever will buy the answer may have its hit checked, and only while there is money."""
        cache, overrides = self._policy.cache, journey.ask.overrides
        budgets = [each for each in (cache.error_budget_ppm, overrides.cache_error_budget_ppm) if each]
        short = journey.pace is not None and journey.pace.used_share >= MONEY_SHORT_SHARE
        return LookupTerms(
            mode=mode,
            error_budget_ppm=min(budgets, default=0),
            age_s_max=overrides.cache_age_s_max,
            allow_check=cache.checks and not short and not journey.dry_run,
            dry_run=journey.dry_run,
        )

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
            try:
                planned = await self._peers.models.plan(journey.route_wish())
            except Refused as refused:
                fits = journey.ask.overrides.fit_context or self._policy.prompt.fit_context
                if refused.reason != "CONTEXT_TOO_LONG" or not fits:
                    raise
                await self._fit(journey, refused)
                planned = await self._peers.models.plan(journey.route_wish())
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

    async def _serve_hit(self, journey: Journey, lookup: Lookup) -> Completed:
        model, price = await self._peers.models.price(self._policy.baseline_model or "", journey.ask.scope)
        account = account_of_hit(
            price, baseline_model=model, input_tokens=lookup.input_tokens, output_tokens=lookup.output_tokens
        )
        line = Line(lookup.model, "cache", "", lookup.input_tokens, 0, lookup.output_tokens, 0, f"cache_{lookup.outcome}")
        ask, usage = journey.ask, journey.usage(account, (line,))
        journey.defer(StepName.SETTLE, "written down as a hit")
        await self._deferred.run(
            "record hit", lambda: self._peers.ledger.record(ask.request_id, ask.scope, usage), request_id=ask.request_id
        )
        journey.checked = lookup.check and self._fresh.check(journey, lookup)
        unmasker = journey.unmasker()
        return Completed(lookup.answer, lookup.model, lookup.usage, "", unmasker, journey.receipt(account, None))


def _ttl_s(journey: Journey) -> int:
    return int(journey.time_left_s()) + _FINISH_SLACK_S
