"""The ledger in processes that can be killed, one after another, and a Postgres of their own that can be killed too.

A process is forked from one that has imported everything, since 200 interpreters would take longer to start than to be killed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from farthing.budget.v1 import budget_pb2_grpc
from farthing_runtime.postgres import Cluster

_PATIENCE_S = 60.0
_PRELOADED = [
    "evals.killable",
    "farthing_runtime.hosting",
    "farthing_budget.app",
    "farthing_budget.settings",
    "alembic.command",
    "uvloop",
]
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'farthing-budget' ORDER BY xact_start NULLS LAST, pid"


def serve_budget(database_url: str, folder: str, ready: Connection) -> None:
    """What `farthing serve budget` does, in a process of its own; sends its address when it serves."""
    import uvloop
    from farthing_runtime.catalog import targets_named
    from farthing_runtime.hosting import serve_until_signalled
    from farthing_runtime.logs import configure_logs
    from farthing_runtime.settings import HostSettings, load

    sys.stderr = open(os.path.join(folder, "killed.log"), "a", encoding="utf-8")  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 2)
    os.environ |= {"FARTHING_DATABASE_URL": database_url, "FARTHING_DATA_DIR": folder, "FARTHING_GRPC_PORT": "0"}
    configure_logs(level="error", form="text")
    suite = serve_until_signalled(
        load(HostSettings), targets_named(("budget",)), on_ready=lambda suite: ready.send(suite.grpc_address)
    )
    uvloop.run(suite)


class Killable:
    """A process that serves, another one that is ready to, and their Postgres."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._next: asyncio.Task[tuple[BaseProcess, str]] | None = None
        self._serving: BaseProcess | None = None
        self._channels: list[grpc.aio.Channel] = []
        self.stub: Any = None

    async def serve(self) -> None:
        """Lets the process that is ready serve, and makes another one ready."""
        self._serving, address = await (self._next or asyncio.to_thread(self._start))
        self._next = asyncio.create_task(asyncio.to_thread(self._start))
        # The channel of whoever was killed just now stays open: closing it would cancel those who still wait on it.
        while len(self._channels) > 1:
            await self._channels.pop(0).close()
        self._channels.append(grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]))
        self.stub = budget_pb2_grpc.BudgetServiceStub(self._channels[-1])

    async def kill(self, kind: str) -> None:
        """Kills what is named, and sees to it that there is a Postgres and a process again."""
        if "backend" in kind:
            await self._kill_backend()
        if "postgres" in kind:
            os.kill(self._postmaster(), signal.SIGQUIT)  # an immediate shutdown: nothing is written any more
        if "process" in kind:
            assert self._serving is not None
            self._serving.kill()
            self._serving.join()
        if "postgres" in kind:
            await asyncio.to_thread(self._restart_postgres)
        if "process" in kind:
            await self.serve()

    async def close(self) -> None:
        """Ends everything."""
        for channel in self._channels:
            await channel.close()
        ready = (await self._next)[0] if self._next is not None else None
        for process in (self._serving, ready):
            if process is not None:
                process.kill()
                process.join()

    def _start(self) -> tuple[BaseProcess, str]:
        """Starts a process; again where Postgres was killed just then."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            receiver, sender = self._context.Pipe(duplex=False)
            places = self._cluster.url("farthing"), str(self._folder)
            process = self._context.Process(target=serve_budget, args=(*places, sender), daemon=True)
            process.start()
            sender.close()
            with suppress(EOFError):
                return process, str(receiver.recv())
            process.join()
        raise RuntimeError(f"the ledger does not start any more: {(self._folder / 'killed.log').read_text()[-2_000:]}")

    async def _kill_backend(self) -> None:
        connection = await asyncpg.connect(self._cluster.url("farthing"))
        try:
            found = await connection.fetch(_BACKENDS)
        finally:
            await connection.close()
        with suppress(ProcessLookupError):
            os.kill(found[0]["pid"], signal.SIGKILL)

    def _postmaster(self) -> int:
        return int(self._pid_file.read_text().split(maxsplit=1)[0])

    def _restart_postgres(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while self._pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._cluster.start()

    @property
    def _pid_file(self) -> Path:
        return self._folder / "postgres" / "data" / "postmaster.pid"
