"""`farthing diversification`: how far money and requests depend on few providers, and what to move."""

from __future__ import annotations

from typing import Annotated

import typer

from farthing_runtime.cli.asking import MOMENT, ask, moment_of
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show


def diversification(
    scope: Annotated[str, typer.Option(help="Whose calls.")] = DEFAULT_SCOPE,
    start: Annotated[str, typer.Option("--from", help=f"From when; 30 days ago when empty. {MOMENT}")] = "",
    end: Annotated[str, typer.Option("--to", help=f"Until before when; now when empty. {MOMENT}")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Prints dependence on providers, and what to move so that there is less of it."""
    from farthing.router.v1 import router_pb2, router_pb2_grpc
    from farthing_core.money import usd_text
    from rich.table import Table

    request = router_pb2.AnalyzeDiversificationRequest(scope=scope, start_time=moment_of(start), end_time=moment_of(end))
    answer = ask(router_pb2_grpc.RouterServiceStub, "AnalyzeDiversification", request, address=address, timeout_s=60.0)
    shares = Table(
        "provider", title=f"concentration {answer.hhi:,.0f} of 10,000 ({answer.level}); of calls {answer.attempts_hhi:,.0f}"
    )
    for heading in ("of the cost", "of the calls", "away", "without another"):
        shares.add_column(heading, justify="right")
    for each in answer.shares:
        figures = (each.cost_share, each.attempts_share, each.unavailability, each.irreplaceable_share)
        shares.add_row(each.provider, *(f"{figure:.2%}" for figure in figures))
    risk = f"requests that fail because providers are away: {answer.risk:.4%} now"
    moves = Table("advice", caption=f"{risk}, {answer.risk_after_advice:.4%} after all of this")
    for heading in ("concentration", "risk", "quality", "cost"):
        moves.add_column(heading, justify="right")
    for move in answer.advice:
        quality = f"{move.quality_change:+.3f}" if move.HasField("quality_change") else "–"
        cost = usd_text(move.cost_usd_nanos_change, digits=4)
        moves.add_row(move.advice, f"−{move.hhi_reduction:,.0f}", f"−{move.risk_reduction:.4%}", quality, cost)
    show(shares, nothing='No calls in this time. Send requests (farthing call "…"); they are counted within seconds.')
    if shares.row_count:
        show(moves, nothing=f"No move would lessen the dependence; {risk}.")
