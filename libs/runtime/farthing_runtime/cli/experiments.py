"""`farthing experiments`: comparisons between models, calibrations and rules' actions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask, enum_number, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show

experiments_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="Whose: organizations/acme, or a scope below.")]
_STATES = ("running", "stopped_for_harm", "concluded", "stopped")
_NANOS_PER_USD = 10**9


@experiments_app.command("list")
def list_experiments(
    scope: Scope = DEFAULT_SCOPE,
    state: Annotated[str, typer.Option(help=f"Only those that are {', '.join(_STATES)}.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Lists the experiments of a scope and all below it, newest first."""
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    table, token = Table("experiment", "name", "scope", "task", "kind", "metric", "arms", "state", "winner", "since"), ""
    number: Any = enum_number(router_pb2.ExperimentState, "EXPERIMENT_STATE", state, "--state") if state else 0
    while True:
        request = router_pb2.ListExperimentsRequest(scope=scope, state=number, page_token=token)
        page = _ask(address, "ListExperiments", request)
        for each in page.experiments:
            arms = ", ".join(arm.name for arm in each.arms)
            since = each.create_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")
            words = (_word(each, name) for name in ("kind", "metric"))
            table.add_row(
                each.experiment_id,
                each.display_name,
                each.scope,
                each.task or "all",
                *words,
                arms,
                _word(each, "state"),
                each.winner,
                since,
            )
        token = page.next_page_token
        if not token:
            break
    show(
        table,
        nothing="No experiment here. Start one: farthing experiments create --file FILE (services/router/README.md shows one)",
    )


@experiments_app.command("show")
def show_experiment(
    experiment_id: Annotated[str, typer.Argument(help="The experiment.")],
    scope: Scope = DEFAULT_SCOPE,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Shows how the arms of an experiment do."""
    from farthing.router.v1 import router_pb2

    request = router_pb2.GetExperimentRequest(scope=scope, experiment_id=experiment_id)
    _print(_ask(address, "GetExperiment", request).experiment)


@experiments_app.command("create")
def create_experiment(
    file: Annotated[
        Path, typer.Option(help="The experiment as YAML: scope, kind, metric, arms …", exists=True, dir_okay=False)
    ],
    request_id: Annotated[str, typer.Option(help="A UUID that makes the call safe to repeat; a new one when empty.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Starts an experiment. Prints its name."""
    import yaml
    from farthing.router.v1 import router_pb2

    from farthing_runtime.settings import SettingsInvalid

    try:
        given = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsInvalid(field=str(file), problem=f"is no YAML: {error}".replace("\n", " ")) from error
    request = router_pb2.CreateExperimentRequest(request_id=request_id or str(uuid.uuid4()), experiment=_draft(given, file))
    typer.echo(_ask(address, "CreateExperiment", request).experiment.experiment_id)


@experiments_app.command("stop")
def stop_experiment(
    experiment_id: Annotated[str, typer.Argument(help="The experiment.")],
    scope: Scope = DEFAULT_SCOPE,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Ends an experiment: all requests go as usual again."""
    from farthing.router.v1 import router_pb2

    request = router_pb2.StopExperimentRequest(scope=scope, experiment_id=experiment_id, reason=reason)
    _print(_ask(address, "StopExperiment", request).experiment)


def _ask(address: str, method: str, request: Any) -> Any:
    from farthing.router.v1 import router_pb2_grpc

    return ask(router_pb2_grpc.RouterServiceStub, method, request, address=address)


def _draft(given: Any, file: Path) -> Any:
    """The message of an experiment as it is written in YAML: enums by their last words, times as days or moments."""
    from farthing.router.v1 import router_pb2
    from google.protobuf.json_format import ParseDict, ParseError

    from farthing_runtime.settings import SettingsInvalid

    if not isinstance(given, Mapping):
        raise SettingsInvalid(field=str(file), problem="is no experiment: write scope, kind, metric and arms")
    fields = dict(given)
    end_time = fields.pop("end_time", None)
    for name, enum, prefix in (
        ("kind", router_pb2.ExperimentKind, "EXPERIMENT_KIND"),
        ("metric", router_pb2.ExperimentMetric, "EXPERIMENT_METRIC"),
    ):
        if name in fields:
            fields[name] = enum_number(enum, prefix, fields[name], name)
    fields["arms"] = [_arm(arm) for arm in fields.get("arms") or ()]
    try:
        draft = ParseDict(fields, router_pb2.Experiment())
    except ParseError as error:
        raise SettingsInvalid(field=str(file), problem=" ".join(str(error).split())) from error
    if end_time is not None:
        text = end_time.isoformat() if isinstance(end_time, date | datetime) else str(end_time)
        draft.end_time.CopyFrom(moment_of(text))
    return draft


def _arm(given: Any) -> Any:
    from farthing.router.v1 import router_pb2

    if not isinstance(given, Mapping) or not isinstance(given.get("action"), Mapping):
        return given
    action = dict(given["action"])
    if "strategy" in action:
        action["strategy"] = enum_number(router_pb2.RuleStrategy, "RULE_STRATEGY", action["strategy"], "strategy")
    return {**given, "action": action}


def _word(message: Any, field: str) -> str:
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    prefix = f"EXPERIMENT_{field.upper()}_"
    return str(descriptor.values_by_number[getattr(message, field)].name).removeprefix(prefix).lower().replace("_", " ")


def _print(experiment: Any) -> None:
    from rich.table import Table

    title = f"{experiment.display_name or experiment.experiment_id}: {_word(experiment, 'kind')} on {experiment.task or 'all tasks'}"
    what = f"{_word(experiment, 'metric')} against the first"
    table = Table("arm", "share", "requests", "failed", "quality", "cost USD", "latency ms", what, "p", title=title)
    for arm in experiment.results:
        table.add_row(
            f"{arm.name} ★" if arm.name == experiment.winner else arm.name,
            f"{arm.share:.0%}",
            f"{arm.requests:,}",
            f"{arm.failures:,}",
            _interval(arm.quality) if arm.quality_answers else "",
            f"{arm.mean_cost_usd_nanos / _NANOS_PER_USD:.6f}" if arm.requests else "",
            f"{arm.mean_latency_ms:,}" if arm.requests else "",
            _interval(arm.difference) if arm.HasField("difference") else "",
            f"{arm.p_value:.2g}" if arm.HasField("difference") else "",
        )
    confidence = f"intervals hold at every moment, all together with {experiment.confidence:.1%} confidence"
    table.caption = (
        f"{_word(experiment, 'state')}{': ' if experiment.state_reason else ''}{experiment.state_reason}\n{confidence}"
    )
    show(table)


def _interval(given: Any) -> str:
    return f"{given.value:+.3g} [{given.lower:+.3g}, {given.upper:+.3g}]"
