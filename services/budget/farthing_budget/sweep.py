"""The sweep: holds whose time is up become suspense, so that nothing is held for ever with nobody working on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope

from farthing_budget.lane import Lane
from farthing_budget.ledger import Lapse

Lapsed = Callable[[int], Awaitable[list[tuple[str, str]]]]
"""At most so many (scope, request_id) of open holds whose time is up."""
_COUNT_MAX = 500


async def sweep_once(lapsed: Lapsed, lane: Lane) -> int:
    """Moves what has lapsed into suspense; returns how many holds that were."""
    found = await lapsed(_COUNT_MAX)
    for scope, request_id in found:
        await lane.submit(Lapse(parse_scope(scope), request_id))
    return len(found)


@asynccontextmanager
async def sweeping(lapsed: Lapsed, lane: Lane, *, interval_s: float) -> AsyncIterator[None]:
    """Sweeps every so often until the block ends; a database that is away is tried again at the next turn."""

    async def work() -> None:
        while True:
            with suppress(FarthingError):
                while await sweep_once(lapsed, lane) == _COUNT_MAX:
                    pass
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
