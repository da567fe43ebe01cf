"""A blocking model in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog

from farthing_cache.embedding.encoding import EmbeddingUnavailable, Model
from farthing_cache.embedding.reading import Reading

_log = structlog.get_logger()


class Threaded:
    """The Encoder of a Model, which is loaded at its first use. One that cannot be loaded is tried again with the next texts."""

    def __init__(self, load: Callable[[], Model], *, fingerprint: str) -> None:
        self._load = load
        self._model: Model | None = None
        self.fingerprint = fingerprint

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Threaded]:
        """Until the block ends."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding") as thread:
            self._thread = thread
            yield self

    async def read(self, texts: Sequence[str]) -> Sequence[Reading]:
        """What the model reads. Raises EmbeddingUnavailable where it fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, list(texts))
        except Exception as error:
            _log.error("the embedding model failed", texts=len(texts), error=type(error).__name__, exc_info=error)
            raise EmbeddingUnavailable("the embedding model failed") from error

    def _read(self, texts: Sequence[str]) -> list[Reading]:
        if self._model is None:
            self._model = self._load()
        return self._model.read(texts)
