"""`farthing rules` and `farthing route`: how the router chooses, and why it chose."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask, enum_number
from farthing_runtime.cli.host import DEFAULT_ADDRESS, DEFAULT_SCOPE, Address
from farthing_runtime.cli.printing import show

rules_app = typer.Typer(no_args_is_help=True)
route_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="Where: organizations/acme, or a scope below.")]
RuleId = Annotated[str, typer.Argument(help="The rule.")]
RequestId = Annotated[str, typer.Option(help="A UUID that makes the call safe to repeat; a new one when empty.")]
_NANOS_PER_USD = 10**9


@rules_app.command("list")
def list_rules(scope: Scope = DEFAULT_SCOPE, address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the rules that apply on a scope, in the order in which they are tried."""
    from farthing.router.v1 import router_pb2

    nothing = (
        "No rule applies here. Keep one: farthing rules set --file FILE; services/router/README.md shows how it is written."
    )
    _print(scope, address, lambda token: router_pb2.ListRulesRequest(scope=scope, page_token=token), nothing)


@rules_app.command("show")
def show_rule(rule_id: RuleId, scope: Scope = DEFAULT_SCOPE, address: Address = DEFAULT_ADDRESS) -> None:
    """Shows a rule with all that it ever was, newest first."""
    from farthing.router.v1 import router_pb2

    nothing = f"There is no rule {rule_id!r} on {scope}. Those that are there: farthing rules list --scope {scope}"
    _print(scope, address, lambda token: router_pb2.ListRulesRequest(scope=scope, rule_id=rule_id, page_token=token), nothing)


@rules_app.command("set")
def set_rule(
    file: Annotated[
        Path,
        typer.Option(help="The rule, written as routing.rules in farthing.yaml, with its scope.", exists=True, dir_okay=False),
    ],
    rule_id: Annotated[str, typer.Option(help="The rule to change; a new one is created when empty.")] = "",
    version: Annotated[int, typer.Option(help="Only while this is its newest version; whatever it is when 0.")] = 0,
    request_id: RequestId = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Creates a rule, or changes one to what a file says. Prints its name and version."""
    from farthing.router.v1 import router_pb2

    rule = _rule(_read(file), file)
    rule.rule_id, rule.version = rule_id, version
    request_id = request_id or str(uuid.uuid4())
    if rule_id:
        kept = _ask(address, "UpdateRule", router_pb2.UpdateRuleRequest(request_id=request_id, rule=rule)).rule
    else:
        kept = _ask(address, "CreateRule", router_pb2.CreateRuleRequest(request_id=request_id, rule=rule)).rule
    typer.echo(f"{kept.rule_id} version {kept.version}")


@rules_app.command("delete")
def delete_rule(
    rule_id: RuleId,
    scope: Scope = DEFAULT_SCOPE,
    version: Annotated[int, typer.Option(help="Only while this is its newest version; whatever it is when 0.")] = 0,
    request_id: RequestId = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Takes a rule out of use; what it was stays readable."""
    from farthing.router.v1 import router_pb2

    request = router_pb2.DeleteRuleRequest(
        request_id=request_id or str(uuid.uuid4()), scope=scope, rule_id=rule_id, version=version
    )
    typer.echo(f"{rule_id} is out of use since version {_ask(address, 'DeleteRule', request).rule.version}")


@route_app.command("explain")
def explain_route(
    prompt: Annotated[str, typer.Argument(help="What would be asked.")],
    scope: Scope = DEFAULT_SCOPE,
    model: Annotated[str, typer.Option(help="A model, or farthing/auto.")] = "",
    task: Annotated[str, typer.Option(help="What for.")] = "chat",
    tier: Annotated[str, typer.Option(help="The tier of the user; the highest when empty.")] = "",
    optimize_for: Annotated[str, typer.Option(help="cost, latency, quality or balanced.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Says whom the router would ask and why, with every model of the catalog. Calls nobody."""
    from farthing.chat.v1 import chat_pb2
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    wish: Any = enum_number(router_pb2.OptimizeFor, "OPTIMIZE_FOR", optimize_for, "--optimize-for") if optimize_for else 0
    plan = router_pb2.PlanRouteRequest(
        scope=scope,
        model=model,
        task=task,
        tier=tier,
        messages=[chat_pb2.ChatMessage(role="user", content=prompt)],
        optimize_for=wish,
    )
    said = _ask(address, "ExplainRoute", router_pb2.ExplainRouteRequest(plan=plan))
    table = Table("", "model", "provider", "likely USD", "latency ms", "quality", "why", title=said.reason)
    for each in said.considerations:
        quality = f"{each.predicted_quality:.2f} ({each.quality_source})" if each.HasField("predicted_quality") else ""
        table.add_row(
            "✓" if each.chosen else "",
            each.model,
            each.provider,
            f"{each.likely_usd_nanos / _NANOS_PER_USD:.6f}" if each.HasField("likely_usd_nanos") else "",
            f"{each.predicted_latency_ms:,}" if each.HasField("predicted_latency_ms") else "",
            quality,
            each.reason,
        )
    rule = (
        f"rule {said.rule.display_name or said.rule.rule_id} version {said.rule.version}"
        if said.HasField("rule")
        else "no rule"
    )
    table.caption = f"{rule}; complexity {said.complexity:.2f}: {', '.join(said.complexity_reasons)}"
    show(table)


def _ask(address: str, method: str, request: Any) -> Any:
    from farthing.router.v1 import router_pb2_grpc

    return ask(router_pb2_grpc.RouterServiceStub, method, request, address=address)


def _print(scope: str, address: str, page_of: Any, nothing: str) -> None:
    from google.protobuf.json_format import MessageToDict
    from rich.table import Table

    table, token = Table("rule", "version", "scope", "priority", "name", "for", "does", "state", title=scope), ""
    while True:
        page = _ask(address, "ListRules", page_of(token))
        for each in page.rules:
            said = MessageToDict(each, preserving_proto_field_name=True)
            table.add_row(
                each.rule_id,
                str(each.version),
                each.scope or "everybody",
                str(each.priority),
                each.display_name,
                _words(said.get("match", {})) or "everything",
                _words(said.get("action", {})),
                "deleted" if each.deleted else "disabled" if each.disabled else "in use",
            )
        token = page.next_page_token
        if not token:
            break
    show(table, nothing=nothing)


def _words(given: Mapping[str, Any]) -> str:
    """A message's fields in a line, as farthing.yaml writes them."""
    parts = []
    for name, value in given.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for prefix in ("RULE_STRATEGY_", "OPTIMIZE_FOR_"):
            text = text.replace(prefix, "")
        if name in ("strategy", "optimize_for"):
            text = text.lower()
        parts.append(text if name == "strategy" else f"{name} {text}")
    return "; ".join(parts)


def _read(file: Path) -> Any:
    import yaml

    from farthing_runtime.settings import SettingsInvalid

    try:
        return yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsInvalid(field=str(file), problem=f"is no YAML: {error}".replace("\n", " ")) from error


def _rule(given: Any, file: Path) -> Any:
    """The message of a rule as farthing.yaml writes it. Raises SettingsInvalid for what is none."""
    from farthing.router.v1 import router_pb2
    from google.protobuf.json_format import ParseDict, ParseError

    from farthing_runtime.settings import SettingsInvalid

    if not isinstance(given, Mapping):
        raise SettingsInvalid(field=str(file), problem="is no rule: write scope, match and action")
    fields = dict(given)
    action, match = fields.get("action"), fields.get("match")
    if isinstance(action, Mapping) and "strategy" in action:
        strategy = enum_number(router_pb2.RuleStrategy, "RULE_STRATEGY", action["strategy"], "action.strategy")
        fields["action"] = {**action, "strategy": strategy}
    if isinstance(match, Mapping) and isinstance(match.get("optimize_for"), list):
        wishes = [
            enum_number(router_pb2.OptimizeFor, "OPTIMIZE_FOR", each, "match.optimize_for") for each in match["optimize_for"]
        ]
        fields["match"] = {**match, "optimize_for": wishes}
    try:
        return ParseDict(fields, router_pb2.Rule())
    except ParseError as error:
        raise SettingsInvalid(field=str(file), problem=" ".join(str(error).split())) from error
