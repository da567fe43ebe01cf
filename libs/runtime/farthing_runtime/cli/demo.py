"""`farthing demo`: what Farthing saves, on this machine."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from farthing_runtime.demo.run import Tally
    from farthing_runtime.demo.workload import Workload


def demo(
    data: Annotated[
        Path | None, typer.Option(help="A folder of recorded answers (parquet); the support desk when not given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Send only so many questions; 0 sends all.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 4,
    yes: Annotated[bool, typer.Option("--yes", help="With real providers: spend the money without asking.")] = False,
) -> None:
    """Runs a workload through the whole suite and prints what was saved.

    With OPENAI_API_KEY and a farthing.yaml here, the support desk's questions go to real providers; otherwise to recorded answers.
    """
    import uvloop
    from rich.console import Console

    console = Console()
    real = (
        Path("farthing.yaml") if data is None and os.environ.get("OPENAI_API_KEY") and Path("farthing.yaml").is_file() else None
    )
    if real is not None and not yes:
        typer.confirm(f"{real} and OPENAI_API_KEY are here: this asks real providers and costs real money. Go on?", abort=True)
    tally = uvloop.run(_demo(console, data=data, limit=limit, concurrency=concurrency, real=real))
    if tally.errors:
        raise typer.Exit(1)


async def _demo(console: Console, *, data: Path | None, limit: int, concurrency: int, real: Path | None) -> Tally:
    import tempfile
    from contextlib import AsyncExitStack

    from farthing_runtime.catalog import targets_named
    from farthing_runtime.demo.report import print_receipt, print_tally
    from farthing_runtime.demo.workload import recorded_answers, support_desk
    from farthing_runtime.hosting import running_suite
    from farthing_runtime.logs import configure_logs
    from farthing_runtime.replay.server import running_replay
    from farthing_runtime.settings import HostSettings, load

    configure_logs(level="warning", form="text")
    os.environ.setdefault("FARTHING_GATEWAY_HTTP_PORT", "0")
    os.environ.setdefault("FARTHING_DATA_DIR", str(Path(".farthing") / "demo"))
    workload = support_desk() if data is None else recorded_answers(data)
    async with AsyncExitStack() as stack:
        config_file = real
        if config_file is None:
            url = await stack.enter_async_context(running_replay(workload.recordings))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-demo-")))
            config_file = folder / "farthing.yaml"
            config_file.write_text(workload.config.replace("REPLAY_URL", url))
        settings = load(HostSettings, grpc_port=0, config_file=config_file)
        suite = await stack.enter_async_context(running_suite(settings, targets_named(())))
        console.print(f"[dim]seven services serve in this process after {suite.start_s:.2f} s · {workload.title}[/dim]")
        tally = await _send(console, suite.grpc_address, workload, limit=limit, concurrency=concurrency)
    known = limit == 0 and real is None
    baseline_right = workload.baseline_right() if known else None
    title = workload.title if real is None else "the support desk's questions, real providers"
    receipt = tally.showpiece
    baseline_model = receipt.baseline_model if receipt is not None else workload.baseline_model
    if receipt is not None:
        print_receipt(console, receipt)
    print_tally(console, tally, title=title, baseline_model=baseline_model, baseline_right=baseline_right)
    return tally


async def _send(console: Console, address: str, workload: Workload, *, limit: int, concurrency: int) -> Tally:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from farthing_runtime.demo.run import run_workload

    questions = workload.questions[:limit] if limit else workload.questions
    # An organisation of its own for every run: else a second run would find the first one's answers in the cache.
    organization = f"organizations/demo-{uuid.uuid4().hex[:8]}"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("asking", total=len(questions))
        return await run_workload(
            address, questions, organization=organization, concurrency=concurrency, on_progress=lambda: progress.advance(bar)
        )
