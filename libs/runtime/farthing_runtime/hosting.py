"""The composition root: starts targets, serves them, and stops them in the reverse order."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from farthing_runtime.catalog import Target
from farthing_runtime.interceptors import Validator, dress, guard
from farthing_runtime.local import LocalServer
from farthing_runtime.local_calls import MESSAGE_BYTES_MAX
from farthing_runtime.mesh import HostMesh
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.settings import SHARED_FIELDS, HostSettings, ServiceSettings, SettingsInvalid, load

_STOP_SLACK_S = 5.0
_log = structlog.get_logger()
_SERVER_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Suite:
    """A running host: where it listens, what it serves, and how it talks to itself."""

    grpc_address: str
    endpoints: Mapping[str, str]
    targets: tuple[str, ...]
    mesh: HostMesh
    start_s: float
    database_url: str = field(repr=False, default="")


@asynccontextmanager
async def running_suite(
    settings: HostSettings,
    targets: Sequence[Target],
    *,
    extra_bindings: Mapping[str, Sequence[ServiceBinding]] | None = None,
) -> AsyncIterator[Suite]:
    """Hosts targets in this process until the block ends.

    `extra_bindings` hosts further services under the name of a target (tests give a peer that way). Start-up that fails half-way
    closes what was opened. Raises SettingsInvalid for settings that cannot be and PostgresFailed when there is no database to be had.
    """
    began_s = time.monotonic()
    async with AsyncExitStack() as stack:
        database_url = await _database(settings, targets, stack)
        local = LocalServer()
        hosted = frozenset(target.name for target in targets) | frozenset(extra_bindings or ())
        mesh = HostMesh(
            local=local, hosted=hosted, addresses=settings.peers, internal_token=settings.internal_token.get_secret_value()
        )
        stack.push_async_callback(mesh.close)
        registrar = DressingRegistrar(local, mesh)
        for bindings in (extra_bindings or {}).values():
            registrar.add(bindings)
        endpoints: dict[str, str] = {}
        for target in targets:
            registration = await stack.enter_async_context(
                target.app()(_service_settings(target, settings, database_url), mesh)
            )
            registrar.add(registration.services)
            endpoints.update(registration.endpoints)
        address = await stack.enter_async_context(_listening(settings, registrar))
        names = tuple(target.name for target in targets)
        yield Suite(
            grpc_address=address,
            endpoints={"grpc": address, **endpoints},
            targets=names,
            mesh=mesh,
            start_s=time.monotonic() - began_s,
            database_url=database_url,
        )


async def serve_until_signalled(settings: HostSettings, targets: Sequence[Target], *, on_ready: Any = None) -> None:
    """Hosts targets until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_suite(settings, targets) as suite:
        _settle_garbage_collector()
        if on_ready is not None:
            on_ready(suite)
        await stop.wait()
        _log.info("stopping", grace_s=settings.shutdown_grace_s)


def _settle_garbage_collector() -> None:
    """What lives until the end is taken out of the collector's sight, and it looks less often: requests leave hardly any cycles, and
    going through every descriptor and model at each turn costs more than the rest of a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class DressingRegistrar:
    """Takes servicers as a gRPC server would, dresses their handlers, and keeps them for every way in."""

    def __init__(self, local: LocalServer, mesh: HostMesh) -> None:
        self._local = local
        self._proves = mesh.proves
        self._validator = Validator()
        self._binding: ServiceBinding | None = None
        self.handlers: dict[str, dict[str, grpc.RpcMethodHandler]] = {}

    def add(self, bindings: Sequence[ServiceBinding]) -> None:
        """Registers services."""
        for binding in bindings:
            self._binding = binding
            binding.add_to_server(binding.servicer, self)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Ignored: the same handlers come by name."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Dresses the handlers of one service."""
        assert self._binding is not None
        dressed = {name: dress(handler, self._binding, self._validator) for name, handler in method_handlers.items()}
        for name in self._binding.internal & dressed.keys():
            dressed[name] = guard(dressed[name], self._proves)
        self.handlers[service_name] = dressed
        for name, handler in dressed.items():
            self._local.add(f"/{service_name}/{name}", handler)


async def _database(settings: HostSettings, targets: Sequence[Target], stack: AsyncExitStack) -> str:
    if not any(target.schema for target in targets):
        return settings.database_url
    url = settings.database_url or await stack.enter_async_context(embedded_postgres(settings.data_dir))
    for line in await migrate(url, targets):
        _log.info("migrated", what=line)
    return url


def _service_settings(target: Target, settings: HostSettings, database_url: str) -> ServiceSettings:
    shared = {
        "database_url": database_url,
        "redis_url": settings.redis_url or None,
        "data_dir": settings.data_dir,
        "config_file": settings.config_file,
    }
    assert set(shared) == set(SHARED_FIELDS)
    loaded: ServiceSettings = load(target.settings_type(), **shared)
    return loaded


@asynccontextmanager
async def _listening(settings: HostSettings, registrar: DressingRegistrar) -> AsyncIterator[str]:
    """The gRPC server over TCP with health and reflection; readiness goes first at the end, then calls in flight."""
    server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=settings.concurrent_rpcs_max)
    for service, handlers in registrar.handlers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (*registrar.handlers, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(f"{settings.grpc_host}:{settings.grpc_port}")
    except RuntimeError as error:
        problem = f"cannot listen on {settings.grpc_host}:{settings.grpc_port}: is it in use?"
        raise SettingsInvalid(field="FARTHING_GRPC_PORT", problem=problem) from error
    await server.start()
    for name in (*registrar.handlers, ""):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield f"{settings.grpc_host}:{port}"
    finally:
        await health.enter_graceful_shutdown()
        await _stop(server, settings.shutdown_grace_s)


async def _stop(server: grpc.aio.Server, grace_s: float) -> None:
    """Ends a server. gRPC waits for the last trace of every call, for which it has no bound: what is behind it must close all the same."""
    stopping = asyncio.create_task(server.stop(grace_s))
    done, _ = await asyncio.wait({stopping}, timeout=grace_s + _STOP_SLACK_S)
    if done:
        await stopping
    else:
        _log.warning("the gRPC server did not stop in time; going on without it", waited_s=grace_s + _STOP_SLACK_S)
