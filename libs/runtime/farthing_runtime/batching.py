"""Batches: what waits when the previous batch has returned goes together into the next one.

The busier it gets, the larger the batches and the cheaper each item; alone, an item waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from farthing_core.errors import FarthingError

_BUSY_ITEMS = 3
_FULL_ITEMS = 48
_STEP_S = 0.001
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Group = tuple[Sequence[_Item], "asyncio.Future[Sequence[_Result | BaseException]]"]


class QueueFull(FarthingError):
    """More items wait than the queue holds."""

    unreachable = True

    def __init__(self, *, waiting: int) -> None:
        super().__init__(f"{waiting} items wait already", waiting=waiting)
        self.retry_after_s = 0.5


class Batcher(Generic[_Item, _Result]):
    """One queue and the one task that works it off, batch by batch.

    `work` takes a batch and gives one result an item, in order; a result that is an exception is raised to its own caller only. When `work`
    itself raises, everybody in the batch gets that. Under load (a batch of several just went) `linger_s` is waited for more to
    come.
    """

    def __init__(
        self,
        work: Callable[[Sequence[_Item]], Awaitable[Sequence[_Result | BaseException]]],
        *,
        batch_size_max: int,
        queue_size_max: int,
        linger_s: float = 0.0,
    ) -> None:
        self._do = work
        self._batch_size_max = batch_size_max
        self._queue_size_max = queue_size_max
        self._linger_s = linger_s
        self._waiting: deque[_Group[_Item, _Result]] = deque()
        self._items = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._last = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batcher[_Item, _Result]]:
        """Works until the block ends; what waits then is done first."""
        worker = asyncio.create_task(self._work())
        try:
            yield self
        finally:
            self._closing = True
            self._arrived.set()
            await worker

    async def submit(self, item: _Item) -> _Result:
        """The result of an item. A caller who gives up does not take it back: it may be done already. Raises QueueFull."""
        result = (await self._enqueue((item,)))[0]
        if isinstance(result, BaseException):
            raise result
        return result

    async def submit_all(self, items: Sequence[_Item]) -> Sequence[_Result | BaseException]:
        """The results of many items, in order; they go into one batch. Raises QueueFull, and what `work` raises."""
        return await self._enqueue(items)

    def _enqueue(self, items: Sequence[_Item]) -> asyncio.Future[Sequence[_Result | BaseException]]:
        if self._closing or self._items + len(items) > self._queue_size_max:
            raise QueueFull(waiting=self._items)
        future: asyncio.Future[Sequence[_Result | BaseException]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        self._items += len(items)
        self._arrived.set()
        return future

    async def _work(self) -> None:
        while not self._closing or self._waiting:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._linger()
                self._last = self._items
                await self._work_off(self._next())

    def _next(self) -> list[_Group[_Item, _Result]]:
        """The groups of the next batch: as many as fit, and one at least."""
        groups: list[_Group[_Item, _Result]] = []
        count = 0
        while self._waiting and (not groups or count + len(self._waiting[0][0]) <= self._batch_size_max):
            groups.append(self._waiting.popleft())
            count += len(groups[-1][0])
        self._items -= count
        return groups

    async def _linger(self) -> None:
        """Under load, gives more the time to come for as long as they keep coming; nobody waits for whoever does not come."""
        if not self._linger_s or self._closing or self._last < _BUSY_ITEMS:
            return
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        if self._items >= self._last:  # whoever the last batch answered is back already
            return
        ends_at, before = loop.time() + self._linger_s, -1
        while before < self._items < _FULL_ITEMS and loop.time() < ends_at:
            before = self._items
            await asyncio.sleep(_STEP_S)

    async def _work_off(self, groups: list[_Group[_Item, _Result]]) -> None:
        try:
            results = await self._do([item for items, _ in groups for item in items])
        except asyncio.CancelledError:
            for _, future in groups:
                future.cancel()
            raise
        except Exception as error:
            for _, future in groups:
                if not future.done():
                    future.set_exception(error)
            return
        at = 0
        for items, future in groups:
            if not future.done():
                future.set_result(results[at : at + len(items)])
            at += len(items)
