"""`farthing calibrate`: fits what decides between cheap answers and the strong model on labelled answers, and puts it in force."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show

calibrate_app = typer.Typer(no_args_is_help=True, invoke_without_command=True)
Scope = Annotated[str, typer.Option(help="Where it applies: this scope and all below.")]
Task = Annotated[str, typer.Option(help="The task; all when empty.")]
_TIMEOUT_S = 3600.0
_CURVE_ROWS = 12


@calibrate_app.callback()
def calibrate(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(help="JSON lines of labelled answers, or recorded answers as `farthing replay` takes them.", exists=True),
    ] = None,
    strong: Annotated[str, typer.Option(help="The model whose quality is the measure.")] = "",
    alternatives: Annotated[str, typer.Option(help="Other dear models that may be asked in its place, at most two: a,b.")] = "",
    opening: Annotated[
        str, typer.Option(help="Cheap models to ask first, at most two: a,b. The best are chosen when empty.")
    ] = "",
    keep: Annotated[float, typer.Option(help="Keep at least this share of the strong model's quality, such as 0.98.")] = 0.0,
    confidence: Annotated[float, typer.Option(help="How sure that promise must be.")] = 0.95,
    save: Annotated[float, typer.Option(help="Save at least this share of the strong model's bill, such as 0.3.")] = 0.0,
    usd_per_point: Annotated[str, typer.Option(help="What a point of quality (a hundredth) is worth, in dollars.")] = "",
    task: Task = "",
    scope: Scope = DEFAULT_SCOPE,
    query_only: Annotated[
        bool, typer.Option("--query-only", help="Decide by the prompt alone, before anything is bought.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and report; keep nothing.")] = False,
    activate: Annotated[bool, typer.Option("--activate", help="Put it in force at once.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed and data give the same policy.")] = 0,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Fits a cascade on labelled answers: --keep, --save or --usd-per-point says what for."""
    if context.invoked_subcommand is not None:
        return
    from farthing.router.v1 import router_pb2

    from farthing_runtime.cli.labelled import read_labelled
    from farthing_runtime.settings import SettingsInvalid

    if data is None or not strong:
        raise SettingsInvalid(field="calibrate", problem="give --data and --strong")
    spec = router_pb2.CalibrationSpec(
        request_id=str(uuid.uuid4()),
        scope=scope,
        task=task,
        opening_models=_names(opening),
        strong_model=strong,
        alternative_models=_names(alternatives),
        confidence=confidence,
        dry_run=dry_run,
        activate=activate,
        seed=seed,
        query_only=query_only,
    )
    _aim(spec, keep=keep, save=save, usd_per_point=usd_per_point)
    made = _fit(address, spec, read_labelled(data)).calibration
    _print(made)
    if made.calibration_id and not activate:
        typer.secho(f"put it in force: farthing calibrate activate {made.calibration_id} --scope {scope}", err=True, fg="green")


@calibrate_app.command("list")
def list_calibrations(scope: Scope = DEFAULT_SCOPE, task: Task = "", address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the calibrations of a scope, of those above and below it, newest first."""
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    table, token = Table("calibration", "scope", "task", "version", "state", "target", "saves", "quality", "fitted"), ""
    while True:
        request = router_pb2.ListCalibrationsRequest(scope=scope, task=task, descendants=True, page_token=token)
        page = _ask(address, "ListCalibrations", request)
        for each in page.calibrations:
            table.add_row(
                each.calibration_id,
                each.scope,
                each.task or "all",
                str(each.version),
                _state(each),
                each.target,
                f"{100 * each.saving.value:.0f} %",
                f"{100 * each.quality_ratio.value:.1f} %",
                each.create_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M"),
            )
        token = page.next_page_token
        if not token:
            break
    show(
        table,
        nothing="No calibration yet. Fit one: farthing calibrate --data labelled.jsonl --strong MODEL --keep 0.98",
    )


@calibrate_app.command("show")
def show_calibration(
    calibration_id: Annotated[str, typer.Argument(help="The calibration.")],
    scope: Scope = DEFAULT_SCOPE,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Shows a calibration, and what was seen of it since it is in force."""
    from farthing.router.v1 import router_pb2

    request = router_pb2.GetCalibrationRequest(scope=scope, calibration_id=calibration_id)
    _print(_ask(address, "GetCalibration", request).calibration)


@calibrate_app.command("activate")
def activate_calibration(
    calibration_id: Annotated[str, typer.Argument(help="The calibration; an earlier one rolls back.")],
    scope: Scope = DEFAULT_SCOPE,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Puts a calibration in force for its scope and task."""
    _activate(address, scope=scope, task="", calibration_id=calibration_id)


@calibrate_app.command("deactivate")
def deactivate_calibration(scope: Scope = DEFAULT_SCOPE, task: Task = "", address: Address = DEFAULT_ADDRESS) -> None:
    """Goes back to what farthing.yaml says for a scope and task."""
    _activate(address, scope=scope, task=task, calibration_id="")


def _aim(spec: Any, *, keep: float, save: float, usd_per_point: str) -> None:
    """Sets the target. Raises SettingsInvalid where there is not exactly one."""
    from farthing_core.money import nanos_from_usd

    from farthing_runtime.settings import SettingsInvalid

    if [bool(keep), bool(save), bool(usd_per_point)].count(True) != 1:
        raise SettingsInvalid(field="calibrate", problem="give --keep, --save or --usd-per-point: one of them")
    if keep:
        spec.quality_ratio_min = keep
    elif save:
        spec.saving_min = save
    else:
        spec.usd_nanos_per_quality_point = nanos_from_usd(usd_per_point)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _activate(address: str, *, scope: str, task: str, calibration_id: str) -> None:
    from farthing.router.v1 import router_pb2

    request = router_pb2.ActivateCalibrationRequest(
        request_id=str(uuid.uuid4()), scope=scope, task=task, calibration_id=calibration_id
    )
    changed = _ask(address, "ActivateCalibration", request)
    if changed.HasField("calibration"):
        made = changed.calibration
        typer.echo(f"{made.calibration_id} is in force for {made.scope}, task {made.task or 'all'}")
    else:
        typer.echo(f"none is in force for {scope}, task {task or 'all'}")
    if changed.retired_calibration_id:
        typer.secho(f"{changed.retired_calibration_id} is not any more", err=True, fg="yellow")


def _ask(address: str, method: str, request: Any) -> Any:
    from farthing.router.v1 import router_pb2_grpc

    return ask(router_pb2_grpc.RouterServiceStub, method, request, address=address)


def _fit(address: str, spec: Any, examples: list[Any]) -> Any:
    """Sends the examples and waits for the fit, showing how far it is. Raises PeerFailure."""
    import grpc
    from farthing.router.v1 import router_pb2, router_pb2_grpc
    from rich.console import Console
    from rich.progress import Progress

    from farthing_runtime.cli.labelled import parts
    from farthing_runtime.mesh import CHANNEL_OPTIONS, network_target
    from farthing_runtime.status import peer_failure

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"sending {len(examples)} examples", total=len(examples))

        def requests() -> Iterator[Any]:
            yield router_pb2.CalibrateCascadeRequest(spec=spec)
            for part in parts(examples):
                yield part
                progress.advance(bar, len(part.examples.examples))
            progress.update(bar, description="fitting", total=None)

        # Not asyncio's channel: that forgets why it was refused where the refusal comes while examples are still being sent.
        with grpc.insecure_channel(network_target(address), options=CHANNEL_OPTIONS) as channel:
            try:
                return router_pb2_grpc.RouterServiceStub(channel).CalibrateCascade(requests(), timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                raise peer_failure(error, peer=address) from error


def _print(made: Any) -> None:
    from rich.table import Table

    table = Table(show_header=False, title=made.target)
    rows = {
        "calibration": made.calibration_id or "(not kept)",
        "for": f"{made.scope}, task {made.task or 'all'}"
        + (f", version {made.version}, {_state(made)}" if made.calibration_id else ""),
        "asks": _asks(made),
        "examples": str(made.examples),
        "saves": _share(made.saving),
        "quality": f"{_share(made.quality_ratio)} of {made.strong_model}'s",
        "promise": f"holds with {100 * made.confidence:g} % confidence; risk {100 * made.risk:.1f} %"
        if made.guaranteed
        else "none",
        "escalates": f"{100 * made.escalated_share:.0f} % of requests",
    }
    if made.HasField("drift"):
        drift = made.drift
        rows["since in force"] = f"{drift.state}: {drift.advice}"
        rows["seen"] = f"{drift.decisions} decisions, {drift.checked} checked, quality {_share(drift.quality_ratio)}"
    for name, text in rows.items():
        table.add_row(name, text)
    show(table)
    _print_curve(made)
    for note in made.notes:
        typer.secho(note, err=True, fg="yellow")


def _asks(made: Any) -> str:
    first, then = " and ".join(made.opening_models), " or ".join((made.strong_model, *made.alternative_models))
    return f"{first} or, as the prompt decides, {then}" if made.query_only else f"{first}; then {then}"


def _print_curve(made: Any) -> None:
    from rich.table import Table

    points = list(made.curve)
    if not points:
        return
    step = max(1, -(-len(points) // _CURVE_ROWS))
    curve = Table("threshold", "of the bill", "of the quality", "escalated", caption="what other thresholds would give")
    for point in [*points[::step], *(points[-1:] if (len(points) - 1) % step else [])]:
        shares = (point.cost_share, point.quality_share, point.escalated_share)
        curve.add_row(f"{point.threshold:.3f}", *(f"{100 * share:.1f} %" for share in shares))
    show(curve)


def _state(made: Any) -> str:
    from farthing.router.v1 import router_pb2

    return router_pb2.CalibrationState.Name(made.state).removeprefix("CALIBRATION_STATE_").lower()


def _share(expected: Any) -> str:
    return f"{100 * expected.value:.1f} % ({100 * expected.lower:.1f} to {100 * expected.upper:.1f})"
