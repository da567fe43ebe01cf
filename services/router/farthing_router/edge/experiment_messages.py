"""Between the contract's messages about experiments and the router's words."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from farthing.router.v1 import router_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_router.edge import rule_messages
from farthing_router.experiments.experiment_book import Report
from farthing_router.experiments.terms import Arm, Experiment, Kind, Metric, Sticky
from farthing_router.experiments.verdicts import ArmStanding

_EPOCH = datetime.fromtimestamp(0, UTC)
_STICKY: dict[str, Sticky] = {"user": "user", "session": "session", "request": "request"}


def draft(given: Any) -> Experiment:
    """An experiment as it is asked for; the server names and dates it. Raises FieldInvalid where an arm's action says nothing."""
    usual: Sticky = "request" if given.kind == router_pb2.EXPERIMENT_KIND_SHADOW else "user"
    return Experiment(
        experiment_id="",
        scope=given.scope,
        task=given.task,
        display_name=given.display_name,
        kind=Kind(given.kind),
        arms=tuple(_arm(arm, f"experiment.arms[{number}]") for number, arm in enumerate(given.arms)),
        metric=Metric(given.metric),
        harm_max=given.harm_max,
        confidence=given.confidence,
        requests_max=given.requests_max,
        end_at=given.end_time.ToDatetime(UTC) if given.HasField("end_time") else None,
        sticky=_STICKY.get(given.sticky, usual),
        canary_shares=tuple(given.canary_shares),
        created_at=_EPOCH,
    )


def report(given: Report) -> Any:
    """An experiment with its results."""
    message = experiment(given.experiment)
    message.results.extend(_result(each) for each in given.arms)
    return message


def experiment(given: Experiment) -> Any:
    """An experiment without results."""
    standing = given.standing
    return router_pb2.Experiment(
        experiment_id=given.experiment_id,
        scope=given.scope,
        task=given.task,
        display_name=given.display_name,
        kind=int(given.kind),  # type: ignore[arg-type]
        arms=[_arm_message(arm) for arm in given.arms],
        metric=int(given.metric),  # type: ignore[arg-type]
        harm_max=given.harm_max,
        confidence=given.confidence,
        requests_max=given.requests_max,
        end_time=_timestamp(given.end_at),
        sticky=given.sticky,
        canary_shares=given.canary_shares,
        state=int(standing.state),  # type: ignore[arg-type]
        state_reason=standing.reason,
        create_time=_timestamp(given.created_at),
        stop_time=_timestamp(standing.stopped_at),
        winner=standing.winner,
    )


def _arm(given: Any, field: str) -> Arm:
    action = rule_messages.action(given.action, field=f"{field}.action") if given.HasField("action") else None
    return Arm(given.name, given.model, given.calibration_id, action, given.share)


def _arm_message(given: Arm) -> Any:
    message = router_pb2.ExperimentArm(name=given.name, share=given.share)
    if given.model:
        message.model = given.model
    elif given.calibration_id:
        message.calibration_id = given.calibration_id
    elif given.action is not None:
        message.action.CopyFrom(rule_messages.action_message(given.action))
    else:
        message.as_usual = True
    return message


def _result(given: ArmStanding) -> Any:
    tally, lower, upper = given.tally, *given.quality
    message = router_pb2.ArmResult(
        name=given.arm.name,
        requests=tally.requests,
        failures=tally.failures,
        quality_answers=tally.scores,
        mean_cost_usd_nanos=-(-tally.cost_usd_nanos // tally.requests) if tally.requests else 0,
        mean_latency_ms=tally.latency_us // (1000 * tally.answers) if tally.answers else 0,
        p_value=1.0 if given.difference is None else given.difference.p_value,
        share=given.share,
    )
    if tally.scores:
        message.quality.CopyFrom(router_pb2.Expected(value=tally.quality.mean, lower=lower, upper=upper))
    found = given.difference
    if found is not None and math.isfinite(found.upper):
        message.difference.CopyFrom(router_pb2.Expected(value=found.value, lower=found.lower, upper=found.upper))
    return message


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
