"""`farthing models`: the models, where they run and how that is going."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

models_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="Whose prices: organizations/acme. Nobody's in particular when empty.")]
_NANOS_PER_USD = 1_000_000_000


@models_app.command("list")
def list_models(scope: Scope = "", address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the models of the catalog."""
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    names = ("model", "tier", "provider", "deployments", "window", "answer", "input", "output", "can")
    table, token = Table(*names, caption="windows and answers in tokens, prices in dollars per million tokens"), ""
    while True:
        page = _ask(address, "ListModels", router_pb2.ListModelsRequest(scope=scope, page_token=token))
        for each in page.models:
            rates = (each.input_usd_nanos_per_million_tokens, each.output_usd_nanos_per_million_tokens)
            usd = [f"{rate / _NANOS_PER_USD:g}" for rate in rates] if each.price_source else ["unknown", "unknown"]
            numbers = (str(each.deployments), str(each.context_window_tokens), str(each.output_tokens_max))
            table.add_row(each.model, each.tier, each.provider, *numbers, *usd, ", ".join(each.capabilities))
        token = page.next_page_token
        if not token:
            break
    show(table, nothing="No models: name providers and models in farthing.yaml, as services/router/README.md shows.")


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A model, as users name it.")],
    scope: Scope = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Shows a model's deployments, and how they are doing in the replica that answers."""
    from farthing.router.v1 import router_pb2
    from rich.console import Console

    found = _ask(address, "GetModel", router_pb2.GetModelRequest(model=model, scope=scope))
    show(_deployments(found.model.model, found.deployments))
    if found.fallbacks:
        Console().print(f"when it fails: {', '.join(found.fallbacks)}")


@models_app.command("deployment")
def update_deployment(
    deployment: Annotated[str, typer.Argument(help="Its name, as `farthing models show` prints it.")],
    weight: Annotated[
        float | None, typer.Option(help="Its share of the calls, relative to the others; 0: only in need.", min=0)
    ] = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it takes calls at all.")] = None,
    request_id: Annotated[str, typer.Option(help="A UUID that makes the call safe to repeat; a new one when empty.")] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Changes a deployment's weight, or takes it out of use or back; every replica follows."""
    from farthing.router.v1 import router_pb2
    from google.protobuf.field_mask_pb2 import FieldMask

    from farthing_runtime.settings import SettingsInvalid

    paths = [name for name, given in (("weight", weight), ("enabled", enable)) if given is not None]
    if not paths:
        raise SettingsInvalid(field="models deployment", problem="give --weight, --enable or --disable")
    wished = router_pb2.Deployment(deployment=deployment, weight=weight or 0.0, enabled=bool(enable))
    request = router_pb2.UpdateDeploymentRequest(
        request_id=request_id or str(uuid.uuid4()), deployment=wished, update_mask=FieldMask(paths=paths)
    )
    changed = _ask(address, "UpdateDeployment", request).deployment
    show(_deployments(changed.model, [changed]))


def _deployments(model: str, deployments: Any) -> Any:
    from farthing.router.v1 import router_pb2
    from rich.table import Table

    names = ("deployment", "provider", "host", "weight", "health", "in flight", "latency", "errors", "left", "why")
    table = Table(*names, title=model, caption="left: requests and tokens that the provider says are left in its window")
    for each in deployments:
        health = router_pb2.DeploymentHealth.Name(each.health).removeprefix("DEPLOYMENT_HEALTH_").lower().replace("_", " ")
        left = [f"{getattr(each, name)}" if each.HasField(name) else "?" for name in ("requests_remaining", "tokens_remaining")]
        table.add_row(
            f"{each.deployment} (batch)" if each.batch else each.deployment,
            f"{each.provider} ({each.region})" if each.region else each.provider,
            each.host,
            f"{each.weight:g}",
            health,
            str(each.calls_in_flight),
            f"{each.latency_ms} ms" if each.HasField("latency_ms") else "",
            f"{each.error_rate:.0%}",
            "" if left == ["?", "?"] else ", ".join(left),
            each.cooldown_reason,
        )
    return table


def _ask(address: str, method: str, request: Any) -> Any:
    from farthing.router.v1 import router_pb2_grpc

    return ask(router_pb2_grpc.RouterServiceStub, method, request, address=address)
