"""Shadows: routes that are followed beside a served answer for comparison only. Nobody hears them, nothing remembers them, all of them are
charged.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

import structlog
from farthing_core.errors import FarthingError

from farthing_orchestrator.aside import Aside
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.ports import Models
from farthing_orchestrator.request import Generated, PlannedShadow, Step, StepName, StepOutcome
from farthing_orchestrator.reserving import Reservations
from farthing_orchestrator.settlements import Settlements

_log = structlog.get_logger()


class Shadows:
    """Follows shadows beside the answers that they are compared with; what is too much is dropped and counted.

    A shadow has its own request_id and its own hold on the scope of the request. It is no critical work: where the ledger says anything but
    yes it is not bought, and it never stands in for a dearer one.
    """

    def __init__(
        self,
        *,
        models: Models,
        reservations: Reservations,
        settlements: Settlements,
        aside: Aside,
    ) -> None:
        self._models = models
        self._reservations = reservations
        self._settlements = settlements
        self._aside = aside

    def start(self, journey: Journey, served: Generated) -> None:
        """Starts the shadows of a request whose answer is settled, and notes it in its receipt. Returns at once."""
        shadows = journey.planned.shadows if journey.planned is not None else ()
        if not shadows:
            return
        if journey.objection is not None or not journey.reserved:
            # Without money for the answer that was asked for, or anybody who knows, there is none for others.
            return journey.skip(StepName.SHADOW, "none without a hold that was simply granted")
        journeys = [_journey_of(journey, served, shadow, number) for number, shadow in enumerate(shadows)]
        started = [shadow for shadow, beside in zip(shadows, journeys, strict=True) if self._begin(beside)]
        self._note(journey, started, len(shadows) - len(started))

    def _begin(self, journey: Journey) -> bool:
        return self._aside.begin(lambda: self._follow(journey))

    def _note(self, journey: Journey, started: list[PlannedShadow], dropped: int) -> None:
        if dropped:
            _log.warning("shadows were dropped: too many are under way", dropped_in_all=self._aside.dropped)
        texts = [f"{shadow.cause}: {' → '.join(shadow.planned.models)}" for shadow in started]
        texts += [f"{dropped} dropped"] if dropped else []
        journey.steps.append(
            Step(StepName.SHADOW, StepOutcome.DEFERRED if started else StepOutcome.SKIPPED, "; ".join(texts), 0)
        )

    async def _follow(self, journey: Journey) -> None:
        journey.began_s = journey.clock.monotonic_s()
        journey.ends_at_s = journey.began_s + journey.task.timeout_s
        if await self._reservations.reserve_shadow(journey):
            await self._buy(journey)

    async def _buy(self, journey: Journey) -> None:
        assert journey.planned is not None
        try:
            generated = await self._models.generate(journey.ask, journey.planned, timeout_s=journey.time_left_s())
        except BaseException as error:
            await self._settlements.end_without_answer(journey, error)
            if not isinstance(error, FarthingError):
                raise
            _log.info("a shadow brought no answer", request_id=journey.ask.request_id, error=type(error).__name__)
            return
        account = await self._settlements.account(journey, generated)
        await self._settlements.settle(journey, account, generated.lines)


def _journey_of(journey: Journey, served: Generated, shadow: PlannedShadow, number: int) -> Journey:
    """A shadow as a request: masked and shortened as the one that it is compared with. Its time begins with its turn."""
    ask, planned = journey.ask, journey.planned
    assert planned is not None
    return Journey(
        ask=replace(ask, request_id=shadow_id(ask.request_id, number), shadow_of=ask.request_id, served=served),
        policy=journey.policy,
        task=journey.task,
        clock=journey.clock,
        ends_at_s=0.0,
        began_s=0.0,
        shaped=journey.shaped,
        planned=replace(shadow.planned, embedding=planned.embedding),
    )


def shadow_id(request_id: str, number: int) -> str:
    """The request_id of a request's shadow, the same whoever asks."""
    return str(uuid.uuid5(uuid.UUID(request_id), f"shadow/{number}"))
