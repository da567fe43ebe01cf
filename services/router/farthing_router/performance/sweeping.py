"""Deleting what is older than it is kept: a bounded part at a time, beside requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

ROWS = 5_000
_TURNS_MAX = 200
_INTERVAL_S = 600.0
_log = structlog.get_logger()

Forget = Callable[[], Awaitable[int]]
"""Deletes at most ROWS rows; says how many."""


async def sweep(forget: Forget) -> int:
    """Deletes until nothing is left, or as much as one turn may; says how many rows. Raises what `forget` raises."""
    total = 0
    for _ in range(_TURNS_MAX):
        gone = await forget()
        total += gone
        if gone < ROWS:
            break
        await asyncio.sleep(0)
    return total


async def sweep_on(forget: Forget, *, what: str) -> None:
    """Sweeps every ten minutes until it is cancelled."""
    while True:
        try:
            await sweep(forget)
        except Exception as error:  # whatever it is, the next turn must come
            _log.warning("what is old could not be deleted; it is tried again", what=what, error=type(error).__name__)
        await asyncio.sleep(_INTERVAL_S)
