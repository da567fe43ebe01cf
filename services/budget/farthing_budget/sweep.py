"""The sweep: holds whose time is up become suspense, so that nothing is held for ever with nobody working on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from farthing_core.scopes import parse_scope
from farthing_runtime.beside import beside

from farthing_budget.lane import Lane
from farthing_budget.operations import Lapse

Lapsed = Callable[[int], Awaitable[list[tuple[str, str]]]]
"""At most so many (scope, request_id) of open holds whose time is up."""
_COUNT_MAX = 256
_ROUNDS_MAX = 64
_log = structlog.get_logger()


async def sweep_once(lapsed: Lapsed, lane: Lane) -> int:
    """Moves some of what has lapsed into suspense; returns how many holds that were. What fails is logged and left to the next turn."""
    found = await lapsed(_COUNT_MAX)
    # Submitted together, they share a transaction instead of taking one each.
    verdicts = await asyncio.gather(
        *(lane.submit(Lapse(parse_scope(scope), request_id)) for scope, request_id in found), return_exceptions=True
    )
    failed = [verdict for verdict in verdicts if isinstance(verdict, BaseException)]
    if failed:
        _log.warning("holds could not be moved into suspense", holds=len(failed), error=type(failed[0]).__name__)
    return len(found) - len(failed)


@asynccontextmanager
async def sweeping(lapsed: Lapsed, lane: Lane, *, interval_s: float) -> AsyncIterator[None]:
    """Sweeps every so often until the block ends; a database that is away is tried again at the next turn."""

    async def turn() -> None:
        for _ in range(_ROUNDS_MAX):
            if await sweep_once(lapsed, lane) < _COUNT_MAX:
                return

    async def work() -> None:
        while True:
            try:
                await turn()
            except Exception as error:  # whatever it is, the sweep must go on: held money would never come free again
                _log.warning("the sweep failed; it is tried again", error=type(error).__name__)
            await asyncio.sleep(interval_s)

    async with beside(work()):
        yield
