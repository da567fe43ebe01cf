"""A suite of its own process, for evals that measure over the wire."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_READY_S = 60.0


@asynccontextmanager
async def served(
    database_url: str, folder: Path, *, targets: tuple[str, ...], environment: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """Hosts targets in another process until the block ends; gives the address of their gRPC."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("farthing")),
        "serve",
        *targets,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ
        | {"FARTHING_DATABASE_URL": database_url, "FARTHING_DATA_DIR": str(folder), "FARTHING_GRPC_PORT": "0"}
        | dict(environment or {}),
    )
    try:
        yield await asyncio.wait_for(_address(process), _READY_S)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        words = line.decode().split()
        if "grpc" in words:
            return words[words.index("grpc") + 1]
    raise RuntimeError("the suite ended before it served")
