"""`farthing budgets`: limits on what scopes may spend."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

budgets_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="The scope, such as organizations/acme/workspaces/search.")]
BudgetId = Annotated[str, typer.Argument(help="The budget.")]


@budgets_app.command("list")
def list_budgets(scope: Scope, address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the budgets at and below a scope, with what is spent and held in their current periods."""
    from farthing.budget.v1 import budget_pb2
    from rich.table import Table

    table, token = Table("budget", "scope", "for", "period", "limit", "spent", "held", "until"), ""
    while True:
        page = _ask("ListBudgets", budget_pb2.ListBudgetsRequest(scope=scope, page_token=token), address)
        for budget in page.budgets:
            until = budget.period_end_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
            amounts = _amounts(budget, "limit"), _amounts(budget, "spent"), _amounts(budget, "held")
            table.add_row(budget.budget_id, budget.scope, _selector(budget), _period(budget), *amounts, until)
        token = page.next_page_token
        if not token:
            break
    show(table, nothing="No budget yet: farthing budgets create --help says how to make one.")


@budgets_app.command("create")
def create(
    scope: Scope,
    period: Annotated[str, typer.Option(help="day, week, month, quarter, year or rolling.")] = "month",
    usd: Annotated[str, typer.Option(help="The most that may be spent in a period, in dollars.")] = "",
    tokens: Annotated[int | None, typer.Option(min=0, help="The most tokens in a period.")] = None,
    requests: Annotated[int | None, typer.Option(min=0, help="The most requests in a period.")] = None,
    model: Annotated[str, typer.Option(help="Only work on this model.")] = "",
    provider: Annotated[str, typer.Option(help="Only work at this provider.")] = "",
    tag: Annotated[str, typer.Option(help="Only work with this tag.")] = "",
    time_zone: Annotated[str, typer.Option(help="In which periods are reckoned, such as Europe/Berlin.")] = "UTC",
    window_s: Annotated[int, typer.Option(min=0, help="Of a rolling budget: its window in seconds.")] = 0,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Makes a budget. Limits of several kinds hold together; give one at least."""
    from farthing.budget.v1 import budget_pb2
    from farthing_core.money import nanos_from_usd

    if f"PERIOD_{period.upper()}" not in budget_pb2.Period.keys()[1:]:
        known = ", ".join(each.removeprefix("PERIOD_").lower() for each in budget_pb2.Period.keys()[1:])
        raise typer.BadParameter(f"must be one of {known}", param_hint="--period")
    request = budget_pb2.CreateBudgetRequest(
        request_id=str(uuid.uuid4()),
        scope=scope,
        display_name=name,
        period=budget_pb2.Period.Value(f"PERIOD_{period.upper()}"),
        time_zone=time_zone,
        limit_usd_nanos=nanos_from_usd(usd) if usd else None,
        limit_tokens=tokens,
        limit_requests=requests,
    )
    if window_s:
        request.period_terms.window_s = window_s
    chosen = {kind: value for kind, value in (("model", model), ("provider", provider), ("tag", tag)) if value}
    if len(chosen) > 1:
        raise typer.BadParameter("a budget is for one model, one provider or one tag", param_hint="--" + list(chosen)[1])
    if chosen:
        request.selector.CopyFrom(budget_pb2.BudgetSelector(**chosen))
    typer.echo(_ask("CreateBudget", request, address).budget.budget_id)


@budgets_app.command("reset")
def reset(
    budget_id: BudgetId,
    scope: Scope,
    reason: Annotated[str, typer.Option(help="Why; it stands in the journal.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Starts a budget's current period afresh. What is held, in suspense or settled later counts on."""
    from farthing.budget.v1 import budget_pb2

    request = budget_pb2.ResetBudgetRequest(request_id=str(uuid.uuid4()), scope=scope, budget_id=budget_id, reason=reason)
    budget = _ask("ResetBudget", request, address).budget
    typer.echo(f"budget {budget_id} starts afresh: spent {_amounts(budget, 'spent')}, held {_amounts(budget, 'held')}")


@budgets_app.command("delete")
def delete(budget_id: BudgetId, scope: Scope, address: Address = DEFAULT_ADDRESS) -> None:
    """Ends a budget; its usage and its entries stay."""
    from farthing.budget.v1 import budget_pb2

    _ask("DeleteBudget", budget_pb2.DeleteBudgetRequest(scope=scope, budget_id=budget_id), address)
    typer.echo(f"budget {budget_id} is deleted")


def _amounts(budget: Any, what: str) -> str:
    """What is limited, and what stands against it."""
    from farthing_core.money import usd_text

    shown = []
    for unit in ("usd_nanos", "tokens", "requests"):
        if budget.HasField(f"limit_{unit}"):
            amount = getattr(budget, f"{what}_{unit}")
            shown.append(usd_text(amount) if unit == "usd_nanos" else f"{amount} {unit}")
    return " ".join(shown)


def _period(budget: Any) -> str:
    from farthing.budget.v1 import budget_pb2

    name = budget_pb2.Period.Name(budget.period).removeprefix("PERIOD_").lower()
    return f"{name} of {budget.period_terms.window_s} s" if name == "rolling" else f"{name} in {budget.time_zone}"


def _selector(budget: Any) -> str:
    kind = budget.selector.WhichOneof("only")
    return f"{kind} {getattr(budget.selector, kind)}" if kind else ""


def _ask(method: str, request: Any, address: str) -> Any:
    from farthing.budget.v1 import budget_pb2_grpc

    return ask(budget_pb2_grpc.BudgetServiceStub, method, request, address=address)
