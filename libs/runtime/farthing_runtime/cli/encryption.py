"""`farthing encryption`: data keys of organisations."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from farthing_runtime.cli.asking import ask
from farthing_runtime.cli.host import DEFAULT_ADDRESS, Address
from farthing_runtime.cli.printing import show

encryption_app = typer.Typer(no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="The organisation, such as organizations/acme.")]
Purpose = Annotated[str, typer.Option(help="Only keys of this purpose, such as cache; all when empty.")]


@encryption_app.command("status")
def status(scope: Scope, address: Address = DEFAULT_ADDRESS) -> None:
    """Lists an organisation's data keys, erased ones too; never the keys themselves."""
    from farthing.privacy.v1 import privacy_pb2
    from rich.table import Table

    table, token = Table("purpose", "key", "made", "master key", "state"), ""
    while True:
        page = _ask("ListDataKeys", privacy_pb2.ListDataKeysRequest(scope=scope, page_token=token), address)
        for key in page.keys:
            state = "in use"
            if key.HasField("erase_time"):
                state = f"erased {_day(key.erase_time)}" + (f" by {key.erased_by}" if key.erased_by else "")
            table.add_row(key.purpose, str(key.number), _day(key.create_time), key.master_key_id, state)
        token = page.next_page_token
        if not token:
            break
    show(table, nothing="No key yet: the first is made when something is to be encrypted.")


@encryption_app.command("rotate")
def rotate(
    scope: Scope,
    purpose: Purpose = "",
    rewrap_only: Annotated[
        bool, typer.Option("--rewrap-only", help="Only wrap the keys anew, under the current master key.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Makes new data keys for what is encrypted from now on; what is there stays readable."""
    from farthing.privacy.v1 import privacy_pb2

    request = privacy_pb2.RotateKeysRequest(request_id=str(uuid.uuid4()), scope=scope, purpose=purpose, rewrap_only=rewrap_only)
    done = _ask("RotateKeys", request, address)
    typer.echo(f"{done.made} made, {done.rewrapped} wrapped anew")


@encryption_app.command("erase")
def erase(
    scope: Scope,
    purpose: Purpose = "",
    may_begin_again: Annotated[
        bool, typer.Option("--may-begin-again", help="Make new keys when something is to be encrypted later.")
    ] = False,
    actor: Annotated[str, typer.Option(help="Who asks, for the record.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Erases data keys for ever: nobody can read what they encrypted any more."""
    from farthing.privacy.v1 import privacy_pb2

    if not yes:
        typer.confirm(
            f"What is encrypted for {purpose or 'every purpose'} of {scope} will be lost for ever. Go on?", abort=True
        )
    request = privacy_pb2.EraseKeysRequest(
        scope=scope, purpose=purpose, may_begin_again=may_begin_again, actor=actor, reason=reason
    )
    done = _ask("EraseKeys", request, address)
    typer.echo(f"{done.erased} erased; the last copy on loan ends within {done.leases_end_s} s")


def _day(stamp: Any) -> str:
    return str(stamp.ToDatetime().strftime("%Y-%m-%d %H:%M"))


def _ask(method: str, request: Any, address: str) -> Any:
    from farthing.privacy.v1 import privacy_pb2_grpc

    return ask(privacy_pb2_grpc.PrivacyServiceStub, method, request, address=address)
