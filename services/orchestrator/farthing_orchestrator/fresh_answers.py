"""Fresh answers beside served hits: a hit by meaning that was chosen for a check is compared with what a model says now."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from farthing_core.errors import FarthingError

from farthing_orchestrator.aside import Aside
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.lookups import Lookup
from farthing_orchestrator.ports import Peers, PeerUnavailable, Refused
from farthing_orchestrator.request import Generated, Step, StepName, StepOutcome
from farthing_orchestrator.reserving import Reservations
from farthing_orchestrator.settlements import Settlements

MONEY_SHORT_SHARE = 0.9
"""From this used share of a budget's limit on, nothing is bought that nobody waits for."""
_log = structlog.get_logger()


class FreshAnswers:
    """Buys fresh answers to questions whose hits are checked. Each has its own request_id and its own hold on the scope of the request;
    where the ledger says anything but yes it is not bought, and what is too much at once is dropped and counted.

    `prepare` shortens a journey's conversation and plans its route.
    """

    def __init__(
        self,
        *,
        peers: Peers,
        reservations: Reservations,
        settlements: Settlements,
        deferred: Deferred,
        aside: Aside,
        prepare: Callable[[Journey], Awaitable[None]],
    ) -> None:
        self._peers = peers
        self._reservations = reservations
        self._settlements = settlements
        self._deferred = deferred
        self._aside = aside
        self._prepare = prepare

    def check(self, journey: Journey, lookup: Lookup) -> bool:
        """Buys a fresh answer to compare a served hit with, and notes it in the receipt. Returns at once; False where there is no room."""
        beside = _journey_of(journey)
        started = self._aside.begin(lambda: self._compare(beside, lookup.hit_id))
        text = "check: a fresh answer is bought to compare the hit with" if started else "check: dropped, too much is under way"
        outcome = StepOutcome.DEFERRED if started else StepOutcome.SKIPPED
        journey.steps.append(Step(StepName.SHADOW, outcome, text, 0))
        return started

    async def _compare(self, journey: Journey, hit_id: str) -> None:
        journey.began_s = journey.clock.monotonic_s()
        journey.ends_at_s = journey.began_s + journey.task.timeout_s
        try:
            await self._prepare(journey)
        except (PeerUnavailable, Refused) as error:
            _log.info("a check was not planned", request_id=journey.ask.request_id, error=type(error).__name__)
            return None
        if not await self._reservations.reserve_shadow(journey):
            return None
        fresh = await self._buy(journey)
        if fresh is None or not fresh.storable:
            return None
        request_id, scope = journey.ask.request_id, journey.ask.scope

        async def report() -> None:
            await self._peers.answers.report_check(request_id, scope, hit_id, fresh)

        await self._deferred.run("check a hit", report, request_id=request_id, may_fail=True)

    async def _buy(self, journey: Journey) -> Generated | None:
        assert journey.planned is not None
        try:
            fresh = await self._peers.models.generate(journey.ask, journey.planned, timeout_s=journey.time_left_s())
        except BaseException as error:
            await self._settlements.end_without_answer(journey, error)
            if not isinstance(error, FarthingError):
                raise
            _log.info("a check brought no answer", request_id=journey.ask.request_id, error=type(error).__name__)
            return None
        account = await self._settlements.account(journey, fresh)
        await self._settlements.settle(journey, account, fresh.lines)
        return fresh


def _journey_of(journey: Journey) -> Journey:
    """The purchase as a request of its own: masked as the one whose hit is checked. Its time begins with its turn."""
    assert journey.cache_ask is not None
    ask = journey.cache_ask
    return Journey(
        ask=replace(ask, request_id=check_id(ask.request_id), shadow_of=ask.request_id),
        policy=journey.policy,
        task=journey.task,
        clock=journey.clock,
        ends_at_s=0.0,
        began_s=0.0,
        wanted=journey.wanted,
        pace=journey.pace,
    )


def check_id(request_id: str) -> str:
    """The request_id under which the fresh answer of a request's check is bought, the same whoever asks."""
    return str(uuid.uuid5(uuid.UUID(request_id), "check"))
