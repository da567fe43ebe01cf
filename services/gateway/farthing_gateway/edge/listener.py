"""The HTTP listener: aiohttp's server without its application, a table of routes, and bounds for what comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from aiohttp import web
from farthing_core.errors import FarthingError
from farthing_runtime.settings import SettingsInvalid

from farthing_gateway.edge.refusals import HttpProblem, refusal
from farthing_gateway.settings import Settings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Routes = Mapping[str, Mapping[str, Handler]]
"""Path → method → handler. A path that ends in `/` takes everything below it."""

_log = structlog.get_logger()
_HEADERS_MAX = 100
_KEEPALIVE_S = 75.0
_GRACE_S = 10.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@asynccontextmanager
async def serving(routes: Routes, settings: Settings) -> AsyncIterator[str]:
    """Serves HTTP until the block ends: then no new connections, and ten seconds for what is under way.

    Gives the base URL. Raises SettingsInvalid where nothing can listen.
    """
    desk = _Desk(routes, requests_max=settings.requests_max)

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=settings.body_bytes_max)

    server = _Server(
        desk.answer,
        request_factory=make_request,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=_KEEPALIVE_S,
        max_headers=_HEADERS_MAX,
    )
    runner = web.ServerRunner(server, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.http_host, settings.http_port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            problem = f"cannot listen on {settings.http_host}:{settings.http_port}: {error.strerror}"
            raise SettingsInvalid(field="FARTHING_GATEWAY_HTTP_PORT", problem=problem) from error
        host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Desk:
    """Finds the handler of a request and turns its failures into OpenAI's error objects."""

    def __init__(self, routes: Routes, *, requests_max: int) -> None:
        self._exact = {path: methods for path, methods in routes.items() if not path.endswith("/")}
        self._below = [(path, methods) for path, methods in routes.items() if path.endswith("/")]
        self._requests_max = requests_max
        self._under_way = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to a request, whatever happens."""
        self._under_way += 1
        try:
            # Only what costs something is refused: whoever asks for our health shall hear of it most of all when we are busy.
            if self._under_way > self._requests_max and request.method == "POST":
                text = f"more than {self._requests_max} requests are under way"
                raise HttpProblem(503, text, code="overloaded", headers={"retry-after": "1"})
            handler = self._handler(request)
            if "expect" in request.headers:
                await _expected(request)
            return await handler(request)
        except (grpc.aio.AioRpcError, FarthingError, HttpProblem) as error:
            return _ending_what_is_broken(request, refusal(error))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            _log.error("unexpected error", path=request.path, exc_info=error)
            return refusal(error)
        finally:
            self._under_way -= 1

    def _handler(self, request: web.BaseRequest) -> Handler:
        path = request.path
        methods = self._exact.get(path) or next((found for below, found in self._below if path.startswith(below)), None)
        if methods is None:
            raise HttpProblem(404, f"nothing at {path[:200]}", code="not_found")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(methods)
            text = f"{path[:200]} takes {allowed}, not {request.method[:20]}"
            raise HttpProblem(405, text, code="method_not_allowed", headers={"allow": allowed})
        return handler


def _ending_what_is_broken(request: web.BaseRequest, response: web.Response) -> web.Response:
    """The response, which says that the connection ends with it where the body broke off: nobody can tell where the next request begins."""
    if request.content.exception() is not None:
        request.content.feed_eof()  # else aiohttp goes on reading it, and logs what it meets as an error of ours
        response.force_close()
    return response


async def _expected(request: web.BaseRequest) -> None:
    """Tells a client that waits before it sends a large body (curl does) to go on."""
    if request.headers["expect"].lower() != "100-continue":
        raise HttpProblem(417, "the only expectation served is 100-continue", code="expectation_failed", param="expect")
    await request.writer.write(_CONTINUE)
    # The interim response is none of the answer's bytes, by which aiohttp tells whether an answer has begun.
    request.writer.output_size = 0


class _Server(web.Server):
    """aiohttp's server, with our words for what is no HTTP."""

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(web.RequestHandler):
    """One connection. aiohttp answers what it cannot parse in plain text and logs its bytes, which may hold secrets or prompts."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The refusal of what is no HTTP; the connection ends with it."""
        _log.info("refused what is no HTTP", status=status, kind=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun, so the connection can only end")
        kind = {"LineTooLong": "a header or the request line is too long", "BadHttpMessage": "a header is malformed"}
        text = kind.get(type(exc).__name__, "this is not a valid HTTP request")
        response = refusal(HttpProblem(status, text, code="invalid_http"))
        response.force_close()
        return response
