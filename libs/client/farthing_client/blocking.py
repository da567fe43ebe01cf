"""The same client for code without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

from farthing_client.client import Answer, Farthing, Prompt


class BlockingFarthing:
    """A connection to a suite that blocks; it keeps an event loop in a thread of its own until it is closed."""

    def __init__(self, address: str, *, scope: str, timeout_s: float = 120.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="farthing", daemon=True)
        self._thread.start()

        async def connect() -> Farthing:
            return Farthing(address, scope=scope, timeout_s=timeout_s)

        self._client = self._wait(connect())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and ends the thread."""
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def complete(self, prompt: Prompt, **fields: Any) -> Answer:
        """The answer to a prompt. Raises Failure."""
        answer: Answer = self._wait(self._client.complete(prompt, **fields))
        return answer

    def stream(self, prompt: Prompt, **fields: Any) -> Iterator[str | Answer]:
        """Pieces of the answer as they come, then the whole Answer. Raises Failure."""
        pieces = self._client.stream(prompt, **fields)
        try:
            while True:
                try:
                    yield self._wait(anext(pieces))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(pieces.aclose())

    def estimate(self, prompt: Prompt, **fields: Any) -> Any:
        """What the request would do and cost. Raises Failure."""
        return self._wait(self._client.estimate(prompt, **fields))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(work), self._loop).result()


async def _awaited(work: Any) -> Any:
    return await work
