"""Looking for somebody who answers for one candidate of a route: whom to ask next, how long to wait before, and when to give up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from farthing_core.clock import Clock

from farthing_router.catalog import Model
from farthing_router.deployments.balancing import Balancer, Resting
from farthing_router.deployments.places import Place
from farthing_router.routing.errands import Errand
from farthing_router.routing.routes import Candidate
from farthing_router.upstreams import FailureKind, UpstreamFailed

TIME_KEPT_S = 0.05
_BACKOFF_S = 0.2
_BACKOFF_S_MAX = 8.0
_LOOK_S, _LOOK_S_MAX = 0.025, 1.0
_PATIENCE_S = 2.0
"""How long somebody is waited for where another model could be asked instead."""
_PATIENCE_BROKEN_S = 5.0
"""How long a caller waits in all for deployments that fail too often: they may not be back for long, and callers must not pile up."""

Sleep = Callable[[float], Awaitable[None]]


class Quest:
    """One candidate's deployments: who was asked, who may be asked again."""

    def __init__(self, errand: Errand, candidate: Candidate, model: Model, places: Sequence[Place]) -> None:
        self.errand = errand
        self.candidate = candidate
        self.model = model
        self.tokens = candidate.input_tokens + candidate.output_tokens_max
        self.session = errand.session or (errand.scope if "/users/" in errand.scope else "")
        self.fresh = [each for each in places if each.deployment.context_window_tokens > errand.window_tokens_too_small]
        self.again: list[Place] = []
        self.rounds = 0
        self.waits = 0
        self.waited_s = 0.0
        self.backs_off = False
        self._tries: dict[str, int] = {}

    def begins(self, place: Place) -> None:
        """A place is asked."""
        self._tries[place.deployment.name] = self._tries.get(place.deployment.name, 0) + 1
        for group in (self.fresh, self.again):
            if place in group:
                group.remove(place)

    def failed(self, place: Place, error: UpstreamFailed) -> None:
        """It did not answer: asking it again may help, or others can do better, or nobody of this model can."""
        if error.kind is FailureKind.CONTEXT_TOO_LONG:
            too_small = max(self.errand.window_tokens_too_small, place.deployment.context_window_tokens)
            self.errand.window_tokens_too_small = too_small
            for group in (self.fresh, self.again):
                group[:] = [each for each in group if each.deployment.context_window_tokens > too_small]
        elif error.kind is FailureKind.CONTENT_FILTER:
            self.fresh.clear()
            self.again.clear()
        elif error.retryable and self._tries[place.deployment.name] <= place.deployment.retries:
            self.again.append(place)
            self.backs_off = True

    @property
    def others(self) -> bool:
        """Whether the route has another model that was not asked yet."""
        errand = self.errand
        asked = {
            self.candidate.model,
            *(each.model for each in errand.failures),
            *(each.candidate.model for each in errand.bought),
        }
        return any(each.model not in asked for each in errand.route.candidates)


class Seeker:
    """Finds the next deployment to ask, within the calls, the cost and the time that an errand may take."""

    def __init__(self, balancer: Balancer, *, clock: Clock, rng: Random, sleep: Sleep = asyncio.sleep) -> None:
        self._balancer = balancer
        self._clock = clock
        self._rng = rng
        self._sleep = sleep

    def may_call(self, errand: Errand, candidate: Candidate) -> bool:
        """Whether the errand's calls, cost and time allow another call."""
        if why := errand.too_dear(candidate):
            errand.note(f"{candidate.model}: {why}")
            return False
        if errand.calls_left <= 0:
            errand.note("no call is left")
            return False
        return self.left_s(errand) > 0

    def left_s(self, errand: Errand) -> float:
        """How long a call may take."""
        return errand.ends_at_s - self._clock.monotonic_s() - TIME_KEPT_S

    async def next(self, quest: Quest) -> Place | None:
        """Whom to ask next, once it takes calls; None where nobody is left, or nobody takes a call soon enough."""
        errand = quest.errand
        while self.may_call(errand, quest.candidate):
            if quest.backs_off and not quest.fresh:
                if not await self._backed_off(quest):
                    return None
                continue  # others of the same errand may have used up its calls meanwhile
            found = self._choose(quest)
            if isinstance(found, Place):
                return found
            if found is None:
                return None
            wait_s = found.until_s - self._clock.monotonic_s()
            if wait_s > _PATIENCE_S and found.foreseen is not None and not quest.others:
                return found.foreseen  # it would likely refuse; but nobody else is there, and it has not refused yet
            errand.note(f"{quest.candidate.model}: {found.why}")
            if wait_s >= self._patience_s(quest, found):
                return None
            pause_s = self._wait_s(quest, wait_s)
            quest.waited_s += pause_s
            await self._sleep(pause_s)
        return None

    def hedge(self, quest: Quest) -> Place | None:
        """Whom to ask beside the one that takes too long; None where the model, its share of hedges, or the errand allow nobody."""
        now_s = self._clock.monotonic_s()
        if not self.may_call(quest.errand, quest.candidate):
            return None
        found = self._balancer.choose(quest.fresh, now_s, tokens=quest.tokens) if quest.fresh else None
        if not isinstance(found, Place) or not self._balancer.hedges[quest.model.name].take(now_s):
            return None
        return found

    def _choose(self, quest: Quest) -> Place | Resting | None:
        """Who was not asked yet, else who may be asked again. Retries are a bounded share of what a deployment is asked."""
        now_s, resting = self._clock.monotonic_s(), None
        for group in (quest.fresh, quest.again):
            while group:
                found = self._balancer.choose(group, now_s, tokens=quest.tokens, session=quest.session)
                if isinstance(found, Resting):
                    resting = found if resting is None or found.until_s < resting.until_s else resting
                    break
                if group is quest.fresh or found.retries.take(now_s):
                    return found
                quest.errand.note(f"{found.deployment.name}: too many retries already")
                group.remove(found)
        return resting

    def _patience_s(self, quest: Quest, found: Resting) -> float:
        """How much longer somebody may be waited for."""
        left_s = self.left_s(quest.errand)
        if found.broken:
            left_s = min(left_s, _PATIENCE_BROKEN_S - quest.waited_s)
        return min(_PATIENCE_S, left_s) if quest.others else left_s

    def _wait_s(self, quest: Quest, wait_s: float) -> float:
        """Callers who wait for the same moment come one by one; nobody knows when a probe ends, so it is looked rarely."""
        quest.waits += 1
        least_s = min(_LOOK_S_MAX, _LOOK_S * 2.0 ** min(quest.waits, 10))
        spread_s = self._rng.uniform(0.0, min(_LOOK_S_MAX, max(wait_s, least_s) / 4))
        return min(max(wait_s, least_s) + spread_s, max(wait_s, self.left_s(quest.errand)))

    async def _backed_off(self, quest: Quest) -> bool:
        """Waits before asking again, by chance so that callers do not come back together; False where there is no time for it."""
        most_s = min(_BACKOFF_S_MAX, _BACKOFF_S * 2**quest.rounds)
        wait_s = self._rng.uniform(0.0, most_s)
        quest.rounds, quest.backs_off = quest.rounds + 1, False
        if wait_s >= self.left_s(quest.errand):
            return False
        await self._sleep(wait_s)
        return True
