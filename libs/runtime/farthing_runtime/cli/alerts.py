"""`farthing alerts`: alert rules of the budget service, and what they raised."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

alerts_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="The scope, such as organizations/acme/workspaces/search.")]


@alerts_app.command("list")
def list_alerts(
    scope: Scope,
    limit: Annotated[int, typer.Option(min=1, help="Show the newest so many.")] = 50,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Lists the alerts at and below a scope, the newest first."""
    from rich.table import Table

    table = Table("raised", "kind", "what happened", "deliveries")
    for number, alert in enumerate(_pages("ListAlerts", "alerts", scope, address)):
        if number == limit:
            break
        raised = alert.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
        table.add_row(raised, _kind(alert.kind), alert.message, "\n".join(map(_delivery, alert.deliveries)))
    show(table, nothing="No alert was raised.")


@alerts_app.command("rules")
def list_rules(scope: Scope, address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the alert rules at and below a scope."""
    from farthing_core.money import usd_text
    from rich.table import Table

    table = Table("rule", "scope", "kind", "at", "channels")
    for rule in _pages("ListAlertRules", "alert_rules", scope, address):
        at = " ".join(f"{percent} %" for percent in rule.percents)
        at = at or (usd_text(rule.amount_usd_nanos, digits=2) if rule.amount_usd_nanos else "")
        table.add_row(rule.alert_rule_id, rule.scope, _kind(rule.kind), at, "\n".join(map(_channel, rule.channels)))
    show(table, nothing="No alert rule yet: farthing alerts create --help says how to make one.")


@alerts_app.command("create")
def create(
    scope: Scope,
    kind: Annotated[str, typer.Option(help="budget_percent, daily_cost, velocity, suspense, price_unknown or overrun.")],
    percent: Annotated[list[int] | None, typer.Option(help="Of budget_percent: 50, 80 and 100 when none is given.")] = None,
    usd: Annotated[str, typer.Option(help="Of daily_cost: the amount in dollars.")] = "",
    webhook: Annotated[list[str] | None, typer.Option(help="A URL that is sent signed JSON.")] = None,
    slack: Annotated[list[str] | None, typer.Option(help="An incoming webhook of Slack.")] = None,
    email: Annotated[list[str] | None, typer.Option(help="An e-mail address.")] = None,
    secret: Annotated[
        str, typer.Option(envvar="FARTHING_ALERT_SECRET", help="Signs webhooks; a random one is made and shown when empty.")
    ] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Makes an alert rule."""
    from farthing.budget.v1 import budget_pb2
    from farthing_core.money import nanos_from_usd

    name = f"ALERT_KIND_{kind.upper()}"
    if name not in budget_pb2.AlertKind.keys()[1:]:
        known = ", ".join(_kind(number) for number in budget_pb2.AlertKind.values()[1:])
        raise typer.BadParameter(f"must be one of {known}", param_hint="--kind")
    signs = secret or (secrets.token_urlsafe(32) if webhook else "")
    channels = [
        *(budget_pb2.AlertChannel(webhook=budget_pb2.WebhookChannel(url=url, secret=signs)) for url in webhook or ()),
        *(budget_pb2.AlertChannel(slack=budget_pb2.SlackChannel(url=url)) for url in slack or ()),
        *(budget_pb2.AlertChannel(email=budget_pb2.EmailChannel(address=each)) for each in email or ()),
    ]
    request = budget_pb2.CreateAlertRuleRequest(
        request_id=str(uuid.uuid4()),
        scope=scope,
        kind=budget_pb2.AlertKind.Value(name),
        percents=percent or (),
        amount_usd_nanos=nanos_from_usd(usd) if usd else 0,
        channels=channels,
    )
    made = _ask("CreateAlertRule", request, address).alert_rule
    typer.echo(made.alert_rule_id)
    if signs and not secret:
        typer.secho(f"webhooks are signed with {signs}, which is not shown again", err=True, fg="yellow")


@alerts_app.command("delete")
def delete(
    alert_rule_id: Annotated[str, typer.Argument(help="The rule.")], scope: Scope, address: Address = DEFAULT_ADDRESS
) -> None:
    """Deletes an alert rule."""
    from farthing.budget.v1 import budget_pb2

    _ask("DeleteAlertRule", budget_pb2.DeleteAlertRuleRequest(scope=scope, alert_rule_id=alert_rule_id), address)
    typer.echo(f"alert rule {alert_rule_id} is deleted")


def _kind(number: Any) -> str:
    from farthing.budget.v1 import budget_pb2

    return budget_pb2.AlertKind.Name(number).removeprefix("ALERT_KIND_").lower()


def _channel(channel: Any) -> str:
    kind = channel.WhichOneof("channel")
    return f"{kind} {channel.email.address if kind == 'email' else getattr(channel, kind).url}"


def _delivery(delivery: Any) -> str:
    why = f" after {delivery.attempts}: {delivery.error}" if delivery.error else ""
    return f"{delivery.channel} {delivery.addressee} {delivery.state.lower().replace('_', ' ')}{why}"


def _pages(method: str, items: str, scope: str, address: str) -> Iterator[Any]:
    from farthing.budget.v1 import budget_pb2

    token = ""
    while True:
        page = _ask(method, getattr(budget_pb2, f"{method}Request")(scope=scope, page_token=token), address)
        yield from getattr(page, items)
        token = page.next_page_token
        if not token:
            return


def _ask(method: str, request: Any, address: str) -> Any:
    from farthing.budget.v1 import budget_pb2_grpc

    return ask(budget_pb2_grpc.BudgetServiceStub, method, request, address=address)
