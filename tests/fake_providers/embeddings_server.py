"""A server of OpenAI's embeddings wire: its vectors depend on the text alone, and a model's name is how it behaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web

DIMENSIONS = 48
_NONSENSE: dict[str, Any] = {
    "short": [{"index": 0, "embedding": [1.0]}],
    "ragged": [{"index": 0, "embedding": [1.0, 2.0]}, {"index": 1, "embedding": [1.0]}],
    "words": [{"index": 0, "embedding": "none"}, {"index": 1, "embedding": "none"}],
    "zeros": [{"index": 0, "embedding": [0.0, 0.0]}, {"index": 1, "embedding": [0.0, 0.0]}],
}


class EmbeddingsServer:
    """Remembers what it was sent. `refusals` are the statuses of its next answers; a text `bad` is refused with its whole batch."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.base_url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EmbeddingsServer]:
        """Listens until the block ends."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/embeddings", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers["authorization"])
        if self.refusals:
            status, headers = self.refusals.pop(0)
            return web.json_response({"error": {"message": "no"}}, status=status, headers=headers)
        if body["model"] == "hangs":
            await asyncio.sleep(30)
        if body["model"] == "picky" or "bad" in body["input"]:
            return web.json_response({"error": {"message": "input is wrong"}}, status=400)
        if body["model"] in _NONSENSE:
            return web.json_response({"data": _NONSENSE[body["model"]]})
        data = [
            {"index": number, "object": "embedding", "embedding": vector_of(text, body.get("dimensions", DIMENSIONS))}
            for number, text in enumerate(body["input"])
        ]
        return web.json_response({"object": "list", "data": data[::-1], "model": body["model"]})


def vector_of(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """What it says of a text: of no particular length."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return [float(value) for value in np.random.default_rng(seed).normal(size=dimensions)]
