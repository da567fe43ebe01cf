"""Whether an experiment can work: checked whole before it begins, so that a mistake is an error and not a wrong result."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_router.catalog import Catalog
from farthing_router.experiments.terms import Arm, Experiment, Kind
from farthing_router.routing.rule_checks import check_action

HARM_MAX = 0.02
CONFIDENCE = 0.95
REQUESTS_MAX = 100_000
CANARY_SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)
_CONFIDENCE_MIN = 0.5
_SHADOWS_MAX = 4
_ROUNDING = 1e-9
_FIELD = "experiment"


def completed(experiment: Experiment) -> Experiment:
    """With the defaults where it leaves something open."""
    canary = experiment.kind is Kind.CANARY
    return replace(
        experiment,
        harm_max=experiment.harm_max or HARM_MAX,
        confidence=experiment.confidence or CONFIDENCE,
        requests_max=experiment.requests_max or REQUESTS_MAX,
        canary_shares=experiment.canary_shares or (CANARY_SHARES if canary else ()),
    )


def check_experiment(experiment: Experiment, catalog: Catalog) -> None:
    """Raises FieldInvalid, naming the field and its limit. Whether there are such calibrations is for others to say."""
    parse_scope(experiment.scope, field=f"{_FIELD}.scope")
    for name, text in (("task", experiment.task), ("display_name", experiment.display_name)):
        if "\x00" in text:
            raise FieldInvalid(field=f"{_FIELD}.{name}", problem="has a null character; use text without any")
    if experiment.confidence < _CONFIDENCE_MIN:
        raise FieldInvalid(field=f"{_FIELD}.confidence", problem=f"must be from {_CONFIDENCE_MIN} to 0.999")
    _check_end(experiment.created_at, experiment.end_at)
    for number, arm in enumerate(experiment.arms):
        _check_arm(arm, number, experiment, catalog)
    _check_shares(experiment)


def _check_end(now: datetime, end_at: datetime | None) -> None:
    if end_at is not None and end_at <= now:
        raise FieldInvalid(field=f"{_FIELD}.end_time", problem="is over already; it must be in the future")


def _check_arm(arm: Arm, number: int, experiment: Experiment, catalog: Catalog) -> None:
    field, before = f"{_FIELD}.arms[{number}]", experiment.arms[:number]
    if "\x00" in arm.name:
        raise FieldInvalid(field=f"{field}.name", problem="has a null character; use text without any")
    if any(arm.name == other.name for other in before):
        raise FieldInvalid(field=f"{field}.name", problem=f"{arm.name!r} is the name of another arm, too")
    for other in before:
        if replace(arm, name=other.name, share=other.share) == other:
            raise FieldInvalid(field=field, problem=f"does what {other.name!r} does: there is nothing to compare")
    if arm.model and arm.model not in catalog.models:
        raise FieldInvalid(field=f"{field}.model", problem=f"{arm.model!r} is not among the catalog's models")
    if arm.action is not None:
        check_action(arm.action, catalog, field=f"{field}.action")


def _check_shares(experiment: Experiment) -> None:
    if experiment.kind is not Kind.CANARY and experiment.canary_shares:
        raise FieldInvalid(field=f"{_FIELD}.canary_shares", problem="are for a canary; leave them out")
    match experiment.kind:
        case Kind.AB:
            _check_positive(experiment, first=0)
            total = sum(arm.share for arm in experiment.arms)
            if total > 1 + _ROUNDING:
                raise FieldInvalid(field=f"{_FIELD}.arms", problem=f"have shares of {total:.6g} together; at most 1")
        case Kind.SHADOW:
            if len(experiment.arms) > 1 + _SHADOWS_MAX:
                raise FieldInvalid(field=f"{_FIELD}.arms", problem=f"at most {_SHADOWS_MAX} are asked beside the first")
            if experiment.arms[0].share not in (0.0, 1.0):
                raise FieldInvalid(field=f"{_FIELD}.arms[0].share", problem="the first serves every request; leave it out")
            _check_positive(experiment, first=1)
        case Kind.CANARY:
            _check_canary(experiment)


def _check_positive(experiment: Experiment, *, first: int) -> None:
    for number, arm in enumerate(experiment.arms):
        if number >= first and arm.share <= 0:
            raise FieldInvalid(field=f"{_FIELD}.arms[{number}].share", problem="must be above 0, and at most 1")


def _check_canary(experiment: Experiment) -> None:
    if len(experiment.arms) != 2:
        raise FieldInvalid(field=f"{_FIELD}.arms", problem="a canary has two: what is there, and what is new")
    for number, arm in enumerate(experiment.arms):
        if arm.share:
            raise FieldInvalid(field=f"{_FIELD}.arms[{number}].share", problem="is for other kinds; a canary has canary_shares")
    for number, (share, after) in enumerate(zip(experiment.canary_shares, experiment.canary_shares[1:], strict=False)):
        if after <= share:
            raise FieldInvalid(field=f"{_FIELD}.canary_shares[{number + 1}]", problem=f"must be above {share}, the one before")
