"""One server for every wire: it behaves as its model's name says, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.fake_providers.dialects import TEXT, Dialect

_MEGABYTE = 2**20
_STATUSES = {
    "error-400": (400, "temperature is too hot", ""),
    "too-long": (400, "This model's maximum context length is 8192 tokens", "context_length_exceeded"),
    "filtered": (400, "The response was filtered: content management policy", "content_filter"),
    "error-401": (401, "bad key", ""),
    "error-402": (402, "insufficient balance", ""),
    "error-403": (403, "not yours", ""),
    "error-404": (404, "model m does not exist", ""),
    "error-413": (413, "too large", ""),
    "error-429": (429, "slow down", ""),
    "out-of-quota": (429, "You exceeded your current quota", "insufficient_quota"),
    "error-500": (500, "broke down", ""),
    "error-501": (501, "never heard of it", ""),
    "error-503": (503, "busy", ""),
    "error-504": (504, "too slow", ""),
    "error-529": (529, "Overloaded", "overloaded_error"),
}


class FakeProvider:
    """Speaks one dialect; a model's name is the behaviour. Answers that a test wants otherwise stand in `answers` and `streams`."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.queries: list[Any] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.streams: dict[str, list[bytes]] = {}
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeProvider]:
        """Listens until the block ends."""
        app = web.Application(client_max_size=64 * _MEGABYTE)
        app.router.add_post(self.dialect.path, self._chat)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.queries.append(request.query)
        behaviour = request.match_info.get("model") or body["model"]
        if behaviour in _STATUSES:
            return self._refuse(*_STATUSES[behaviour])
        if behaviour == "error-429-and-when":
            return self._refuse(429, "slow down", "", {"retry-after": "7", **self.dialect.limits})
        if behaviour == "redirects":
            return web.Response(status=302, headers={"location": f"http://127.0.0.1:{self.port}/elsewhere"})
        if behaviour == "huge-header":
            return web.json_response(self.dialect.whole(), headers={"x-huge": "h" * 100_000})
        if behaviour == "hangs":
            await asyncio.sleep(30)
        if behaviour == "no-http" or behaviour.startswith("reset-first"):
            return self._cut(request, b"\x00\x01 this is no HTTP\r\n\r\n" if behaviour == "no-http" else b"")
        if behaviour == "login-page":
            return web.Response(text="<html>Please log in</html>", content_type="text/html")
        if behaviour == "gzip-bomb":
            bomb = gzip.compress(b"data: " + bytes(80 * _MEGABYTE), 1)
            kind = "text/event-stream" if body.get("stream") else "application/json"
            return web.Response(body=bomb, headers={"content-encoding": "gzip", "content-type": kind})
        return await (self._stream if body.get("stream") else self._plain)(request, behaviour)

    async def _plain(self, request: web.Request, behaviour: str) -> web.StreamResponse:
        whole = json.dumps(self.answers.get(behaviour) or self.dialect.whole(tools=behaviour == "tools")).encode()
        kind = "text/plain" if behaviour == "mislabelled" else "application/json"
        headers = {"content-type": kind, **self.dialect.limits}
        match behaviour:
            case "garbage":
                whole = b"not json at all"
            case "other-json":
                whole = b'{"hello": ["world"]}'
            case "no-utf8":
                whole = whole.replace(TEXT.encode(), b"\xff\xfe")
            case "truncated":
                whole = whole[: len(whole) // 2]
            case "error-within":
                whole = json.dumps(self.dialect.refusal(200, "Overloaded", "overloaded_error")).encode()
        if behaviour in ("reset-midway", "drips", "endless"):
            return await self._slowly(request, behaviour, whole)
        return web.Response(body=whole, headers=headers)

    async def _slowly(self, request: web.Request, behaviour: str, whole: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        if behaviour == "endless":
            for _ in range(200):
                await response.write(b" " * _MEGABYTE)
        elif behaviour == "drips":
            for byte in whole:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.05)
        else:
            await response.write(whole[:20])
            await asyncio.sleep(0.02)
            return self._cut(request)
        return response

    async def _stream(self, request: web.Request, behaviour: str) -> web.StreamResponse:
        events = self.streams.get(behaviour) or self.dialect.events(tools=behaviour == "tools")
        kind = "text/plain" if behaviour == "mislabelled" else "text/event-stream"
        response = web.StreamResponse(headers={"content-type": kind, **self.dialect.limits})
        await response.prepare(request)
        opening = (
            b"".join(events[: next(at for at, each in enumerate(events) if b"-two" in each)])
            if self._plain_text(events)
            else b""
        )
        match behaviour:
            case "garbage" | "other-json":
                await response.write(b"data: not json at all\n\n" if behaviour == "garbage" else b'data: ["hello"]\n\n')
            case "no-utf8":
                await response.write(opening + b'data: {"a": "\xff\xfe"}\n\n')
            case "truncated":
                await response.write(opening)
            case "error-within":
                await response.write(opening + b"data: " + self._error_event() + b"\n\n")
            case "reset-midway":
                await response.write(opening)
                await asyncio.sleep(0.02)
                return self._cut(request)
            case "stalls":
                await response.write(opening)
                await asyncio.sleep(30)
            case "drips":
                for _ in range(600):
                    await response.write(b": keep-alive\n\n")
                    await asyncio.sleep(0.05)
            case "endless":
                await response.write(opening)
                piece = self.dialect.piece("x" * _MEGABYTE)
                for _ in range(200):
                    await response.write(piece)
            case "endless-line":
                await response.write(opening + b"data: ")
                for _ in range(200):
                    await response.write(b"x" * _MEGABYTE)
            case "bytewise":
                for position in range(0, len(whole := b"".join(events)), 7):
                    await response.write(whole[position : position + 7])
                    await asyncio.sleep(0)
            case _:
                await response.write(b": comment\n\n" + b"".join(events))
        await response.write_eof()
        return response

    def _plain_text(self, events: list[bytes]) -> bool:
        return any(b"-two" in each for each in events)

    def _error_event(self) -> bytes:
        return json.dumps(self.dialect.refusal(200, "Overloaded", "overloaded_error")).encode()

    def _refuse(self, status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
        return web.json_response(self.dialect.refusal(status, message, code), status=status, headers=headers)

    def _cut(self, request: web.Request, last: bytes = b"") -> web.Response:
        assert request.transport is not None
        if last:
            request.transport.write(last)
            request.transport.close()
        else:
            request.transport.abort()
        return web.Response()
