"""Providers that speak no wire of ours, through the package any-llm (the extra `farthing-router[any-llm]`), imported when first called.

It gives answers in OpenAI's shapes, and its errors carry what the provider said. The libraries underneath read bodies whole and do their
own decompression, so that only time and the length of a stream are bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import orjson

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.events import STREAM_BYTES_MAX
from farthing_router.upstreams.failures import garbage, refusal, unsupported
from farthing_router.upstreams.openai_answers import OpenAIAssembly, answer_of
from farthing_router.upstreams.openai_wire import request_fields

_CLIENTS_MAX = 256
# What a provider's library would take for its own: with these a caller could ask another model, or somewhere else.
_OF_THE_LIBRARY = (
    "api_base",
    "api_key",
    "client_args",
    "extra_body",
    "extra_headers",
    "extra_query",
    "session_label",
    "timeout",
)
_TIMED_OUT = ("Timeout",)
_NO_CONNECTION = ("Connect", "Protocol", "Read", "Network", "Closed")
# What its own errors mean where the provider's status is not known.
_STATUSES = {
    "AuthenticationError": 401,
    "MissingApiKeyError": 401,
    "InsufficientFundsError": 402,
    "ModelNotFoundError": 404,
    "RateLimitError": 429,
    "UpstreamProviderError": 502,
    "GatewayTimeoutError": 504,
}
_CODES = {"ContextLengthExceededError": "context_length_exceeded", "ContentFilterError": "content_filter"}


class AnyLlm:
    """The Upstream of whoever any-llm knows; farthing.yaml names the provider as `any_llm_provider`."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._opening = asyncio.Lock()

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer."""
        async with _named(call):
            found = await self._asked(call, stream=False)
            return answer_of(found.model_dump(mode="json", exclude_none=True))

    async def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """Pieces as they come, then the whole."""
        assembly, total = OpenAIAssembly(), 0
        async with _named(call) as heard:
            chunks = await self._asked(call, stream=True)
            try:
                async for chunk in chunks:
                    event = orjson.dumps(chunk.model_dump(mode="json", exclude_none=True))
                    total += len(event)
                    if total > STREAM_BYTES_MAX:
                        what = "the stream does not end"
                        raise UpstreamFailed(what=what, retryable=False, may_be_billed=True, kind=FailureKind.TOO_LARGE)
                    if piece := assembly.take(event):
                        heard[:] = [True]
                        yield piece
            finally:
                if hasattr(chunks, "aclose"):
                    await chunks.aclose()
            if not assembly.whole:
                what = "the stream ended without its end marker" if heard else "the answer is no event stream"
                kind = FailureKind.BROKEN_STREAM if heard else FailureKind.GARBAGE
                raise UpstreamFailed(what=what, retryable=True, may_be_billed=True, kind=kind)
        yield assembly.answer()

    async def _asked(self, call: Call, *, stream: bool) -> Any:
        client = await self._client(call.deployment)
        # Its interface wants plain objects, not bytes that are JSON already.
        fields = orjson.loads(orjson.dumps(request_fields(call, stream=stream)))
        for name in _OF_THE_LIBRARY:
            fields.pop(name, None)
        return await client.acompletion(fields.pop("model"), fields.pop("messages"), **fields)

    async def _client(self, deployment: Deployment) -> Any:
        key = (deployment.wire.any_llm_provider, deployment.base_url, deployment.api_key)
        async with self._opening:
            if key not in self._clients:
                if len(self._clients) >= _CLIENTS_MAX:
                    self._clients.pop(next(iter(self._clients)))
                # Importing it, and a provider's own library, takes a second.
                self._clients[key] = await asyncio.to_thread(_opened, *key)
        return self._clients[key]


def _opened(provider: str, base_url: str, api_key: str) -> Any:
    try:
        library = import_module("any_llm")
    except ImportError as error:
        what = "any-llm is not installed: it is the extra farthing-router[any-llm]"
        raise UpstreamFailed(what=what, retryable=False, kind=FailureKind.UNSUPPORTED) from error
    given = {"api_key": api_key or None, "api_base": base_url, "unified_exceptions": True}
    try:
        return library.AnyLLM.create(provider, **given, max_retries=0)
    except library.UnsupportedParameterError:  # its library counts no retries
        return library.AnyLLM.create(provider, **given)


@asynccontextmanager
async def _named(call: Call) -> AsyncIterator[list[Any]]:
    """Turns whatever the libraries raise into our own failures, and bounds the time. The list is to be filled once a piece was heard."""
    heard: list[Any] = []
    try:
        async with asyncio.timeout(call.timeout_s):
            yield heard
    except (UpstreamFailed, UpstreamRejected):
        raise
    except TimeoutError as error:
        what = f"no answer within {call.timeout_s:.1f} s"
        raise UpstreamFailed(what=what, retryable=False, may_be_billed=True, kind=FailureKind.TIMEOUT) from error
    except Exception as error:
        raise _failure(error, call.deployment, heard=bool(heard)) from error


def _failure(error: Exception, deployment: Deployment, *, heard: bool) -> UpstreamFailed | UpstreamRejected:
    name = type(error).__name__
    original = getattr(error, "original_exception", None) or error
    status = getattr(error, "status_code", None) or _STATUSES.get(name) or (400 if name in _CODES else None)
    if isinstance(status, int) and status >= 300:
        said = {"message": str(getattr(error, "message", error)), "code": getattr(error, "code", None) or _CODES.get(name)}
        said |= {"type": getattr(error, "error_type", None), "param": getattr(error, "param", None)}
        headers = getattr(getattr(original, "response", None), "headers", {})
        return refusal(status=status, headers=headers, body=orjson.dumps({"error": said}), provider=deployment.name)
    if name == "UnsupportedParameterError":
        return unsupported(str(error)[:300])
    causes = [type(each).__name__ for each in _chain(original)]
    what = f"{causes[0]} of any-llm ({deployment.wire.any_llm_provider})"
    if heard:
        return UpstreamFailed(what=what, retryable=True, may_be_billed=True, kind=FailureKind.BROKEN_STREAM)
    if any(word in cause for cause in causes for word in _TIMED_OUT):
        return UpstreamFailed(what=what, retryable=True, may_be_billed="ConnectTimeout" not in causes, kind=FailureKind.TIMEOUT)
    if any(word in cause for cause in causes for word in _NO_CONNECTION):
        billed = not {"ConnectError", "ConnectTimeout"} & set(causes)
        return UpstreamFailed(what=what, retryable=True, may_be_billed=billed, kind=FailureKind.CONNECTION)
    return garbage(what)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what caused it, innermost last."""
    found = [error]
    while len(found) < 10 and (cause := found[-1].__cause__ or found[-1].__context__) is not None:
        found.append(cause)
    return found
