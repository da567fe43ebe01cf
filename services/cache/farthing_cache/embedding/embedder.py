"""Readings of texts: one thread works, whoever waits goes into the next batch, and what was embedded a moment ago is not embedded again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol

from farthing_cache.embedding.reading import Reading


class Encoder(Protocol):
    """A blocking model."""

    def read(self, texts: list[str]) -> list[Reading]:
        """Readings, in the order of the texts."""
        ...


class Embedder:
    """An encoder in a thread of its own, loaded at its first use."""

    def __init__(self, load: Callable[[], Encoder], *, batch_max: int, remembered_max: int) -> None:
        self._load = load
        self._batch_max = batch_max
        self._remembered_max = remembered_max
        self._remembered: OrderedDict[str, Reading] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Reading]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._encoder: Encoder | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Embedder]:
        """Until the block ends."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding") as thread:
            self._thread = thread
            try:
                yield self
            finally:
                if self._worker is not None:
                    await asyncio.gather(self._worker, return_exceptions=True)

    async def reading(self, text: str) -> Reading:
        """A text as the model reads it."""
        known = self._remembered.get(text)
        if known is not None:
            self._remembered.move_to_end(text)
            return known
        waiting = self._waiting.get(text)
        if waiting is None:
            waiting = self._waiting[text] = asyncio.get_running_loop().create_future()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await asyncio.shield(waiting)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = list(self._waiting)[: self._batch_max]
            try:
                readings = await loop.run_in_executor(self._thread, self._read, batch)
            except Exception as error:
                for text in batch:
                    self._waiting.pop(text).set_exception(error)
                continue
            for text, reading in zip(batch, readings, strict=True):
                self._remember(text, reading)
                future = self._waiting.pop(text)
                if not future.done():
                    future.set_result(reading)

    def _read(self, texts: Sequence[str]) -> list[Reading]:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder.read(list(texts))

    def _remember(self, text: str, reading: Reading) -> None:
        self._remembered[text] = reading
        while len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)
