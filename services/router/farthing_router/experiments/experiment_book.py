"""Experiments as their owners see them: begun, read, listed, ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope
from farthing_runtime.refreshing import Watched

from farthing_router.calibration.kept import CalibrationStore, CalibrationUnknown
from farthing_router.catalog import Catalog
from farthing_router.experiments.drafting import check_experiment, completed
from farthing_router.experiments.ports import ExperimentStore, Page
from farthing_router.experiments.terms import Experiment, ExperimentUnknown, State
from farthing_router.experiments.verdicts import ArmStanding, standings

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Report:
    """An experiment with how its arms do."""

    experiment: Experiment
    arms: tuple[ArmStanding, ...]


class ExperimentBook:
    """Begins, reads and ends experiments. What was changed here is known here at once, and on other replicas after an interval."""

    def __init__(
        self,
        store: ExperimentStore,
        *,
        catalog: Catalog,
        watched: Watched[Experiment],
        clock: Clock,
        new_id: NewId,
        calibrations: CalibrationStore,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._watched = watched
        self._clock = clock
        self._new_id = new_id
        self._calibrations = calibrations

    async def create(self, draft: Experiment, *, request_id: str, fingerprint: bytes) -> Report:
        """Begins an experiment. Raises FieldInvalid, RequestIdReused, ExperimentOverlaps, ExperimentsFull, StoreUnavailable."""
        experiment = completed(replace(draft, experiment_id=self._new_id(), created_at=self._clock.now()))
        check_experiment(experiment, self._catalog)
        await self._check_calibrations(experiment)
        created = await self._store.create(experiment, request_id=request_id, fingerprint=fingerprint)
        await self._watched.refresh()
        return await self._report(created)

    async def get(self, scope: str, experiment_id: str) -> Report:
        """An experiment of a scope or below it. Raises ExperimentUnknown, StoreUnavailable."""
        return await self._report(await self._find(scope, experiment_id))

    async def listed(self, page: Page) -> list[Experiment]:
        """Experiments of a scope and all below, newest first. Raises StoreUnavailable."""
        parse_scope(page.scope)
        return await self._store.listed(page)

    async def stop(self, scope: str, experiment_id: str, *, reason: str) -> Report:
        """Ends an experiment; one that has ended stays as it ended. Raises ExperimentUnknown, StoreUnavailable."""
        for _ in range(_TRIES):
            experiment = await self._find(scope, experiment_id)
            if not experiment.running:
                break
            why = f"stopped by hand: {reason}" if reason else "stopped by hand"
            standing = replace(experiment.standing, state=State.STOPPED, reason=why, stopped_at=self._clock.now())
            changed = await self._store.change(experiment.key, standing, version=experiment.standing.version)
            if changed is not None:
                experiment = changed
                break
        await self._watched.refresh()
        return await self._report(experiment)

    async def _check_calibrations(self, experiment: Experiment) -> None:
        for number, arm in enumerate(experiment.arms):
            if arm.calibration_id:
                try:
                    await self._calibrations.get(experiment.organization, arm.calibration_id)
                except CalibrationUnknown as error:
                    raise FieldInvalid(field=f"experiment.arms[{number}].calibration_id", problem=error.message) from error

    async def _find(self, scope: str, experiment_id: str) -> Experiment:
        asked = parse_scope(scope)
        found = await self._store.find(asked.organization, experiment_id)
        if found is None or not asked.contains(parse_scope(found.scope)):
            raise ExperimentUnknown(experiment_id=experiment_id)
        return found

    async def _report(self, experiment: Experiment) -> Report:
        tallies = (await self._store.tallies((experiment.key,))).get(experiment.key, {})
        # Intervals take milliseconds of arithmetic: too long for the event loop.
        return Report(experiment, tuple(await asyncio.to_thread(standings, experiment, tallies)))
