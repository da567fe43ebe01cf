"""Keeps what is learned of the lengths of answers, and shares it among replicas, off the path of requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import structlog

from farthing_budget.sizing.learner import Learner
from farthing_budget.store import LengthStore

_TURN_S_MAX = 10.0
_KEYS_AT_ONCE = 128
_log = structlog.get_logger()


class Sharing:
    """Exchanges with the store what a learner has seen for what others have."""

    def __init__(self, learner: Learner, store: LengthStore) -> None:
        self._learner = learner
        self._store = store
        self._after: datetime | None = None

    async def turn(self) -> None:
        """One exchange. What fails is logged and left to the next: nobody waits for it, and nothing learned is lost."""
        fresh = self._learner.take_fresh()
        try:
            async with asyncio.timeout(_TURN_S_MAX):
                shared = await self._store.exchange(fresh, after=self._after)
        except Exception as error:  # whatever it is, requests go on with what this process knows
            self._learner.give_back(fresh)
            _log.warning("what was learned could not be shared; it is tried again", error=type(error).__name__)
            return
        self._after = shared.latest
        keys = list(shared.counts)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            self._learner.adopt({key: shared.counts[key] for key in keys[start : start + _KEYS_AT_ONCE]})
            await asyncio.sleep(0)  # requests have their turn


@asynccontextmanager
async def sharing(learner: Learner, store: LengthStore, *, interval_s: float) -> AsyncIterator[None]:
    """Begins with what was learned before, shares every so often until the block ends, and once more then."""
    turns, ending = Sharing(learner, store), asyncio.Event()

    async def work() -> None:
        while not ending.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await ending.wait()
            if not ending.is_set():
                await turns.turn()

    await turns.turn()
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        ending.set()
        await task
        await turns.turn()
