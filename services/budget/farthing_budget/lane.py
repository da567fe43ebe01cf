"""The lane: concurrent operations share one transaction.

Whatever waits when the previous transaction has returned goes into the next one together, so the busier the ledger, the larger its
batches and the cheaper each operation. Every operation has a verdict of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from farthing_core.errors import FarthingError

from farthing_budget.ledger import Operation, Outcome

Verdict = Outcome | BaseException
CommitBatch = Callable[[Sequence[Operation]], Awaitable[list[Verdict]]]
"""Applies a batch in one transaction; one verdict an operation, in order. Raises when the store is out of reach: then nothing was done."""


class LedgerBusy(FarthingError):
    """More operations wait than the lane holds."""

    def __init__(self, *, waiting: int) -> None:
        super().__init__(f"{waiting} operations wait already", waiting=waiting)
        self.retry_after_s = 0.5


class Lane:
    """One queue of operations and the one task that commits them, batch by batch."""

    def __init__(self, commit: CommitBatch, *, batch_size_max: int, queue_size_max: int) -> None:
        self._commit = commit
        self._batch_size_max = batch_size_max
        self._queue_size_max = queue_size_max
        self._waiting: deque[tuple[Operation, asyncio.Future[Outcome]]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Lane]:
        """Commits until the block ends; what waits then is committed first."""
        worker = asyncio.create_task(self._work())
        try:
            yield self
        finally:
            self._closing = True
            self._arrived.set()
            await worker

    async def submit(self, operation: Operation) -> Outcome:
        """The outcome of an operation, once it is durable.

        A caller who gives up does not take the operation back: it may be committed already. Raises LedgerBusy when the queue is full,
        and what the operation itself or the store raises.
        """
        if self._closing or len(self._waiting) >= self._queue_size_max:
            raise LedgerBusy(waiting=len(self._waiting))
        verdict: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, verdict))
        self._arrived.set()
        return await verdict

    async def _work(self) -> None:
        while not self._closing or self._waiting:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_size_max))]
                await self._commit_batch(batch)

    async def _commit_batch(self, batch: list[tuple[Operation, asyncio.Future[Outcome]]]) -> None:
        try:
            verdicts = await self._commit([operation for operation, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            verdicts = [error] * len(batch)
        for (_, future), verdict in zip(batch, verdicts, strict=True):
            if future.done():
                continue
            if isinstance(verdict, BaseException):
                future.set_exception(verdict)
            else:
                future.set_result(verdict)
