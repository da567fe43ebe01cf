"""Work that goes on beside a block and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

_AGAIN_S = 0.5


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs work until the block ends, and waits for its end. Raises what the work raised."""
    async with AsyncExitStack() as stack:
        for work in works:
            stack.push_async_callback(_ended, asyncio.create_task(work))
        yield


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancels until it helps: `asyncio.wait_for` before Python 3.12 loses a cancellation that comes together with what it waited for."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)
    if not task.cancelled():
        task.result()
