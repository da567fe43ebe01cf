"""`farthing keys`: API keys of the HTTP edge."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

keys_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="The scope, such as organizations/acme/workspaces/search.")]


@keys_app.command("create")
def create(
    scope: Scope,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    ttl_s: Annotated[int, typer.Option(help="Seconds until it ends by itself; never when 0.")] = 0,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Makes a key and shows its secret this once."""
    from farthing.gateway.v1 import access_pb2

    made = _ask("CreateKey", access_pb2.CreateKeyRequest(scope=scope, display_name=name, ttl_s=ttl_s), address)
    typer.echo(made.secret)
    typer.secho(f"key {made.key.key_id} speaks for {made.key.scope}; its secret is not shown again", err=True, fg="yellow")


@keys_app.command("list")
def list_keys(scope: Scope, address: Address = DEFAULT_ADDRESS) -> None:
    """Lists the keys at and below a scope."""
    from farthing.gateway.v1 import access_pb2
    from rich.table import Table

    table, token = Table("key", "scope", "name", "secret", "made", "state"), ""
    while True:
        page = _ask("ListKeys", access_pb2.ListKeysRequest(scope=scope, page_token=token), address)
        for key in page.keys:
            made = key.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
            table.add_row(key.key_id, key.scope, key.display_name, f"{key.prefix}…", made, _state(key))
        token = page.next_page_token
        if not token:
            break
    show(table, nothing="No key yet: farthing keys create --scope organizations/NAME makes one.")


@keys_app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key.")],
    scope: Scope,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Ends a key."""
    from farthing.gateway.v1 import access_pb2

    _ask("RevokeKey", access_pb2.RevokeKeyRequest(scope=scope, key_id=key_id), address)
    typer.echo(f"key {key_id} is revoked")


def _state(key: Any) -> str:
    if key.HasField("revoke_time"):
        return "revoked"
    return f"until {key.expire_time.ToDatetime():%Y-%m-%d %H:%M}" if key.HasField("expire_time") else "good"


def _ask(method: str, request: Any, address: str) -> Any:
    from farthing.gateway.v1 import access_pb2_grpc

    return ask(access_pb2_grpc.AccessServiceStub, method, request, address=address)
