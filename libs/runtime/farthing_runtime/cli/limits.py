"""`farthing limits`: how fast scopes may work."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

limits_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="The scope, such as organizations/acme/workspaces/search.")]


@limits_app.command("create")
def create(
    scope: Scope,
    model: Annotated[str, typer.Option(help="Only this model; all together when empty.")] = "",
    rpm: Annotated[int, typer.Option(help="Requests per minute.")] = 0,
    tpm: Annotated[int, typer.Option(help="Tokens per minute.")] = 0,
    concurrent: Annotated[int, typer.Option(help="Requests at the same time.")] = 0,
    burst_s: Annotated[int, typer.Option(help="How many seconds' worth may come at once; 60 when 0.")] = 0,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Limits a scope, with everything below it; 0 does not limit."""
    from farthing.budget.v1 import budget_pb2

    request = budget_pb2.CreateRateLimitRequest(
        request_id=str(uuid.uuid4()),
        scope=scope,
        model=model,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        concurrent_requests=concurrent,
        burst_s=burst_s,
    )
    typer.echo(_ask("CreateRateLimit", request, address).rate_limit.rate_limit_id)


@limits_app.command("list")
def list_limits(scope: Scope, address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the rate limits at and below a scope."""
    from farthing.budget.v1 import budget_pb2
    from rich.table import Table

    table, token = Table("limit", "scope", "model", "requests/min", "tokens/min", "at a time", "burst"), ""
    while True:
        page = _ask("ListRateLimits", budget_pb2.ListRateLimitsRequest(scope=scope, page_token=token), address)
        for each in page.rate_limits:
            most = (each.requests_per_minute, each.tokens_per_minute, each.concurrent_requests)
            numbers = (f"{number:,}" if number else "" for number in most)
            table.add_row(each.rate_limit_id, each.scope, each.model or "all", *numbers, f"{each.burst_s} s")
        token = page.next_page_token
        if not token:
            break
    show(table, nothing="No limit yet: farthing limits create --help says how to make one.")


@limits_app.command("delete")
def delete(
    rate_limit_id: Annotated[str, typer.Argument(help="The limit.")],
    scope: Scope,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Ends a rate limit."""
    from farthing.budget.v1 import budget_pb2

    _ask("DeleteRateLimit", budget_pb2.DeleteRateLimitRequest(scope=scope, rate_limit_id=rate_limit_id), address)
    typer.echo(f"rate limit {rate_limit_id} is gone")


def _ask(method: str, request: Any, address: str) -> Any:
    from farthing.budget.v1 import budget_pb2_grpc

    return ask(budget_pb2_grpc.BudgetServiceStub, method, request, address=address)
