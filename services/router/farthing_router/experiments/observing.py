"""What came of requests in experiments, counted where they end. Called on the hot path: it adds a few numbers and returns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from farthing_core.clock import Clock

from farthing_router.experiments.ports import KeptTally, Key, Scorer
from farthing_router.experiments.tallies import Outcome, Tally
from farthing_router.experiments.terms import Experiment
from farthing_router.routing.errands import Errand, Finished

_REMEMBERED_MAX = 20_000
_UNKNOWN_MAX = 2_000
_UNSCORED_MAX = 500
_Place = tuple[Key, int, str]
"""An experiment, a step of it, and an arm."""
_Find = Callable[[str, str], Experiment | None]


@dataclass(slots=True)
class _Scored:
    """What is known of the quality of a request's answer."""

    place: _Place
    score: float | None = None
    guess: int = 0


class Counts:
    """The sums of this replica, and the requests that they were made of, as far as anybody may still say how good their answers were."""

    def __init__(self, *, find: _Find, clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._tallies: dict[_Place, Tally] = {}
        self._changed: set[_Place] = set()
        self._requests: OrderedDict[tuple[str, str], _Scored] = OrderedDict()
        self._unscored: deque[tuple[Errand, Finished, _Place]] = deque(maxlen=_UNSCORED_MAX)
        self.unknown: deque[tuple[str, str, float]] = deque(maxlen=_UNKNOWN_MAX)

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """A route came to its end."""
        if not errand.route.experiment_id:
            return
        organization = errand.scope.split("/", 2)[1]
        experiment = self._find(organization, errand.route.experiment_id)
        if experiment is None or all(arm.name != errand.route.arm for arm in experiment.arms):
            return
        gone = isinstance(error, asyncio.CancelledError | GeneratorExit)
        if gone and self._clock.monotonic_s() < errand.ends_at_s:
            return  # the caller left: nobody knows what it would have come to
        outcome = _outcome(errand, finished, error)
        place = (experiment.key, experiment.standing.step, errand.route.arm)
        tally = self._tally(place)
        tally.take(outcome)
        if errand.shadow_of:
            if errand.served is not None and finished is not None:
                tally.take_pair(Outcome(False, errand.served.cost_usd_nanos, errand.served.upstream_us), outcome)
                self._unscored.append((errand, finished, place))
        elif finished is not None:
            self._remember((organization, errand.request_id.lower()), place)

    def heard(self, organization: str, request_id: str, quality: float) -> None:
        """How good an answer was; the last word counts."""
        scored = self._requests.get((organization, request_id.lower()))
        if scored is None:
            self.unknown.append((organization, request_id.lower(), quality))
            return
        tally = self._tally(scored.place)
        if scored.score is None:
            scored.guess = tally.take_score(quality)
        else:
            tally.correct_score(scored.score, quality, guess=scored.guess)
        scored.score = quality

    def found(self, experiment: Experiment, arm: str, quality: float) -> None:
        """The same of an answer that was given a while ago, or on another replica."""
        if any(each.name == arm for each in experiment.arms):
            self._tally((experiment.key, experiment.standing.step, arm)).take_score(quality)

    async def score_pairs(self, scorer: Scorer) -> None:
        """Judges the answers of pairs that were bought since, one after the other, so that requests have their turn."""
        while self._unscored:
            errand, finished, place = self._unscored.popleft()
            scores = scorer.scores(errand, finished)
            if scores is not None:
                self._tally(place).take_pair_score(*scores)
            await asyncio.sleep(0)

    def changed(self) -> list[KeptTally]:
        """What has changed since this was asked last."""
        changed, self._changed = self._changed, set()
        return [KeptTally(*key, step, arm, self._tallies[key, step, arm]) for key, step, arm in changed]

    def again(self, kept: list[KeptTally]) -> None:
        """What could not be kept is asked for again."""
        self._changed |= {((each.organization, each.experiment_id), each.step, each.arm) for each in kept}

    def forget(self) -> None:
        """Gives up the sums of experiments that have ended, once they are kept."""
        for place in [each for each in self._tallies if each not in self._changed and self._find(*each[0]) is None]:
            del self._tallies[place]

    def _tally(self, place: _Place) -> Tally:
        self._changed.add(place)
        return self._tallies.setdefault(place, Tally())

    def _remember(self, request: tuple[str, str], place: _Place) -> None:
        self._requests[request] = _Scored(place)
        if len(self._requests) > _REMEMBERED_MAX:
            self._requests.popitem(last=False)


def _outcome(errand: Errand, finished: Finished | None, error: BaseException | None) -> Outcome:
    if finished is not None and error is None:
        return Outcome(False, sum(each.cost_usd_nanos for each in finished.attempts), finished.upstream_us)
    attempts = finished.attempts if finished is not None else (*errand.failures, *(each.attempt for each in errand.bought))
    return Outcome(True, sum(each.cost_usd_nanos for each in attempts), None)
