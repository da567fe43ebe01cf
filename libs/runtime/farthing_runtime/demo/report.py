"""The table and the receipt that the demonstration prints."""

from __future__ import annotations

from typing import Any

from farthing.orchestrator.v1 import orchestrator_pb2
from farthing.router.v1 import router_pb2
from farthing_core.money import usd_text
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from farthing_runtime.demo.run import Tally

_LOST_US = 1000


def print_tally(console: Console, tally: Tally, *, title: str, baseline_model: str, baseline_right: int | None) -> None:
    """What was saved, and at what quality."""
    saved = tally.baseline_usd_nanos - tally.cost_usd_nanos - tally.checks_usd_nanos
    share = 100 * saved / tally.baseline_usd_nanos if tally.baseline_usd_nanos else 0.0
    hits = tally.exact_hits + tally.semantic_hits
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column()
    rows = [
        ("requests", f"{tally.requests}  ({tally.requests / tally.wall_s:.0f} a second)"),
        ("exact hits", f"{tally.exact_hits}"),
        ("semantic hits", f"{tally.semantic_hits}  (all hits: {100 * hits / max(1, tally.requests):.0f} %)"),
        ("escalations", f"{tally.escalations}"),
        ("pieces masked", f"{tally.masked}"),
        ("tokens saved", f"{tally.tokens_saved:,}"),
        ("cost", usd_text(tally.cost_usd_nanos)),
        ("checks of hits", f"{usd_text(tally.checks_usd_nanos)}  ({tally.checks} fresh answers bought to compare with)"),
        ("baseline cost", f"{usd_text(tally.baseline_usd_nanos)}  (always {baseline_model}, no cache)"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    table.add_row("saved", Text(f"{usd_text(saved)}  ({share:.1f} %)", style="bold green"))
    if tally.judged:
        alone = "" if baseline_right is None else f"  ({baseline_model} alone: {baseline_right})"
        table.add_row("answers right", f"{tally.right} of {tally.judged}{alone}")
    table.add_row("added latency", f"p50 {tally.percentile_ms(0.5):.1f} ms, p99 {tally.percentile_ms(0.99):.1f} ms")
    table.add_row("receipts", "add up to the ledger, to the nanodollar" if not tally.errors else "see errors")
    for reason, count in sorted(tally.errors.items()):
        table.add_row("errors", Text(f"{count} × {reason}", style="red"))
    console.print(Panel(table, title=f"Farthing: {title}", title_align="left", border_style="green", expand=False))


def print_receipt(console: Console, receipt: Any) -> None:
    """One receipt in full."""
    steps = Table("step", "outcome", Column("ms", justify="right"), "note", box=None, padding=(0, 2), header_style="dim")
    for step in receipt.steps:
        name = orchestrator_pb2.StepName.Name(step.name).removeprefix("STEP_NAME_").lower().replace("_", " ")
        outcome = orchestrator_pb2.StepOutcome.Name(step.outcome).removeprefix("STEP_OUTCOME_").lower()
        steps.add_row(name, outcome, f"{step.duration_us / _LOST_US:.2f}", step.note)
    attempts = Table("model", "outcome", "why", Column("cost", justify="right"), box=None, padding=(0, 2), header_style="dim")
    for attempt in receipt.attempts:
        outcome = router_pb2.AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_").lower()
        sure = f" ({attempt.confidence:.2f})" if attempt.HasField("confidence") else ""
        attempts.add_row(attempt.model, outcome, f"{attempt.reason}{sure}", usd_text(attempt.cost_usd_nanos))
    saving = receipt.saving
    sums = Table.grid(padding=(0, 2))
    for name, nanos in (
        ("paid", receipt.cost_usd_nanos),
        ("saved by the cache", saving.cache_usd_nanos),
        ("saved on the prompt", saving.prompt_usd_nanos),
        ("saved by the route", saving.route_usd_nanos),
        (f"baseline ({receipt.baseline_model})", receipt.baseline_usd_nanos),
    ):
        sums.add_row(name, Text(usd_text(nanos, digits=9), justify="right"))
    left = receipt.budget_left
    foot = f"budget left {usd_text(left.free_usd_nanos, digits=2)}" if left.HasField("free_usd_nanos") else "no budget applies"
    title = f"receipt {receipt.request_id}"
    body = Group(steps, Text(), attempts, Text(), sums, Text(f"\n{foot} · policy {receipt.policy}", style="dim"))
    console.print(Panel(body, title=title, title_align="left", border_style="dim", expand=False))
