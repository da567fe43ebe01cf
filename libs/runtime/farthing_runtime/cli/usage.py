"""`farthing usage`: what was used and what it cost, as a table or as a file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import MOMENT, ask, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

_GROUPS = (
    "model",
    "provider",
    "service",
    "domain",
    "workspace",
    "project",
    "user",
    "scope",
    "key",
    "task",
    "hour",
    "day",
    "tag",
)
_ROWS_MAX = 1_000
_EXPORT_TIMEOUT_S = 3_600.0
Only = Annotated[str, typer.Option(help="Only this one.")]
File = Annotated[Path | None, typer.Option(help="Write every attempt into this file instead; `-` is standard output.")]


def usage(
    scope: Annotated[str, typer.Option(help="Whose usage, with everything below.")] = "organizations/default",
    by: Annotated[str, typer.Option(help=f"By what, separated by commas: {', '.join(_GROUPS)}.")] = "model",
    start: Annotated[str, typer.Option("--from", help=f"From when; 30 days ago when empty. {MOMENT}")] = "",
    end: Annotated[str, typer.Option("--to", help=f"Until before when; now when empty. {MOMENT}")] = "",
    top: Annotated[int, typer.Option(min=0, max=_ROWS_MAX, help="Only so many, the dearest first.")] = 0,
    model: Only = "",
    provider: Only = "",
    task: Only = "",
    service: Only = "",
    domain: Only = "",
    key: Only = "",
    csv: File = None,
    focus: Annotated[Path | None, typer.Option(help="The same in the columns of FOCUS 1.2.")] = None,
    invoice: Annotated[Path | None, typer.Option(help="Write a line a model and day, as an invoice has them.")] = None,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Prints what was used by model (or anything else), or writes it into a file."""
    from farthing.budget.v1 import budget_pb2

    from farthing_runtime.settings import SettingsInvalid

    only = {"model": model, "provider": provider, "task": task, "service": service, "domain": domain, "key_id": key}
    asked = {
        "scope": scope,
        "start_time": moment_of(start),
        "end_time": moment_of(end),
        "filter": budget_pb2.UsageFilter(**only),
    }
    files = {"CSV": csv, "FOCUS": focus, "INVOICE": invoice}
    wanted = [(getattr(budget_pb2, f"EXPORT_FORMAT_{name}"), path) for name, path in files.items() if path is not None]
    if len(wanted) > 1:
        raise SettingsInvalid(field="usage", problem="give --csv, --focus or --invoice: one of them")
    if wanted:
        ((form, path),) = wanted
        rows = asyncio.run(_export(budget_pb2.ExportUsageRequest(format=form, **asked), path, address))
        typer.secho(f"{rows} rows", err=True, fg="green")
        return
    groups = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in groups if name not in _GROUPS]
    if unknown:
        raise SettingsInvalid(field="--by", problem=f"does not know {', '.join(unknown)}; it knows {', '.join(_GROUPS)}")
    _print(budget_pb2.QueryUsageRequest(**asked), groups, top, address)


async def _export(request: Any, path: Path, address: str) -> int:
    """Writes an export as it comes; returns the number of its rows. Raises PeerFailure."""
    import grpc
    from farthing.budget.v1 import budget_pb2_grpc

    from farthing_runtime.mesh import network_channel
    from farthing_runtime.status import peer_failure

    rows = 0
    async with network_channel(address) as channel:
        stream = budget_pb2_grpc.BudgetServiceStub(channel).ExportUsage(request, timeout=_EXPORT_TIMEOUT_S)
        to_file = str(path) != "-"
        file = open(path, "wb") if to_file else sys.stdout.buffer  # noqa: ASYNC230, SIM115 (nothing else waits for this loop)
        try:
            async for part in stream:
                file.write(part.chunk)
                rows = part.rows
        except grpc.aio.AioRpcError as error:
            raise peer_failure(error, peer=address) from error
        finally:
            file.close() if to_file else file.flush()
    return rows


def _print(request: Any, groups: list[str], top: int, address: str) -> None:
    from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
    from farthing_core.money import usd_text
    from rich.table import Table

    request.group_by.extend(getattr(budget_pb2, f"USAGE_GROUP_{name.upper()}") for name in groups)
    request.page_size, request.by_cost = top or _ROWS_MAX, top > 0
    page = ask(budget_pb2_grpc.BudgetServiceStub, "QueryUsage", request, address=address, timeout_s=60.0)
    figures = ("requests", "attempts", "input_tokens", "cached_input_tokens", "output_tokens", "estimated_attempts")
    headings = ("requests", "attempts", "input", "cached", "output", "estimated", "cost", "saved")
    more = bool(page.next_page_token)
    table = Table(*groups, caption=f"the first {_ROWS_MAX}; --top shows the dearest" if more else None)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in page.rows:
        saved = row.saving.cache_usd_nanos + row.saving.prompt_usd_nanos + row.saving.route_usd_nanos
        keys = [getattr(row, "key_id" if name == "key" else name) or "–" for name in groups]
        counts = [f"{getattr(row, name):,}" for name in figures]
        table.add_row(*keys, *counts, usd_text(row.cost_usd_nanos), usd_text(saved))
    show(table, nothing="Nothing was used in this time.")
