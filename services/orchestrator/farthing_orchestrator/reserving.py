"""Setting money aside before models are called, and what is done where it is not there."""

from __future__ import annotations

import structlog

from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.holds import Wish, paid_tokens, sizing_of
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.pacing import Paces
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Peers, PeerUnavailable, Refused, RequestIdReused
from farthing_orchestrator.request import StepName

_SETTLE_SLACK_S = 60
_log = structlog.get_logger()


class Reservations:
    """Makes holds and gives them back.

    Holds are made as dispatched: whoever is left without an end counts as spent, for the provider is called at once. So what is known never
    to have reached a provider is released.
    """

    def __init__(self, *, peers: Peers, policy: Policy, deferred: Deferred, paces: Paces) -> None:
        self._peers = peers
        self._paces = paces
        self._policy = policy
        self._deferred = deferred

    async def reserve(self, journey: Journey, *, streamed: bool) -> None:
        """Sets aside what the route may cost. A streamed answer is held bin by bin; a plain one as a whole, and bin by bin where that is
        too much. Raises Refused, RequestIdReused, and PeerUnavailable where the policy lets nothing pass without a hold.
        """
        with journey.step(StepName.RESERVE) as note:
            try:
                refused = await self._take(journey, streamed=streamed)
                if refused is not None:
                    await self._degrade(journey, refused, streamed=streamed)
            except RequestIdReused:
                journey.limited = False  # the admission belongs to the request that came first
                raise
            except PeerUnavailable as error:
                journey.reserved = None if error.may_have_acted else False
                if self._policy.budget.unreachable == "fail_closed":
                    await self.release(journey)
                    raise
                return note.unavailable(error.message)
            note.text = _note_of(journey)
        return None

    async def reserve_shadow(self, journey: Journey) -> bool:
        """Sets aside all that a shadow may cost. False where anything speaks against it, or nobody knows: then it is not bought."""
        assert journey.planned is not None
        try:
            return await self._try(journey, Wish(journey.ask, journey.planned, critical=False)) is None
        except RequestIdReused:
            return False
        except PeerUnavailable as error:
            journey.reserved = None if error.may_have_acted else False
            await self.release(journey)
            return False

    async def release(self, journey: Journey) -> None:
        """Gives a hold back, or what may have become one."""
        if journey.reserved is False:
            return
        ledger, request_id, scope = self._peers.ledger, journey.ask.request_id, journey.ask.scope
        # What may never have been made is not waited for: while the ledger is away, requests are refused and shall not pile up.
        may_fail = journey.reserved is None
        await self._deferred.run("release", lambda: ledger.release(request_id, scope), request_id=request_id, may_fail=may_fail)

    def leave_in_suspense(self, journey: Journey) -> None:
        """A provider was called and nobody knows what it bills: the hold lapses into suspense and counts as spent until somebody does."""
        journey.tokens_used = None
        if journey.reserved is not False:
            _log.warning("a call was lost; its hold counts as spent until it is settled", request_id=journey.ask.request_id)

    async def _take(self, journey: Journey, *, streamed: bool) -> Refused | None:
        """Holds the whole or, where it streams or has no room for that, a part. What the ledger said where neither was granted."""
        assert journey.planned is not None
        sizing = sizing_of(journey.planned)
        whole = Wish(journey.ask, journey.planned, journey.critical)
        sized = Wish(journey.ask, journey.planned, journey.critical, sizing)
        if streamed:
            return await self._try(journey, sized)
        refused = await self._try(journey, whole)
        if refused is None or sizing is None or not _has_room(refused, sizing.input_usd_nanos):
            return refused
        return await self._try(journey, sized)

    async def _try(self, journey: Journey, wish: Wish) -> Refused | None:
        ttl_s = int(journey.time_left_s()) + _SETTLE_SLACK_S
        try:
            held = await self._peers.ledger.reserve(wish, ttl_s=ttl_s)
        except Refused as refused:
            if refused.reason == "REQUEST_ID_REUSED":
                raise RequestIdReused(request_id=journey.ask.request_id) from refused
            return refused
        journey.reserved, journey.left = True, held.left
        self._paces.learn(journey.ask.scope, held.left)
        journey.paid_tokens = paid_tokens(held, wish.sizing)
        return None

    async def _degrade(self, journey: Journey, refused: Refused, *, streamed: bool) -> None:
        """Goes on with open models where the ledger says so, or where the policy does for work of this kind; else raises what was said."""
        by_policy = refused.reason == "BUDGET_EXHAUSTED" and self._policy.budget.on_exhaustion == "degrade"
        by_policy = by_policy and journey.task.critical is False and not journey.critical
        if journey.ask.open_models_only or not (refused.reason == "BUDGET_DEGRADED" or by_policy):
            raise refused
        journey.with_ask(open_models_only=True)
        try:
            journey.planned = await self._peers.models.plan(journey.route_wish())
        except Refused:
            raise refused from None
        if await self._take(journey, streamed=streamed) is not None:
            raise refused
        journey.objection = refused


def _has_room(refused: Refused, input_usd_nanos: int) -> bool:
    """Whether a smaller hold may fit where the whole did not: only room is missing, and there is some beyond the prompt."""
    facts = refused.facts
    if refused.reason != "BUDGET_EXHAUSTED" or facts.get("unit") == "requests":
        return False
    return facts.get("unit") != "nanodollars" or int(facts.get("free", "0")) > input_usd_nanos


def _note_of(journey: Journey) -> str:
    assert journey.planned is not None
    text = f"{journey.planned.worst_case_usd_nanos} nanos held"
    if journey.paid_tokens is not None:
        text = f"{journey.paid_tokens} tokens of the answer held, more as it comes"
    if journey.objection is not None:
        text = f"{journey.objection.facts.get('cause', '').lower().replace('_', ' ')}: open models only, {text}"
    return text
