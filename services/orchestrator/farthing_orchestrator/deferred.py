"""Work that may end after the answer was delivered, but is never dropped: bounded, retried, waited for at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from farthing_core.errors import FarthingError

_Result = TypeVar("_Result")
_log = structlog.get_logger()


class Deferred:
    """Runs pieces of work beside the requests that asked for them."""

    def __init__(self, *, outstanding_max: int, attempts_max: int, backoff_s: float, backoff_s_max: float) -> None:
        self._outstanding_max = outstanding_max
        self._attempts_max = attempts_max
        self._backoff_s = backoff_s
        self._backoff_s_max = backoff_s_max
        self._tasks: set[asyncio.Task[Any]] = set()
        self.ending = False

    @asynccontextmanager
    async def running(self, *, grace_s: float) -> AsyncIterator[Deferred]:
        """Until the block ends; then everything outstanding, and what it leads to, is given `grace_s` to finish."""
        try:
            yield self
        finally:
            self.ending = True
            ends_at_s = asyncio.get_running_loop().time() + grace_s
            while self._tasks and (left_s := ends_at_s - asyncio.get_running_loop().time()) > 0:
                await asyncio.wait(self._tasks, timeout=left_s)
            late = list(self._tasks)
            for task in late:
                task.cancel()
            if late:
                _log.error("deferred work was cut off at shutdown", pieces=len(late))

    @property
    def outstanding(self) -> int:
        """How many pieces are under way."""
        return len(self._tasks)

    async def run(self, what: str, work: Callable[[], Awaitable[None]], *, request_id: str, may_fail: bool = False) -> None:
        """Starts a piece of work and returns at once; waits for it where too much is outstanding already.

        While its peer is out of reach it is tried again for as long as this process lives, or `attempts_max` times where it may fail.
        """
        task = asyncio.create_task(self._persist(what, work, request_id, may_fail=may_fail))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if len(self._tasks) > self._outstanding_max:
            await asyncio.shield(task)

    def adopt(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Starts work that its caller waits for, but that goes on when the caller goes away."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a caller who has gone away does not look

    async def _persist(self, what: str, work: Callable[[], Awaitable[None]], request_id: str, *, may_fail: bool) -> None:
        backoff_s, attempts = self._backoff_s, 0
        while True:
            attempts += 1
            try:
                return await work()
            except FarthingError as error:
                lost = may_fail and attempts >= self._attempts_max
                if lost or not getattr(error, "unreachable", False):
                    _log.error("deferred work failed", what=what, request_id=request_id, attempts=attempts, error=error.message)
                    return None
                if attempts == self._attempts_max:
                    _log.error(
                        "deferred work is still waiting for its peer", what=what, request_id=request_id, error=error.message
                    )
            except Exception as error:
                _log.error("deferred work failed", what=what, request_id=request_id, attempts=attempts, exc_info=error)
                return None
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, self._backoff_s_max)
