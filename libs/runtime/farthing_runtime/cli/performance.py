"""`farthing performance`: how fast, how reliable, how dear and how good models are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import MOMENT, ask, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show

_DIMENSIONS = ("provider", "model", "deployment", "task")
_HEADINGS = ("calls", "failed", "p50", "p90", "p99", "first token", "tokens/s", "cost", "per 1k tokens", "quality", "per point")
_WINDOW_H = 24
Only = Annotated[str, typer.Option(help="Only this one.")]


def performance(
    scope: Annotated[str, typer.Option(help="Whose calls; everybody's when empty.")] = DEFAULT_SCOPE,
    by: Annotated[str, typer.Option(help=f"By what, separated by commas: {', '.join(_DIMENSIONS)}.")] = "provider,model",
    start: Annotated[str, typer.Option("--from", help=f"From when; the last {_WINDOW_H} hours when empty. {MOMENT}")] = "",
    end: Annotated[str, typer.Option("--to", help=f"Until before when; now when empty. {MOMENT}")] = "",
    step_h: Annotated[int, typer.Option("--step", min=0, max=8760, help="Hours in a step; no steps when 0.")] = 0,
    provider: Only = "",
    model: Only = "",
    task: Only = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Prints latency, errors, cost and quality of calls."""
    from rich.table import Table

    names = _names(by)
    asked: dict[str, Any] = {"scope": scope, "provider": provider, "model": model, "task": task}
    lines = _now(address, names, asked) if not start else _range(address, names, asked, (start, end, step_h))
    table = Table(
        *(("from",) if step_h and start else ()),
        *names,
        caption="milliseconds; cost of a hundredth of quality in the last column",
    )
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for began, each in lines:
        labels = [getattr(each, name) or "–" for name in names]
        table.add_row(*((began,) if step_h and start else ()), *labels, *_cells(each))
    show(table, nothing='No calls in this time. Send requests (farthing call "…"); they are counted within seconds.')


def _names(by: str) -> list[str]:
    from farthing_runtime.settings import SettingsInvalid

    names = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in names if name not in _DIMENSIONS]
    if unknown or not names:
        problem = f"does not know {', '.join(unknown) or 'nothing'}; it knows {', '.join(_DIMENSIONS)}"
        raise SettingsInvalid(field="--by", problem=problem)
    return names


def _now(address: str, names: list[str], asked: dict[str, Any]) -> list[tuple[str, Any]]:
    from farthing.router.v1 import router_pb2, router_pb2_grpc

    request = router_pb2.GetPerformanceRequest(**asked, group_by=_dimensions(names), window_h=_WINDOW_H)
    answer = ask(router_pb2_grpc.RouterServiceStub, "GetPerformance", request, address=address)
    return [("", each) for each in answer.performances]


def _range(address: str, names: list[str], asked: dict[str, Any], times: tuple[str, str, int]) -> list[tuple[str, Any]]:
    from farthing.router.v1 import router_pb2, router_pb2_grpc

    start, end, step_h = times
    request = router_pb2.GetPerformanceReportRequest(
        **asked,
        group_by=_dimensions(names),
        start_time=moment_of(start),
        end_time=moment_of(end or datetime.now(UTC).isoformat()),
        step_h=step_h,
    )
    answer = ask(router_pb2_grpc.RouterServiceStub, "GetPerformanceReport", request, address=address, timeout_s=60.0)
    if not step_h:
        return [("", each) for each in answer.total]
    return [(_hour(step.start_time), each) for step in answer.steps for each in step.performances]


def _dimensions(names: list[str]) -> list[Any]:
    from farthing.router.v1 import router_pb2

    return [getattr(router_pb2, f"PERFORMANCE_DIMENSION_{name.upper()}") for name in names]


def _hour(stamp: Any) -> str:
    return str(stamp.ToDatetime().strftime("%Y-%m-%d %H:00"))


def _cells(each: Any) -> list[str]:
    from farthing_core.money import usd_text

    def known(name: str, text: str) -> str:
        return text if each.HasField(name) else "–"

    latencies = [f"{getattr(each, f'latency_ms_{share}'):,}" for share in ("p50", "p90", "p99")]
    return [
        f"{each.attempts:,}",
        f"{each.error_rate:.1%}",
        *latencies,
        known("first_token_ms_p50", f"{each.first_token_ms_p50:,}"),
        known("output_tokens_per_s", f"{each.output_tokens_per_s:.0f}"),
        usd_text(each.cost_usd_nanos, digits=4),
        usd_text(each.cost_usd_nanos_per_thousand_tokens),
        known("quality", f"{each.quality:.2f}"),
        known("cost_usd_nanos_per_quality_point", usd_text(each.cost_usd_nanos_per_quality_point)),
    ]
