"""Experiments under way: who takes part, what comes of it, and what follows from that, on every replica alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from farthing_core.clock import Clock
from farthing_runtime.beside import beside
from farthing_runtime.refreshing import Watched, watching

from farthing_router.experiments.observing import Counts
from farthing_router.experiments.ports import Decided, ExperimentStore, Key, Scorer
from farthing_router.experiments.sharing import place_of, serving_arm, shadowing_arms
from farthing_router.experiments.terms import Experiment, Standing
from farthing_router.experiments.verdicts import Tallies, verdict
from farthing_router.routing.ports import Assignment
from farthing_router.routing.routes import Route, Wish

_NEWS = 1.01
_KEPT = timedelta(days=400)
_FORGET_EVERY_S = 3_600.0
_FORGET_ROWS = 1_000
_log = structlog.get_logger()


class Trials:
    """The running experiments of all organisations, in memory.

    What is seen is kept every interval; whoever has kept something looks at what all have seen, and changes the experiment where that is
    enough: once, whoever comes first. The others learn of it within an interval.
    """

    def __init__(
        self,
        store: ExperimentStore,
        *,
        clock: Clock,
        replica_id: str,
        decided: Decided,
    ) -> None:
        self._store = store
        self._clock = clock
        self._replica_id = replica_id
        self._decided = decided
        self.scorer: Scorer | None = None
        self._running: dict[str, dict[str, Experiment]] = {}
        self._looked_at: dict[Key, int] = {}
        self.watched = Watched("experiments", after=store.after, take=self._take)
        self.counts = Counts(find=self.find, clock=clock)

    def find(self, organization: str, experiment_id: str) -> Experiment | None:
        """A running experiment."""
        return self._running.get(organization, {}).get(experiment_id)

    def heard(self, organization: str, request_id: str, model: str, quality: float) -> None:
        """Somebody, or something, says how good an answer was."""
        if organization in self._running:
            self.counts.heard(organization, request_id, quality)

    def assign(self, wish: Wish) -> Assignment | None:
        """The arm that serves a request; None where it takes no part."""
        experiment = self._of(wish)
        number = serving_arm(experiment, place_of(experiment, wish)) if experiment is not None else None
        if experiment is None or number is None:
            return None
        return _assignment(experiment, number)

    def shadows(self, wish: Wish, route: Route) -> Sequence[Assignment]:
        """The arms that are asked beside a route."""
        experiment = self._of(wish) if route.experiment_id else None
        if experiment is None or experiment.experiment_id != route.experiment_id:
            return ()
        return [_assignment(experiment, number) for number in shadowing_arms(experiment, place_of(experiment, wish))]

    @asynccontextmanager
    async def running(self, *, interval_s: float) -> AsyncIterator[None]:
        """Takes part until the block ends; what was seen then is kept first. Raises StoreUnavailable where the database is out of reach
        at the start.
        """

        async def look() -> None:
            while True:
                await asyncio.sleep(interval_s)
                await self._quietly()

        async with watching(self.watched, interval_s=interval_s), beside(look(), self._forgetting()):
            yield
        await self._quietly()

    async def look(self) -> None:
        """Keeps what was seen, and draws the consequences. Raises StoreUnavailable."""
        await self._resolve()
        if self.scorer is not None:
            await self.counts.score_pairs(self.scorer)
        kept = self.counts.changed()
        try:
            await self._store.keep(self._replica_id, kept)
        except BaseException:
            self.counts.again(kept)
            raise
        self.counts.forget()
        over = self._over()
        keys = {(each.organization, each.experiment_id) for each in kept} | over
        if not keys:
            return
        tallies = await self._store.tallies(keys)
        for key in sorted(keys):
            experiment, seen = self.find(*key), tallies.get(key, {})
            if experiment is not None and (key in over or self._is_news(key, seen)):
                # Intervals take milliseconds of arithmetic: too long for the event loop.
                standing = await asyncio.to_thread(verdict, experiment, seen, now=self._clock.now())
                if standing is not None:
                    await self._change(experiment, standing)

    def _is_news(self, key: Key, tallies: Tallies) -> bool:
        """Whether enough has come since the last look to look again: that costs arithmetic, and a hundredth more changes nothing."""
        values = sum(each.requests + each.scores + each.pairs for each in tallies.values())
        if values < self._looked_at.get(key, 0) * _NEWS:
            return False
        self._looked_at[key] = values
        return True

    async def _forgetting(self) -> None:
        while True:
            try:
                await self._store.forget(before=self._clock.now() - _KEPT, rows_max=_FORGET_ROWS)
            except Exception as error:  # whatever it is, the next turn must come
                _log.warning("old experiments could not be deleted", error=type(error).__name__)
            await asyncio.sleep(_FORGET_EVERY_S)

    async def _change(self, experiment: Experiment, standing: Standing) -> None:
        changed = await self._store.change(experiment.key, standing, version=experiment.standing.version)
        if changed is not None:
            _log.info(
                "an experiment changed",
                organization=experiment.organization,
                experiment_id=experiment.experiment_id,
                state=changed.standing.state.name,
                step=changed.standing.step,
                reason=changed.standing.reason,
            )
        await self.watched.refresh()

    async def _resolve(self) -> None:
        """Qualities of answers that this replica does not remember belong to whoever the decisions say."""
        by_organization: dict[str, dict[str, float]] = {}
        while self.counts.unknown:
            organization, request_id, quality = self.counts.unknown.popleft()
            if organization in self._running:  # still
                by_organization.setdefault(organization, {})[request_id] = quality
        for organization, qualities in by_organization.items():
            arms = await self._decided.arms_of(organization, list(qualities))
            for request_id, (experiment_id, arm) in arms.items():
                experiment = self.find(organization, experiment_id)
                if experiment is not None and request_id in qualities:
                    self.counts.found(experiment, arm, qualities[request_id])

    async def _quietly(self) -> None:
        try:
            await self.look()
        except Exception as error:  # whatever it is, the next turn must come
            _log.warning(
                "experiments could not be looked at; what was seen is kept for the next time", error=type(error).__name__
            )

    def _over(self) -> set[Key]:
        """Running experiments whose time is over."""
        now = self._clock.now()
        everything = (each for of_one in self._running.values() for each in of_one.values())
        return {each.key for each in everything if each.end_at is not None and each.end_at <= now}

    def _of(self, wish: Wish) -> Experiment | None:
        if not wish.scope or not wish.request_id:
            return None
        for experiment in self._running.get(wish.scope.split("/", 2)[1], {}).values():
            if experiment.covers(wish.scope, wish.task):
                over = experiment.end_at is not None and experiment.end_at <= self._clock.now()
                return None if over else experiment
        return None

    def _take(self, experiment: Experiment) -> None:
        organization, experiment_id = experiment.key
        if experiment.running:
            self._running.setdefault(organization, {})[experiment_id] = experiment
            return
        self._looked_at.pop(experiment.key, None)
        others = {name: each for name, each in self._running.pop(organization, {}).items() if name != experiment_id}
        if others:
            self._running[organization] = others


def _assignment(experiment: Experiment, number: int) -> Assignment:
    arm = experiment.arms[number]
    return Assignment(experiment.experiment_id, arm.name, arm.model, arm.calibration_id, arm.action, on_trial=number > 0)
