"""`farthing call`: one request from the shell."""

from __future__ import annotations

import sys
import uuid
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address


def call(
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads standard input.")],
    model: Annotated[str, typer.Option(help="A model's name, or farthing/auto.")] = "farthing/auto",
    scope: Annotated[str, typer.Option(help="Who is charged.")] = DEFAULT_SCOPE,
    task: Annotated[str, typer.Option(help="What the request is for.")] = "chat",
    system: Annotated[str, typer.Option(help="System instructions.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen and cost.")] = False,
    receipt: Annotated[bool, typer.Option("--receipt", help="Print the whole receipt too.")] = False,
    address: Address = DEFAULT_ADDRESS,
    timeout_s: Annotated[float, typer.Option(help="How long to wait.")] = 120.0,
) -> None:
    """Sends one request to a running suite and prints the answer and what it cost."""
    from farthing.orchestrator.v1 import orchestrator_pb2
    from farthing.orchestrator.v1.orchestrator_pb2_grpc import OrchestratorServiceStub

    text = sys.stdin.read() if prompt == "-" else prompt
    request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=scope, model=model, task=task)
    if system:
        request.messages.add(role="system", content=system)
    request.messages.add(role="user", content=text)
    if dry_run:
        estimating = orchestrator_pb2.EstimateCostRequest(request=request)
        _print_estimate(ask(OrchestratorServiceStub, "EstimateCost", estimating, address=address, timeout_s=timeout_s))
        return
    answer = ask(OrchestratorServiceStub, "Complete", request, address=address, timeout_s=timeout_s)
    typer.echo(answer.answer.content or answer.answer.extra_json)
    _print_receipt(answer.receipt, whole=receipt)


def _print_estimate(estimate: Any) -> None:
    from farthing.budget.v1 import budget_pb2
    from farthing.cache.v1 import cache_pb2
    from farthing_core.money import usd_text

    typer.echo(f"cache     {cache_pb2.LookupOutcome.Name(estimate.cache_outcome).removeprefix('LOOKUP_OUTCOME_').lower()}")
    for candidate in estimate.route.candidates:
        typer.echo(f"model     {candidate.model}: likely {usd_text(candidate.likely_usd_nanos)}")
    typer.echo(f"likely    {usd_text(estimate.likely_usd_nanos)}, at most {usd_text(estimate.worst_case_usd_nanos)}")
    typer.echo(f"baseline  {usd_text(estimate.baseline_likely_usd_nanos)}")
    typer.echo(f"budget    {budget_pb2.Verdict.Name(estimate.verdict).removeprefix('VERDICT_').lower()}")


def _print_receipt(receipt: Any, *, whole: bool) -> None:
    from farthing_core.money import usd_text
    from google.protobuf import json_format

    saved = receipt.baseline_usd_nanos - receipt.cost_usd_nanos
    summary = (
        f"paid {usd_text(receipt.cost_usd_nanos)} instead of {usd_text(receipt.baseline_usd_nanos)}: saved {usd_text(saved)}"
    )
    typer.secho(summary, err=True, fg="green")
    if receipt.caching.HasField("certificate"):
        typer.secho(_certificate_text(receipt), err=True)
    if whole:
        typer.echo(json_format.MessageToJson(receipt, preserving_proto_field_name=True), err=True)


def _certificate_text(receipt: Any) -> str:
    """Why a hit by meaning was trusted, or the candidate was not, in a line."""
    caching, certificate = receipt.caching, receipt.caching.certificate
    named = f"hit {caching.hit_id}" if caching.hit_id else "no hit by meaning"
    return (
        f"{named}: {caching.reason}, similarity {receipt.cache_similarity:.3f}, probability {certificate.probability:.3f} of at least "
        f"{certificate.probability_min:.3f}; wrong at most {certificate.wrong_upper_ppm / 10_000:.2f} % of look-ups "
        f"(budget {certificate.error_budget_ppm / 10_000:.2f} %, {certificate.evidence}){'; checked' if caching.checked else ''}"
    )
