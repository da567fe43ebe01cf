"""A model behind an embeddings API that speaks OpenAI's wire (POST …/embeddings)."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import numpy as np
import orjson
import structlog
from farthing_core.clock import Clock

from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.embedding.reading import Reading, without_tokens

AWAY, REFUSED, GARBLED = "embedding model away", "embedding model refused", "embedding model answered nonsense"
_ATTEMPTS_MAX = 3
_AGAIN = frozenset({429, 500, 502, 503, 504, 529})
_TOO_MUCH = frozenset({400, 413, 422})
"""Statuses that one text of many may have caused."""
_WAIT_S_MAX = 2.0
_FAILURES_MAX, _REFUSALS_MAX = 3, 8
"""More refusals in a row than it takes to find the one text of a batch that is to blame are about something else."""
_OPEN_S = 10.0
_ANSWER_BYTES_MAX = 64 * 2**20
_CHUNK_BYTES = 2**18
_FAULTS = (TimeoutError, aiohttp.ClientError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API is and what is asked of it. `key` reads the key, each time, so that it may change; `dimensions` is 0 for the model's
    own; a longer text than `characters_max` is cut.
    """

    base_url: str
    model: str
    key: Callable[[], str]
    dimensions: int = 0
    timeout_s: float = 10.0
    characters_max: int = 24_000

    @property
    def fingerprint(self) -> str:
        """The same name at another address may be another model."""
        where = hashlib.sha256(self.base_url.encode()).hexdigest()[:8]
        return f"openai:{self.model}:{self.dimensions or 'full'}@{where}"


class _Refused(Exception):
    """The API will not have it."""


class RemoteEncoder:
    """The Encoder. What may pass (429, 5xx) is tried again, at most twice; after a few failures in a row it is left alone for ten seconds.

    A fault of the connection is not tried again: whoever waits for a look-up is better off without it.
    """

    def __init__(self, api: Api, *, clock: Clock, chance: Random) -> None:
        self._api = api
        self._clock = clock
        self._chance = chance
        self._failures, self._refusals = 0, 0
        self._open_until_s = -math.inf
        self.fingerprint = api.fingerprint

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RemoteEncoder]:
        """Holds its connections until the block ends."""
        timeout = aiohttp.ClientTimeout(total=self._api.timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            self._session = session
            yield self

    async def read(self, texts: Sequence[str]) -> Sequence[Reading | EmbeddingUnavailable]:
        """Vectors; such a model shows no tokens. Raises EmbeddingUnavailable while it is away."""
        if self._clock.monotonic_s() < self._open_until_s:
            raise EmbeddingUnavailable(AWAY)
        try:
            return await self._read(texts)
        except _Refused:
            self._refusals += 1
            if self._refusals > _REFUSALS_MAX:
                self._leave_alone()
                raise EmbeddingUnavailable(REFUSED) from None
            if len(texts) == 1:
                return [EmbeddingUnavailable(REFUSED)]
            # One of them is to blame: the others have nothing to do with it.
            middle = len(texts) // 2
            return [*await self.read(texts[:middle]), *await self.read(texts[middle:])]

    async def _read(self, texts: Sequence[str]) -> list[Reading]:
        cut = [_readable(text, self._api.characters_max) for text in texts]
        body: dict[str, Any] = {"model": self._api.model, "input": cut, "encoding_format": "float"}
        if self._api.dimensions:
            body["dimensions"] = self._api.dimensions
        raw = await self._answered(orjson.dumps(body))
        vectors = await asyncio.to_thread(_vectors, raw, len(texts))
        if vectors is None or (self._api.dimensions and vectors.shape[1] != self._api.dimensions):
            self._failed()
            raise EmbeddingUnavailable(GARBLED)
        self._failures, self._refusals = 0, 0
        return [
            without_tokens(vector, truncated=len(text) > self._api.characters_max)
            for vector, text in zip(vectors, texts, strict=True)
        ]

    async def _answered(self, body: bytes) -> bytes:
        """The body of an answer. Raises EmbeddingUnavailable, _Refused."""
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                status, raw, wait_s = await self._post(body)
            except _FAULTS as error:
                self._failed()
                _log.warning("the embedding model is away", error=type(error).__name__)
                raise EmbeddingUnavailable(AWAY) from error
            if status == 200:
                return raw
            if status in _TOO_MUCH:
                raise _Refused
            if status not in _AGAIN or attempt == _ATTEMPTS_MAX:
                break
            backoff_s = 0.1 * 2**attempt * (0.5 + self._chance.random())
            wait_s = backoff_s if wait_s is None else wait_s
            if wait_s > _WAIT_S_MAX:
                break
            await asyncio.sleep(wait_s)
        self._failed()
        _log.warning("the embedding model refuses", status=status)
        raise EmbeddingUnavailable(AWAY if status in _AGAIN else REFUSED)

    async def _post(self, body: bytes) -> tuple[int, bytes, float | None]:
        """Status, body and how long to wait before asking again, where it says."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._api.key()}"}
        url = f"{self._api.base_url.rstrip('/')}/embeddings"
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            raw = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                raw += chunk
                if len(raw) > _ANSWER_BYTES_MAX:
                    raise aiohttp.ClientPayloadError("the answer is too large")
            return response.status, bytes(raw), _seconds(response.headers.get("retry-after"))

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES_MAX:
            self._leave_alone()

    def _leave_alone(self) -> None:
        self._failures, self._refusals = 0, 0
        self._open_until_s = self._clock.monotonic_s() + _OPEN_S


def key_reader(path: Path | None, value: str) -> Callable[[], str]:
    """Reads a key from a file, or gives the one that is set."""
    if path is None:
        return lambda: value
    return lambda: path.read_text().strip()


def _readable(text: str, characters_max: int) -> str:
    """A text that can be sent: no half characters, and never empty, which the API refuses."""
    return text[:characters_max].encode(errors="replace").decode() or " "


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value) if value else None
    except ValueError:
        return None
    return seconds if seconds is not None and seconds >= 0 and math.isfinite(seconds) else None


def _vectors(raw: bytes, count: int) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Unit vectors in the order of the texts; None where the answer is no such thing."""
    try:
        data = orjson.loads(raw)["data"]
        by_index = {item["index"]: item["embedding"] for item in data}
        vectors = np.array([by_index[number] for number in range(count)], dtype=np.float32)
    except (ValueError, TypeError, KeyError):
        return None
    if len(data) != count or vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        return None
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths if lengths.min() > 0 else None


_log = structlog.get_logger()
