"""`farthing feedback`, `quality` and `recommendations`: what is thought of answers, and what follows from it."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import MOMENT, ask, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show

Scope = Annotated[str, typer.Option(help="The scope, with everything below it: organizations/acme.")]
Start = Annotated[str, typer.Option("--from", help=f"From when; the last 30 days when empty. {MOMENT}")]
End = Annotated[str, typer.Option("--to", help=f"Until before when; now when empty. {MOMENT}")]


def feedback(
    answered_request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The id of the request that was answered.")],
    scope: Scope = DEFAULT_SCOPE,
    score: Annotated[float | None, typer.Option(help="From 0 (useless) to 1 (perfect).", min=0.0, max=1.0)] = None,
    thumb: Annotated[str, typer.Option(help="up or down.")] = "",
    correction: Annotated[str, typer.Option(help="What the answer should have been. Only compared, not kept.")] = "",
    source: Annotated[str, typer.Option(help="Whose opinion it is: user, truth or model.")] = "user",
    request_id: Annotated[str, typer.Option(help="A UUID that makes the call safe to repeat; a new one when empty.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Says what is thought of an answer: --score, --thumb or --correction."""
    from farthing.router.v1 import router_pb2

    from farthing_runtime.settings import SettingsInvalid

    if [score is not None, bool(thumb), bool(correction)].count(True) != 1:
        raise SettingsInvalid(field="feedback", problem="give --score, --thumb or --correction: one of them")
    thumbs = {"up": router_pb2.THUMB_UP, "down": router_pb2.THUMB_DOWN, "": router_pb2.THUMB_UNSPECIFIED}
    sources = {
        "user": router_pb2.FEEDBACK_SOURCE_USER,
        "truth": router_pb2.FEEDBACK_SOURCE_TRUTH,
        "model": router_pb2.FEEDBACK_SOURCE_MODEL,
    }
    if thumb not in thumbs or source not in sources:
        field, given, known = (
            ("--thumb", thumb, "up, down") if thumb not in thumbs else ("--source", source, ", ".join(sources))
        )
        raise SettingsInvalid(field=field, problem=f"{given!r} is none of {known}")
    request = router_pb2.RecordFeedbackRequest(
        request_id=request_id or str(uuid.uuid4()),
        scope=scope,
        answered_request_id=answered_request_id,
        source=sources[source],
    )
    if score is not None:
        request.score = score
    elif thumb:
        request.thumb = thumbs[thumb]
    else:
        request.correction = correction
    taken = _ask(address, "RecordFeedback", request)
    typer.echo(f"quality {taken.quality:.2f}; {taken.model} at this task {taken.model_quality:.2f}")


def quality(
    scope: Scope = DEFAULT_SCOPE,
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    task: Annotated[str, typer.Option(help="Of this task only.")] = "",
    start: Start = "",
    end: End = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Quality by model and task, its trend, and how far automatic scores agree with opinions."""
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    request = router_pb2.GetQualityReportRequest(
        scope=scope, model=model, task=task, start_time=moment_of(start), end_time=moment_of(end)
    )
    report = _ask(address, "GetQualityReport", request)
    table = Table("model", "task", "quality", "95 %", "answers", "opinions", "trend in 30 days")
    for each in report.models:
        change = f"{each.trend_per_30_days:+.3f}" if each.trend_significant else "no change"
        interval = f"{each.quality_lower:.3f} – {each.quality_upper:.3f}"
        counts = (str(each.answers), str(each.opinions))
        table.add_row(each.model, each.task, f"{each.quality:.3f}", interval, *counts, change)
    show(
        table,
        nothing='No answers in this time. Send requests (farthing call "…") and rate them: farthing feedback REQUEST_ID --thumb up',
    )
    if report.HasField("correlation"):
        typer.echo(
            f"automatic scores and opinions on the same {report.correlated_answers} answers: correlation {report.correlation:.2f}, "
            f"by rank {report.rank_correlation:.2f}, mean difference {report.calibration_error:.2f}"
        )


def recommendations(
    scope: Scope = DEFAULT_SCOPE,
    quality_loss_max: Annotated[float, typer.Option(help="The most quality that may be lost.", min=0.0, max=1.0)] = 0.02,
    start: Start = "",
    end: End = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Cheaper models by workload, with the saving and the loss of quality to expect."""
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    request = router_pb2.RecommendModelsRequest(
        scope=scope, quality_loss_max=quality_loss_max, start_time=moment_of(start), end_time=moment_of(end)
    )
    answer = _ask(address, "RecommendModels", request)
    table = Table("task", "model", "cheaper", "requests", "saves USD", "95 %", "loses quality", "95 %", "sure", "rests on")
    for each in answer.recommendations:
        saving = (each.saving_usd_nanos, each.saving_usd_nanos_lower, each.saving_usd_nanos_upper)
        usd, lower, upper = (f"{nanos / 1e9:,.2f}" for nanos in saving)
        loss = f"{each.quality_loss_lower:+.3f} – {each.quality_loss_upper:+.3f}"
        names = (each.task, each.model, each.recommended_model, str(each.requests))
        table.add_row(
            *names, usd, f"{lower} – {upper}", f"{each.quality_loss:+.3f}", loss, f"{each.confidence:.0%}", each.reason
        )
    show(table, nothing="No cheaper model is known to be good enough yet; scores and opinions tell: farthing feedback --help")
    for line in answer.passed_over:
        typer.echo(line)


def _ask(address: str, method: str, request: Any) -> Any:
    from farthing.router.v1 import router_pb2_grpc

    return ask(router_pb2_grpc.RouterServiceStub, method, request, address=address)
