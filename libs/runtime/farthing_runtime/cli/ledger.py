"""`farthing ledger`: the journal, and the proof that the balances are what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

ledger_app = typer.Typer(no_args_is_help=True)
_PROOF_S = 1_200.0


@ledger_app.command("verify")
def verify(
    scope: Annotated[str, typer.Option(help="One organisation, such as organizations/acme.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every organisation.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Recomputes every balance from the journal and compares. Exit status 1 when the books are wrong, with every difference printed."""
    from farthing.budget.v1 import budget_pb2

    if bool(scope) is every:
        raise typer.BadParameter("give either --scope or --all", param_hint="--scope")
    wrong = 0
    for each in _organizations(address) if every else [scope]:
        proof = _ask("VerifyLedger", budget_pb2.VerifyLedgerRequest(scope=each), address, timeout_s=_PROOF_S)
        for difference in proof.differences:
            typer.echo(f"{each}: {difference}")
        wrong += len(proof.differences)
        verdict = f"{len(proof.differences)} differences" if proof.differences else "right"
        typer.secho(f"{each}: {proof.entries} entries, {proof.balances} balances: {verdict}", err=True)
    if wrong:
        raise typer.Exit(1)


@ledger_app.command("entries")
def entries(
    scope: Annotated[str, typer.Option(help="The scope, with everything below it.")],
    request_id: Annotated[str, typer.Option(help="Only of this request.")] = "",
    budget_id: Annotated[str, typer.Option(help="Only those that changed this budget.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Show the newest so many.")] = 50,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Lists entries of the journal, the newest first."""
    from farthing.budget.v1 import budget_pb2
    from farthing_core.money import usd_text
    from rich.table import Table

    table, shown, token = Table("written", "kind", "request", "scope", "held", "spent", "note"), 0, ""
    while shown < limit:
        size = min(limit - shown, 1_000)
        request = budget_pb2.ListEntriesRequest(
            scope=scope, request_id=request_id, budget_id=budget_id, page_size=size, page_token=token
        )
        page = _ask("ListEntries", request, address)
        for entry in page.entries:
            written = entry.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
            held, spent = usd_text(entry.held_usd_nanos, digits=9), usd_text(entry.spent_usd_nanos, digits=9)
            table.add_row(written, entry.kind, entry.request_id, entry.scope, held, spent, entry.note)
        shown, token = shown + len(page.entries), page.next_page_token
        if not token:
            break
    show(table, nothing="The journal is empty for this scope.")


def _organizations(address: str) -> Iterator[str]:
    from farthing.budget.v1 import budget_pb2

    token = ""
    while True:
        page = _ask("ListOrganizations", budget_pb2.ListOrganizationsRequest(page_size=1_000, page_token=token), address)
        yield from page.scopes
        token = page.next_page_token
        if not token:
            return


def _ask(method: str, request: Any, address: str, *, timeout_s: float = 30.0) -> Any:
    from farthing.budget.v1 import budget_pb2_grpc

    return ask(budget_pb2_grpc.BudgetServiceStub, method, request, address=address, timeout_s=timeout_s)
