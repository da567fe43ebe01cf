"""`farthing serve`, `health`, `config` and `migrate`: running the suite and looking at it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from farthing_runtime.cli.printing import show

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_SCOPE = "organizations/default"
Address = Annotated[str, typer.Option(envvar="FARTHING_ADDRESS", help="Where a suite serves gRPC.")]


def serve(
    targets: Annotated[list[str] | None, typer.Argument(help="Services to host; all when none is named.")] = None,
) -> None:
    """Hosts services in this process until SIGTERM or Ctrl-C."""
    import uvloop

    from farthing_runtime.catalog import targets_named
    from farthing_runtime.hosting import Suite, serve_until_signalled
    from farthing_runtime.logs import configure_logs
    from farthing_runtime.settings import HostSettings, load

    settings = load(HostSettings)
    configure_logs(level=settings.log_level, form=settings.log_format)
    chosen = targets_named(tuple(targets or ()))

    def announce(suite: Suite) -> None:
        places = " · ".join(f"{kind} {address}" for kind, address in suite.endpoints.items())
        typer.echo(f"farthing serves {', '.join(suite.targets)} on {places} after {suite.start_s:.2f} s")

    uvloop.run(serve_until_signalled(settings, chosen, on_ready=announce))


def health(
    address: Address = DEFAULT_ADDRESS,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for an answer.")] = 3.0,
) -> None:
    """Asks a running host how each of its services is. Exit status 1 when one does not serve."""
    from rich.table import Table

    states = asyncio.run(_health(address, timeout_s))
    table = Table("service", "state")
    for name, state in states.items():
        table.add_row(name, state)
    show(table, nothing=f"{address} serves nothing of Farthing.")
    if not states or any(state != "SERVING" for state in states.values()):
        raise typer.Exit(1)


async def _health(address: str, timeout_s: float) -> dict[str, str]:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    from farthing_runtime.mesh import network_channel

    async with network_channel(address) as channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="*")
        try:
            stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=timeout_s)
            listed = [service.name async for answer in stream for service in answer.list_services_response.service]
        except grpc.aio.AioRpcError as error:
            return {address: f"{error.code().name}: {error.details()}"}
        stub, states = health_pb2_grpc.HealthStub(channel), {}
        for name in sorted(name for name in listed if name.startswith("farthing.")):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s)
            states[name] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return states


def config(
    every: Annotated[bool, typer.Option("--all", help="Also what is at its default.")] = False,
) -> None:
    """Prints the settings that differ from their defaults, and where they come from."""
    from rich.table import Table

    from farthing_runtime.catalog import CATALOG
    from farthing_runtime.config_file import load_config
    from farthing_runtime.settings import SHARED_FIELDS, HostSettings, blank_password, differences, load

    host = load(HostSettings)
    table = Table("variable", "value", "default", "meaning", show_lines=False)
    for kind in (HostSettings, *(target.settings_type() for target in CATALOG.values())):
        settings = host if kind is HostSettings else load(kind)
        changed = differences(settings)
        for name, info in kind.model_fields.items():
            if (kind is not HostSettings and name in SHARED_FIELDS) or not (every or name in changed):
                continue
            default = info.get_default(call_default_factory=True, validated_data={})
            variable = f"{kind.model_config.get('env_prefix')}{name.upper()}"
            table.add_row(variable, str(blank_password(getattr(settings, name))), str(default), info.description or "")
    show(table, nothing="Every setting is at its default.")
    sections = load_config(host.config_file)
    typer.echo(f"farthing.yaml: {host.config_file or 'none'}" + (f" ({', '.join(sections)})" if sections else ""))


def migrate() -> None:
    """Brings the database up to date and ends. `serve` does the same when it starts."""
    from farthing_runtime.catalog import CATALOG
    from farthing_runtime.migrations import migrate as run
    from farthing_runtime.postgres import embedded_postgres
    from farthing_runtime.settings import HostSettings, load

    settings = load(HostSettings)

    async def go() -> list[str]:
        targets = tuple(CATALOG.values())
        if settings.database_url:
            return await run(settings.database_url, targets)
        async with embedded_postgres(settings.data_dir) as url:
            return await run(url, targets)

    done = asyncio.run(go())
    typer.echo("\n".join(done) if done else "The database is up to date.")
