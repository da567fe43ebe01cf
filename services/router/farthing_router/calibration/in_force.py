"""Which calibrations are in force, from memory: what another replica activates is known here after one interval of refreshing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import structlog
from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope
from farthing_runtime.refreshing import Watched

from farthing_router.calibration.drift import cautious_threshold
from farthing_router.calibration.kept import Calibration, CalibrationStore, CalibrationUnknown, Report, State
from farthing_router.calibration.policy import FittedPolicy, PolicyUnreadable
from farthing_router.routing.ports import InForce

_OTHERS_MAX = 200
_MISSING_MAX = 100
_log = structlog.get_logger()
_Key = tuple[str, str]


class ActiveCalibrations:
    """The calibrations in force, by scope and task, and others that are asked for by name (arms of experiments, routes planned a moment
    before a change). Where nothing is in force for an organisation a look-up is one dictionary access.
    """

    def __init__(self, store: CalibrationStore) -> None:
        self._store = store
        self._organizations: dict[str, dict[_Key, Calibration]] = {}
        self._named: dict[_Key, InForce] = {}
        self._others: OrderedDict[_Key, InForce | None] = OrderedDict()
        self._missing: dict[_Key, None] = {}
        self._cautious: dict[_Key, InForce] = {}
        self._doubtful: set[_Key] = set()
        self.watched = Watched("calibrations", after=self._after, take=self._take)

    def in_force(self, scope: str, task: str) -> InForce | None:
        """The calibration of the longest scope that has one for this task, or for every task; None without any."""
        found = self._find(scope, task)
        return self.named(scope, found.made.calibration_id) if found is not None else None

    def named(self, scope: str, calibration_id: str) -> InForce | None:
        """One by its name, whether in force or not, within the organisation of the scope. One that is not in memory is None now, and
        there after the next refresh if it exists."""
        key = (_organization(scope), calibration_id)
        found = self._named.get(key)
        if found is not None:
            return self._cautious.get(key, found)
        if key in self._others:
            self._others.move_to_end(key)
            return self._others[key]
        if len(self._missing) < _MISSING_MAX:
            self._missing[key] = None
        return None

    def fitted(self, organization: str, calibration_id: str) -> FittedPolicy | None:
        """The policy of a calibration in force, as it was fitted."""
        found = self._named.get((organization, calibration_id))
        return found.policy if found is not None else None

    def doubt(self, organization: str, calibration_id: str, *, doubtful: bool, escalates: bool) -> None:
        """Says whether the promise of a calibration is in doubt; where that `escalates`, it buys the strong model more often until it is
        not."""
        key = (organization, calibration_id)
        policy, report = self.fitted(*key), self.report(*key)
        self._doubtful.discard(key)
        self._cautious.pop(key, None)
        if not doubtful or policy is None or report is None:
            return
        self._doubtful.add(key)
        if escalates:
            threshold = cautious_threshold(report, policy.threshold)
            self._cautious[key] = InForce(calibration_id, replace(policy, threshold=threshold))

    def in_doubt(self, organization: str, calibration_id: str) -> bool:
        """Whether the promise of a calibration in force is in doubt."""
        return (organization, calibration_id) in self._doubtful

    def report(self, organization: str, calibration_id: str) -> Report | None:
        """What the fit of a calibration in force said."""
        for each in self._organizations.get(organization, {}).values():
            if each.made.calibration_id == calibration_id:
                return each.made.report
        return None

    def _find(self, scope: str, task: str) -> Calibration | None:
        kept = self._organizations.get(_organization(scope))
        if not kept:
            return None
        for ancestor in reversed(parse_scope(scope).ancestors):
            found = kept.get((ancestor, task)) or kept.get((ancestor, ""))
            if found is not None:
                return found
        return None

    def _take(self, row: Calibration) -> None:
        made = row.made
        kept, key = self._organizations.setdefault(made.organization, {}), (made.scope, made.task)
        name = (made.organization, made.calibration_id)
        if row.state is State.ACTIVE:
            policy = _policy(row)
            if policy is not None:
                kept[key] = row
                self._named[name] = InForce(made.calibration_id, policy)
                return
        if key in kept and (row.state is State.ACTIVE or kept[key].made.calibration_id == made.calibration_id):
            del kept[key]
        was = self._named.pop(name, None)
        self._cautious.pop(name, None)
        self._doubtful.discard(name)
        if was is not None:
            self._remember(name, was)

    async def _after(self, number: int, *, rows_max: int) -> Sequence[Calibration]:
        for key in list(self._missing):
            try:
                kept = await self._store.get(*key)
            except CalibrationUnknown:
                self._remember(key, None)
            else:
                policy = _policy(kept)
                self._remember(key, InForce(kept.made.calibration_id, policy) if policy is not None else None)
            self._missing.pop(key, None)
        return await self._store.after(number, rows_max=rows_max)

    def _remember(self, key: _Key, found: InForce | None) -> None:
        self._others[key] = found
        self._others.move_to_end(key)
        while len(self._others) > _OTHERS_MAX:
            self._others.popitem(last=False)


@lru_cache(maxsize=4096)
def _organization(scope: str) -> str:
    return parse_scope(scope).organization


def _policy(row: Calibration) -> FittedPolicy | None:
    """The policy of a row; None, and a line in the log, where this version cannot read it: requests are routed without it."""
    try:
        return FittedPolicy.from_json(row.made.policy)
    except PolicyUnreadable as error:
        problem = error.message
    except FarthingError as error:
        problem = type(error).__name__
    _log.error("a calibration cannot be used here", calibration_id=row.made.calibration_id, problem=problem)
    return None
