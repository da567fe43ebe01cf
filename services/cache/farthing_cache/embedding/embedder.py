"""Readings of texts: whoever waits shares a batch, look-ups go first, and what was read a moment ago is not read again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

import structlog

from farthing_cache.embedding.encoding import BUILT_IN, EmbeddingUnavailable, Encoder
from farthing_cache.embedding.reading import Reading

_OVERHEAD_BYTES = 600
_PATIENT_SHARE = 8
"""Every batch has a place in so many for those who are not urgent: they are slow under load, but never stand still."""
_BUSY, _CLOSING, _FAILED = "embedding is busy", "the cache is closing", "the embedding model failed"
_log = structlog.get_logger()
_Key = tuple[str, str]
_Waiting = asyncio.Future[Reading]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many texts go into a batch, how many batches are under way at once, how many texts may wait, the room for readings at hand."""

    batch_max: int
    batches_max: int
    waiting_max: int
    remembered_bytes_max: int


class Embedder:
    """An encoder that many ask at once. Organisations share nothing, so that nobody learns from the time it takes what others ask."""

    def __init__(self, encoder: Encoder, bounds: Bounds) -> None:
        self._encoder = encoder
        self._bounds = bounds
        self._remembered: OrderedDict[_Key, Reading] = OrderedDict()
        self._remembered_bytes = 0
        self._asked: dict[_Key, _Waiting] = {}
        self._urgent: dict[_Key, None] = {}
        self._patient: dict[_Key, None] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._bulk = asyncio.Lock()
        self._closing = False

    @property
    def fingerprint(self) -> str:
        """The name of the model: vectors are only compared with those of the same."""
        return self._encoder.fingerprint

    @property
    def built_in(self) -> bool:
        """Whether it is the model that everybody has who reads the vectors of look-ups."""
        return self._encoder.fingerprint.startswith(BUILT_IN)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Embedder]:
        """Until the block ends; what is under way then is finished, what waits is told so."""
        try:
            yield self
        finally:
            self._closing = True
            for key in [*self._urgent, *self._patient]:
                self._end(key, EmbeddingUnavailable(_CLOSING))
            self._urgent.clear()
            self._patient.clear()
            await asyncio.gather(*self._workers, return_exceptions=True)

    async def reading(self, organization: str, text: str, *, urgent: bool = True) -> Reading:
        """A text as the model reads it. Somebody waits for what is urgent. Raises EmbeddingUnavailable, also when too many texts wait."""
        key = organization, text
        known = self._remembered.get(key)
        if known is not None:
            self._remembered.move_to_end(key)
            return known
        return await asyncio.shield(self._waiting(key, urgent=urgent))

    async def readings(self, organization: str, texts: Sequence[str]) -> list[Reading]:
        """Many texts, a batch at a time and behind whatever is urgent. Raises EmbeddingUnavailable."""
        found: list[Reading] = []
        for at in range(0, len(texts), self._bounds.batch_max):
            async with self._bulk:  # so that a thousand texts never take the places of others
                part = texts[at : at + self._bounds.batch_max]
                asked = (self.reading(organization, text, urgent=False) for text in part)
                each = await asyncio.gather(*asked, return_exceptions=True)
            for one in each:
                if isinstance(one, BaseException):
                    raise one
                found.append(one)
        return found

    def _waiting(self, key: _Key, *, urgent: bool) -> _Waiting:
        """The reading to come; asked for where nobody has yet, in front where it has become urgent."""
        waiting = self._asked.get(key)
        if waiting is None:
            room = self._bounds.waiting_max if urgent else self._bounds.waiting_max // 2
            if self._closing or len(self._urgent) + len(self._patient) >= room:
                raise EmbeddingUnavailable(_CLOSING if self._closing else _BUSY)
            waiting = self._asked[key] = asyncio.get_running_loop().create_future()
            waiting.add_done_callback(_seen)
            (self._urgent if urgent else self._patient)[key] = None
            self._work_on()
        elif urgent and key in self._patient:
            del self._patient[key]
            self._urgent[key] = None
        return waiting

    def _work_on(self) -> None:
        if len(self._workers) < self._bounds.batches_max:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        await asyncio.sleep(0)  # whoever asks in the same turn goes into the same batch
        while batch := self._next():
            try:
                readings = await self._encoder.read([text for _, text in batch])
            except EmbeddingUnavailable as error:
                readings = [error] * len(batch)
            except Exception as error:
                _log.error("the encoder failed", texts=len(batch), error=type(error).__name__, exc_info=error)
                readings = [EmbeddingUnavailable(_FAILED)] * len(batch)
            for key, reading in zip(batch, readings, strict=True):
                if isinstance(reading, Reading):
                    self._remember(key, reading)
                self._end(key, reading)

    def _next(self) -> list[_Key]:
        """The next batch: urgent ones, with a few places for others."""
        size = self._bounds.batch_max
        kept_free = min(len(self._patient), size // _PATIENT_SHARE or int(size > 1))
        batch = list(islice(self._urgent, size - kept_free))
        batch += islice(self._patient, size - len(batch))
        for key in batch:
            self._urgent.pop(key, None)
            self._patient.pop(key, None)
        return batch

    def _end(self, key: _Key, result: Reading | EmbeddingUnavailable) -> None:
        waiting = self._asked.pop(key)
        if waiting.done():
            return
        if isinstance(result, Reading):
            waiting.set_result(result)
        else:
            waiting.set_exception(result)

    def _remember(self, key: _Key, reading: Reading) -> None:
        self._remembered[key] = reading
        self._remembered_bytes += _size_bytes(key, reading)
        while self._remembered_bytes > self._bounds.remembered_bytes_max:
            self._remembered_bytes -= _size_bytes(*self._remembered.popitem(last=False))


def _size_bytes(key: _Key, reading: Reading) -> int:
    return reading.size_bytes + 2 * len(key[1]) + _OVERHEAD_BYTES


def _seen(waiting: _Waiting) -> None:
    """A failure is news to whoever still waits, and to nobody else."""
    if not waiting.cancelled():
        waiting.exception()
