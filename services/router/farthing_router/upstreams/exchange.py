"""One exchange with a provider over HTTP: sent, bounded, timed, and every fault of it named. What is said is a wire's own matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import aiohttp
import orjson

from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamFailed, UpstreamPiece
from farthing_router.upstreams.events import sse_events
from farthing_router.upstreams.failures import FailureKind, garbage, refusal
from farthing_router.upstreams.limits import read_limits

ANSWER_BYTES_MAX = 32 * 2**20
_ERROR_BYTES_MAX = 64 * 1024
_CONNECT_S_MAX = 10.0
_CHUNK_BYTES = 2**16
_FAULTS = (TimeoutError, aiohttp.ClientError, ConnectionError)


class Outgoing(NamedTuple):
    """A request as it goes out."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A request to one of a provider's other interfaces."""

    method: str
    url: str
    headers: Mapping[str, str]
    provider: str
    body: bytes = b""
    timeout_s: float = 60.0


class Assembly(Protocol):
    """Puts a streamed answer together. `ended`: its end marker came; `whole`: it could be all, though no marker came."""

    ended: bool

    @property
    def whole(self) -> bool:
        """Whether a stream that closes now was not cut off."""
        ...

    def take(self, event: bytes) -> UpstreamPiece | None:
        """The piece in an event; None where it carries none. Raises UpstreamFailed for nonsense and for an error in it."""
        ...

    def answer(self) -> UpstreamAnswer:
        """The whole."""
        ...


class WireFormat(Protocol):
    """What requests and answers of a wire look like. `bills_refusals`: prompts that are read and then refused are charged."""

    bills_refusals: bool

    def outgoing(self, call: Call, *, stream: bool) -> Outgoing:
        """The request."""
        ...

    def answer(self, raw: bytes) -> UpstreamAnswer:
        """The answer in a body. Raises UpstreamFailed where it is none."""
        ...

    def assembly(self) -> Assembly:
        """For a streamed answer."""
        ...


class HttpUpstream:
    """The Upstream of every wire that is spoken over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, wire: WireFormat) -> None:
        self._session = session
        self._wire = wire

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer."""
        async with self._posted(call, stream=False) as response:
            raw = await read_bounded(response, ANSWER_BYTES_MAX)
        return _with_limits(self._wire.answer(raw), response)

    async def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """Pieces as they come, then the whole."""
        assembly = self._wire.assembly()
        async with self._posted(call, stream=True) as response:
            if response.content_type == "application/json":  # it does not stream, and answers whole
                answer = self._wire.answer(await read_bounded(response, ANSWER_BYTES_MAX))
                yield UpstreamPiece(answer.content, answer.extra_json)
                yield _with_limits(answer, response)
                return
            heard = False
            async for event in sse_events(response.content.iter_any()):
                heard = True
                if piece := assembly.take(event):
                    yield piece
                if assembly.ended:
                    break
            else:
                if not heard:
                    raise garbage(f"the answer is no event stream ({response.content_type})")
                if not assembly.whole:
                    raise _broken("the stream ended without its end marker")
        yield _with_limits(assembly.answer(), response)

    @asynccontextmanager
    async def _posted(self, call: Call, *, stream: bool) -> AsyncIterator[aiohttp.ClientResponse]:
        out = self._wire.outgoing(call, stream=stream)
        timeout = aiohttp.ClientTimeout(total=call.timeout_s, sock_connect=min(_CONNECT_S_MAX, call.timeout_s))
        began = False
        try:
            async with self._session.post(
                out.url, data=out.body, headers=out.headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    await refuse(response, call.deployment.name, bills_refusals=self._wire.bills_refusals)
                began = True
                yield response
        except _FAULTS as error:
            raise _named(error, timeout_s=call.timeout_s, began=began, stream=stream) from error


class HttpApi:
    """The interfaces of providers that are not about one answer: files, batches, lists of models."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def json(self, request: Request, *, bytes_max: int = ANSWER_BYTES_MAX) -> dict[str, Any]:
        """The JSON object that answers a request. Raises UpstreamFailed, UpstreamRejected."""
        async with self._answered(request) as response:
            raw = await read_bounded(response, bytes_max)
        try:
            parsed = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise garbage("the answer is no JSON") from error
        if isinstance(parsed, list):
            return {"data": parsed}
        if not isinstance(parsed, dict):
            raise garbage("the answer is no JSON object")
        return parsed

    async def lines(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The lines of an answer, one by one, each bounded. Raises UpstreamFailed, UpstreamRejected."""
        pending: list[bytes] = []
        async with self._answered(request) as response:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                pending.append(chunk)
                if b"\n" in chunk:
                    *lines, rest = b"".join(pending).split(b"\n")
                    pending = [rest]
                    for line in lines:
                        if line.strip():
                            yield line
                elif sum(map(len, pending)) > ANSWER_BYTES_MAX:
                    raise UpstreamFailed(what="a line is too large", retryable=False, kind=FailureKind.TOO_LARGE)
        if last := b"".join(pending).strip():
            yield last

    @asynccontextmanager
    async def _answered(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=request.timeout_s, sock_connect=min(_CONNECT_S_MAX, request.timeout_s))
        began = False
        try:
            async with self._session.request(
                request.method,
                request.url,
                data=request.body or None,
                headers=request.headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status not in (200, 201):
                    await refuse(response, request.provider)
                began = True
                yield response
        except _FAULTS as error:
            raise _named(error, timeout_s=request.timeout_s, began=began, stream=False) from error


async def refuse(response: aiohttp.ClientResponse, provider: str, *, bills_refusals: bool = False) -> None:
    """Raises what a response that is no success means."""
    try:
        raw = await read_bounded(response, _ERROR_BYTES_MAX)
    except (UpstreamFailed, aiohttp.ClientError, ConnectionError, TimeoutError):
        raw = b""
    raise refusal(status=response.status, headers=response.headers, body=raw, provider=provider, bills_refusals=bills_refusals)


async def read_bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The body. Raises UpstreamFailed where it, or what it unpacks to, is larger."""
    length = response.content_length
    if length is not None and length <= bytes_max and "content-encoding" not in response.headers:
        return await response.read()
    parts: list[bytes] = []
    total = 0
    if length is None or length <= bytes_max:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            parts.append(chunk)
            total += len(chunk)
            if total > bytes_max:
                break
        else:
            return b"".join(parts)
    raise UpstreamFailed(what="the answer is too large", retryable=False, may_be_billed=True, kind=FailureKind.TOO_LARGE)


@asynccontextmanager
async def open_session(*, connections_max: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for all upstreams: bounded, keeping connections, asking nobody's proxy settings, keeping nobody's cookies."""
    connector = aiohttp.TCPConnector(limit=connections_max, limit_per_host=0, keepalive_timeout=60, ttl_dns_cache=60)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=True, read_bufsize=2**18, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        try:
            yield session
        finally:
            await asyncio.sleep(0)


def _named(error: BaseException, *, timeout_s: float, began: bool, stream: bool) -> UpstreamFailed:
    """What a fault of the library means; `began`: a response was there already."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamFailed(what="no connection in time", retryable=True, kind=FailureKind.CONNECTION)
    if isinstance(error, TimeoutError):
        what = f"no {'end of the ' if began else ''}answer within {timeout_s:.1f} s"
        return UpstreamFailed(what=what, retryable=False, may_be_billed=True, kind=FailureKind.TIMEOUT)
    if isinstance(error, aiohttp.ClientResponseError):
        return garbage(f"the answer is no HTTP ({type(error).__name__})")
    what = f"connection failed ({type(error).__name__})"
    if began and stream:
        return _broken(what)
    # Only where no connection came about is it certain that the provider never saw the request.
    seen = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL)
    return UpstreamFailed(what=what, retryable=True, may_be_billed=seen, kind=FailureKind.CONNECTION)


def _broken(what: str) -> UpstreamFailed:
    return UpstreamFailed(what=what, retryable=True, may_be_billed=True, kind=FailureKind.BROKEN_STREAM)


def _with_limits(answer: UpstreamAnswer, response: aiohttp.ClientResponse) -> UpstreamAnswer:
    limits = read_limits(response.headers)
    return answer if limits is None else replace(answer, limits=limits)
