"""Work beside served answers that nobody waits for: a few at once, a few in line, the rest dropped and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from farthing_orchestrator.deferred import Deferred


@dataclass(frozen=True, slots=True)
class AsideLimits:
    """How much is done at once, and how much may wait for that."""

    at_once_max: int
    waiting_max: int


class Aside:
    """Begins work in turn. `dropped` counts what there was no room for."""

    def __init__(self, *, deferred: Deferred, limits: AsideLimits) -> None:
        self._deferred = deferred
        self._turns = asyncio.Semaphore(limits.at_once_max)
        self._under_way_max = limits.at_once_max + limits.waiting_max
        self._under_way = 0
        self.dropped = 0

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Begins work when its turn comes, and returns at once; False where it was dropped."""
        if self._under_way >= self._under_way_max or self._deferred.ending:
            self.dropped += 1
            return False
        self._under_way += 1
        self._deferred.adopt(self._in_turn(work)).add_done_callback(self._ended)
        return True

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._under_way -= 1

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._turns:
            if not self._deferred.ending:  # whoever waits for the end shall not wait for what has not begun
                await work()
