"""The OpenAI wire over aiohttp: OpenAI itself, vLLM, TGI, Ollama, and everybody else with a compatible endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import orjson

from farthing_router.pricing.tokens import service_tier
from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.payloads import Reported, read_usage

_ANSWER_BYTES_MAX = 32 * 1024 * 1024
_ERROR_BYTES_MAX = 64 * 1024
_ERROR_CHARACTERS_MAX = 300
_CALLERS_FAULT = frozenset({400, 404, 413, 415, 422})
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_KNOWN_MESSAGE_FIELDS = frozenset({"role", "content"})
_KNOWN_RESPONSE_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})


class OpenAIWire:
    """The Upstream of everybody who speaks the OpenAI wire."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer."""
        async with self._posted(call, stream=False) as response:
            raw = await _read(response, _ANSWER_BYTES_MAX)
        return _answer(raw)

    async def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """Pieces as they come, then the whole."""
        whole = _Assembly()
        async with self._posted(call, stream=True) as response:
            async for event in sse_events(response.content.iter_any()):
                if event == b"[DONE]":
                    break
                if piece := whole.take(event):
                    yield piece
            else:
                raise UpstreamFailed(what="the stream ended without its end marker", retryable=True, may_be_billed=True)
        yield whole.answer()

    @asynccontextmanager
    async def _posted(self, call: Call, *, stream: bool) -> AsyncIterator[aiohttp.ClientResponse]:
        deployment = call.deployment
        headers = {"content-type": "application/json", "x-request-id": call.request_id}
        if deployment.api_key:
            headers["authorization"] = f"Bearer {deployment.api_key}"
        timeout = aiohttp.ClientTimeout(total=call.timeout_s)
        try:
            async with self._session.post(
                f"{deployment.base_url}/chat/completions",
                data=request_body(call, stream=stream),
                headers=headers,
                timeout=timeout,
            ) as response:
                if response.status != 200:
                    await _refuse(response, deployment.name)
                yield response
        except TimeoutError as error:
            what = f"no answer within {call.timeout_s:.1f} s"
            raise UpstreamFailed(what=what, retryable=False, may_be_billed=True) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            # Only where no connection came about is it certain that the provider never saw the request.
            seen = not isinstance(error, aiohttp.ClientConnectorError)
            what = f"connection failed ({type(error).__name__})"
            raise UpstreamFailed(what=what, retryable=True, may_be_billed=seen) from error


def request_body(call: Call, *, stream: bool) -> bytes:
    """The JSON of a request: what is known by name, what is not spliced in untouched."""
    given = call.parameters
    body: dict[str, Any] = orjson.loads(given.extra_json) if given.extra_json else {}
    body |= {"model": call.deployment.upstream_model, "messages": [_message(each) for each in call.conversation]}
    body["max_tokens"] = call.output_tokens_max
    for name in ("temperature", "top_p", "seed"):
        if given.HasField(name):
            body[name] = getattr(given, name)
    if given.stop:
        body["stop"] = list(given.stop)
    if given.tools_json:
        body["tools"] = orjson.Fragment(given.tools_json)
    if given.response_format_json:
        body["response_format"] = orjson.Fragment(given.response_format_json)
    if "max_completion_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    body.pop("stream", None)
    if stream:
        body["stream"] = True
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return orjson.dumps(body)


async def sse_events(chunks: Any) -> AsyncGenerator[bytes, None]:
    """The data of server-sent events, however the bytes are cut; several data lines of one event are joined."""
    buffer, data = b"", b""
    async for chunk in chunks:
        buffer += chunk
        if len(buffer) > _ANSWER_BYTES_MAX:
            raise UpstreamFailed(what="an event of the stream is too large", retryable=False, may_be_billed=True)
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                data = data + b"\n" + line[5:].lstrip() if data else line[5:].lstrip()
            elif not line and data:
                yield data
                data = b""
    if data:
        yield data


class _Assembly:
    """Puts a streamed answer together."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._extra: dict[str, Any] = {}
        self._response_extra: dict[str, Any] = {}
        self._finish_reason = ""
        self._usage: Reported | None = None

    def take(self, event: bytes) -> UpstreamPiece | None:
        """The piece in an event; None where the event carries none."""
        try:
            chunk = orjson.loads(event)
            choices = chunk.get("choices") or ()
            if chunk.get("error"):
                raise UpstreamFailed(what=_short(chunk["error"]), retryable=True)
            if chunk.get("usage") and (said := read_usage(chunk)):
                self._usage = said if self._usage is None else self._usage.then(said)
            self._response_extra |= {
                name: chunk[name] for name in chunk.keys() - _KNOWN_RESPONSE_FIELDS if chunk[name] is not None
            }
            if not choices:
                return None
            choice = choices[0]
            delta = choice.get("delta") or {}
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
            raise UpstreamFailed(what="the stream is no OpenAI stream", retryable=True, may_be_billed=True) from error
        content = delta.get("content") or ""
        extra = {name: value for name, value in delta.items() if name not in _KNOWN_MESSAGE_FIELDS and value}
        if not content and not extra:
            return None
        self._content.append(content)
        for tool_call in extra.get("tool_calls") or ():
            _merge_tool_call(self._tool_calls, tool_call)
        self._extra |= {name: value for name, value in extra.items() if name != "tool_calls"}
        return UpstreamPiece(content, orjson.dumps(extra).decode() if extra else "")

    def answer(self) -> UpstreamAnswer:
        """The whole."""
        extra = dict(self._extra)
        if self._tool_calls:
            extra["tool_calls"] = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return UpstreamAnswer(
            content="".join(self._content),
            extra_json=orjson.dumps(extra).decode() if extra else "",
            finish_reason=self._finish_reason or "stop",
            response_extra_json=orjson.dumps(self._response_extra).decode() if self._response_extra else "",
            usage=_with_tier(self._usage, self._response_extra),
        )


def _merge_tool_call(whole: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    merged = whole.setdefault(piece.get("index", 0), {})
    for name, value in piece.items():
        if name == "index":
            continue
        if name == "function" and isinstance(value, dict):
            function = merged.setdefault("function", {"name": "", "arguments": ""})
            function["name"] += value.get("name") or ""
            function["arguments"] += value.get("arguments") or ""
        elif value is not None:
            merged[name] = value


def _message(given: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": given.role}
    if given.content_parts_json:
        message["content"] = orjson.Fragment(given.content_parts_json)
    elif given.content or not given.extra_json:
        message["content"] = given.content
    else:
        message["content"] = None
    if given.extra_json:
        message.update(orjson.loads(given.extra_json))
    return message


def _answer(raw: bytes) -> UpstreamAnswer:
    try:
        parsed = orjson.loads(raw)
        choice = parsed["choices"][0]
        message = choice["message"]
        content = message.get("content") or ""
        extra = {name: value for name, value in message.items() if name not in _KNOWN_MESSAGE_FIELDS and value}
        more = {name: parsed[name] for name in parsed.keys() - _KNOWN_RESPONSE_FIELDS if parsed[name] is not None}
        if choice.get("logprobs"):
            more["logprobs"] = choice["logprobs"]
        if not isinstance(content, str):
            raise TypeError
        return UpstreamAnswer(
            content=content,
            extra_json=orjson.dumps(extra).decode() if extra else "",
            finish_reason=choice.get("finish_reason") or "stop",
            response_extra_json=orjson.dumps(more).decode() if more else "",
            usage=_with_tier(read_usage(parsed), parsed),
        )
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UpstreamFailed(what="the answer is no OpenAI answer", retryable=True, may_be_billed=True) from error


def _with_tier(said: Reported | None, body: dict[str, Any]) -> Reported | None:
    """The usage with the tier of service that another part of the answer names; also where no usage is reported."""
    tier = body.get("service_tier")
    if not isinstance(tier, str) or (said is not None and said.tier is not None):
        return said
    return replace(said or Reported(), tier=service_tier(tier))


async def _refuse(response: aiohttp.ClientResponse, provider: str) -> None:
    try:
        raw = await _read(response, _ERROR_BYTES_MAX)
    except UpstreamFailed:
        raw = b""
    try:
        what = _short(orjson.loads(raw).get("error"))
    except (orjson.JSONDecodeError, AttributeError):
        what = "no reason given"
    if response.status in _CALLERS_FAULT:
        raise UpstreamRejected(provider=provider, status=response.status, what=what)
    retryable = response.status in _RETRYABLE
    raise UpstreamFailed(what=f"{response.status}: {what}", retryable=retryable, retry_after_s=_retry_after_s(response.headers))


def _retry_after_s(headers: Any) -> float | None:
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    return None


def _short(error: Any) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    return str(text or "no reason given")[:_ERROR_CHARACTERS_MAX]


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    if (response.content_length or 0) > bytes_max:
        raise UpstreamFailed(what="the answer is too large", retryable=False, may_be_billed=True)
    raw = await response.content.read(bytes_max) if response.content_length is None else await response.read()
    if response.content_length is None:
        while len(raw) < bytes_max and (more := await response.content.read(bytes_max - len(raw))):
            raw += more
    return raw


@asynccontextmanager
async def open_session(*, connections_max: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for all upstreams: bounded, keeping connections, asking nobody's proxy settings."""
    connector = aiohttp.TCPConnector(limit=connections_max, limit_per_host=0, keepalive_timeout=60, ttl_dns_cache=60)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True, read_bufsize=2**18) as session:
        try:
            yield session
        finally:
            await asyncio.sleep(0)
