"""`farthing decisions`: which model was chosen for which request, why, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import MOMENT, ask, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show

decisions_app = typer.Typer(no_args_is_help=True)
_DIMENSIONS = ("strategy", "rule", "calibration", "experiment", "arm", "served_model", "task", "reason")
_FIELDS = {"rule": "rule_id", "calibration": "calibration_id", "experiment": "experiment_id"}
Scope = Annotated[str, typer.Option(help="Whose decisions.")]
Only = Annotated[str, typer.Option(help="Only this one.")]
Start = Annotated[str, typer.Option("--from", help=f"From when. {MOMENT}")]
End = Annotated[str, typer.Option("--to", help=f"Until before when; now when empty. {MOMENT}")]


@decisions_app.command("list")
def list_decisions(
    scope: Scope = DEFAULT_SCOPE,
    model: Annotated[str, typer.Option(help="Only of this model, asked for or served.")] = "",
    task: Only = "",
    strategy: Only = "",
    experiment: Only = "",
    request: Annotated[str, typer.Option(help="Only this request and what shadowed it.")] = "",
    start: Start = "",
    end: End = "",
    count: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest first.")] = 50,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Lists decisions, newest first."""
    from farthing.router.v1 import router_pb2, router_pb2_grpc
    from rich.table import Table

    asked = router_pb2.ListDecisionsRequest(
        scope=scope,
        model=model,
        task=task,
        strategy=strategy,
        experiment_id=experiment,
        request_id=request,
        start_time=moment_of(start),
        end_time=moment_of(end),
        page_size=count,
    )
    page = ask(router_pb2_grpc.RouterServiceStub, "ListDecisions", asked, address=address)
    table = Table(
        "when",
        "request",
        "task",
        "strategy",
        "why",
        "served",
        "outcome",
        caption="there are more" if page.next_page_token else None,
    )
    for heading in ("calls", "ms", "sure", "quality", "cost"):
        table.add_column(heading, justify="right")
    for each in page.decisions:
        table.add_row(*_cells(each))
    show(table, nothing='No decisions here yet. Each request that a model is asked for becomes one: farthing call "…"')


@decisions_app.command("summary")
def summarize_decisions(
    scope: Annotated[str, typer.Option(help="Whose decisions: organizations/NAME.")] = DEFAULT_SCOPE,
    by: Annotated[str, typer.Option(help=f"By what, separated by commas: {', '.join(_DIMENSIONS)}.")] = "strategy,served_model",
    start: Start = "",
    end: End = "",
    task: Only = "",
    shadows: Annotated[bool, typer.Option("--shadows", help="Those that were only followed for comparison.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Counts decisions of the last 30 days, or between two moments."""
    from farthing.router.v1 import router_pb2, router_pb2_grpc
    from farthing_core.money import usd_text
    from rich.table import Table

    from farthing_runtime.settings import SettingsInvalid

    names = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in names if name not in _DIMENSIONS]
    if unknown:
        raise SettingsInvalid(field="--by", problem=f"does not know {', '.join(unknown)}; it knows {', '.join(_DIMENSIONS)}")
    asked = router_pb2.SummarizeDecisionsRequest(
        scope=scope,
        group_by=[getattr(router_pb2, f"DECISION_DIMENSION_{name.upper()}") for name in names],
        start_time=moment_of(start),
        end_time=moment_of(end),
        task=task,
        shadows=shadows,
    )
    answer = ask(router_pb2_grpc.RouterServiceStub, "SummarizeDecisions", asked, address=address)
    table = Table(*names)
    for heading in ("decisions", "share", "escalated", "failed", "sure", "quality", "mean cost", "cost"):
        table.add_column(heading, justify="right")
    for each in answer.summaries:
        table.add_row(
            *(getattr(each, _FIELDS.get(name, name)) or "–" for name in names),
            f"{each.decisions:,}",
            f"{each.share:.1%}",
            f"{each.escalated_share:.1%}",
            f"{each.failed:,}",
            _share(each, "mean_confidence"),
            _share(each, "mean_quality"),
            usd_text(each.mean_cost_usd_nanos),
            usd_text(each.cost_usd_nanos, digits=4),
        )
    show(table, nothing='No decisions in this time. Each request that a model is asked for becomes one: farthing call "…"')


def _cells(each: Any) -> list[str]:
    from farthing_core.money import usd_text

    return [
        each.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S"),
        each.request_id,
        each.task or "–",
        each.strategy,
        each.reason,
        each.served_model or "–",
        f"{each.outcome} (shadow)" if each.shadow_of else each.outcome,
        str(each.attempts),
        f"{each.latency_ms:,}",
        _share(each, "confidence"),
        _share(each, "quality"),
        usd_text(each.cost_usd_nanos),
    ]


def _share(each: Any, field: str) -> str:
    return f"{getattr(each, field):.2f}" if each.HasField(field) else "–"
