"""What somebody thinks of an answer, taken in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from farthing_core.clock import Clock
from farthing_core.scopes import parse_scope

from farthing_router.learning.arms import Arms
from farthing_router.learning.fingerprints import fingerprint, likeness
from farthing_router.learning.outcomes import DecisionUnknown, Opinion, Outcome, OutcomeStore, Source
from farthing_router.learning.recording import QualityListener, Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An opinion as it was given: a score, 0 to 1, or what the answer should have been. `stamp` is the whole request, to know it again."""

    request_id: str
    scope: str
    answered_request_id: str
    source: Source
    stamp: bytes
    score: float | None = None
    correction: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is now thought of the answer, of which model, and of that model at the task."""

    quality: float
    model: str
    model_quality: float
    repeated: bool


class Feedback:
    """Takes in opinions. `listeners` hear what is now thought of an answer."""

    def __init__(
        self, *, store: OutcomeStore, recorder: Recorder, arms: Arms, clock: Clock, listeners: Sequence[QualityListener] = ()
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._arms = arms
        self._clock = clock
        self._listeners = listeners

    async def take(self, given: Given) -> Taken:
        """Takes an opinion in. Raises DecisionUnknown, RequestIdReused, StoreUnavailable."""
        scope, answered = parse_scope(given.scope), given.answered_request_id.lower().replace("\0", "")
        outcome = self._recorder.recent(scope.organization, answered)
        if outcome is not None:
            await self._recorder.flush()
        else:
            outcome = await self._store.find(scope.organization, answered)
        if outcome is None or not scope.contains(parse_scope(outcome.scope)):
            raise DecisionUnknown(answered_request_id=given.answered_request_id)
        judged = await self._store.judge(
            Opinion(
                request_id=given.request_id.lower(),
                organization=scope.organization,
                answered_request_id=answered,
                source=given.source,
                value=_value(given, outcome),
                fingerprint=sha256(given.stamp).digest(),
                recorded_at=self._clock.now(),
            )
        )
        self._arms.take(judged.arm)
        for listener in () if judged.repeated else self._listeners:
            listener(outcome.organization, outcome.request_id, outcome.model, judged.quality)
        belief = self._arms.belief(outcome.organization, outcome.task, outcome.model)
        return Taken(judged.quality, outcome.model, belief.expect(belief.usual)[0], judged.repeated)


def _value(given: Given, outcome: Outcome) -> float:
    """The opinion as a number; a correction says how good the answer was by how like it is."""
    if given.score is not None:
        return given.score
    return likeness(outcome.fingerprint, fingerprint(given.correction, key=outcome.request_id))
