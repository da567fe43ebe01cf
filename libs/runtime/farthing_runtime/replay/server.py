"""The replay server: OpenAI's wire in front of recorded answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from aiohttp import web

from farthing_runtime.replay.answers import Recorded, Recordings

_BODY_BYTES_MAX = 8 * 1024 * 1024
_CREATED = 1_750_000_000
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a replay behaves: `latency_factor` scales the recorded latencies (0 answers at once), `fail_rate` of the requests fail."""

    latency_factor: float = 0.0
    fail_rate: float = 0.0
    seed: int = 0


class Replay:
    """The handlers."""

    def __init__(self, recordings: Recordings, behaviour: Behaviour) -> None:
        self._recordings = recordings
        self._behaviour = behaviour
        self._rng = Random(behaviour.seed)
        self.calls = 0

    def application(self) -> web.Application:
        """A web application with OpenAI's paths."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_route("*", "/{path:.*}", self._not_there)
        return app

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "replay"} for name in self._recordings.models]
        return web.json_response({"object": "list", "data": data})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        self.calls += 1
        if self._behaviour.fail_rate and self._rng.random() < self._behaviour.fail_rate:
            return self._fail(request)
        try:
            body = json.loads(await request.read())
            prompt = _prompt(body)
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"the body is larger than {_BODY_BYTES_MAX} bytes", "body_too_large")
        except (ValueError, RecursionError) as error:
            return _error(400, str(error) or "the body is not JSON", "invalid_body")
        model = body.get("model")
        if model not in self._recordings.models:
            return _error(404, f"no answers of model {model!r} were recorded", "model_not_found", param="model")
        recorded = self._recordings.find(model, prompt)
        if recorded is None:
            shown = prompt if len(prompt) <= 80 else f"{prompt[:80]}…"
            return _error(404, f"model {model} has no recorded answer to {shown!r}", "prompt_not_recorded", param="messages")
        if self._behaviour.latency_factor:
            await asyncio.sleep(recorded.latency_ms / 1000 * self._behaviour.latency_factor)
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        recorded = _truncated(recorded, limit)
        return await self._stream(request, recorded, body) if body.get("stream") else web.json_response(_completion(recorded))

    async def _stream(self, request: web.Request, recorded: Recorded, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "chatcmpl-replay", "object": "chat.completion.chunk", "created": _CREATED, "model": recorded.model}

        def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

        await response.write(event({"role": "assistant", "content": ""}))
        if recorded.tool_calls:
            calls = [{"index": number, **call} for number, call in enumerate(recorded.tool_calls)]
            await response.write(event({"tool_calls": calls}))
        for piece in _pieces(recorded.answer):
            await response.write(event({"content": piece}))
        await response.write(event({}, recorded.finish_reason))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(b"data: " + json.dumps({**head, "choices": [], "usage": _usage(recorded)}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _fail(self, request: web.Request) -> web.Response:
        kind = self._rng.choice(("500", "429", "drop"))
        if kind == "429":
            return _error(429, "rate limited, as asked for by --fail", "rate_limit_exceeded", headers={"retry-after": "0.05"})
        if kind == "drop" and request.transport is not None:
            request.transport.abort()
        return _error(500, "failed, as asked for by --fail", "server_error")

    async def _not_there(self, request: web.Request) -> web.Response:
        return _error(404, f"nothing at {request.method} {request.path}", "not_found")


@asynccontextmanager
async def running_replay(
    recordings: Recordings, behaviour: Behaviour | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serves recordings until the block ends; gives the base URL, such as `http://127.0.0.1:4010/v1`."""
    replay = Replay(recordings, behaviour or Behaviour())
    runner = web.AppRunner(replay.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def _prompt(body: Any) -> str:
    """The text of the last user message: what answers are recorded under."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise ValueError("messages must be a list")
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
            if isinstance(content, str):
                return content
    raise ValueError("messages has no user message with text")


def _truncated(recorded: Recorded, limit: Any) -> Recorded:
    if not isinstance(limit, int) or limit <= 0 or recorded.output_tokens <= limit:
        return recorded
    from dataclasses import replace

    kept = recorded.answer[: max(1, len(recorded.answer) * limit // recorded.output_tokens)]
    return replace(recorded, answer=kept, output_tokens=limit, finish_reason="length")


def _completion(recorded: Recorded) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": recorded.answer}
    if recorded.tool_calls:
        message["tool_calls"] = recorded.tool_calls
    return {
        "id": "chatcmpl-replay",
        "object": "chat.completion",
        "created": _CREATED,
        "model": recorded.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": recorded.finish_reason}],
        "usage": _usage(recorded),
    }


def _usage(recorded: Recorded) -> dict[str, Any]:
    total = recorded.input_tokens + recorded.output_tokens
    return {"prompt_tokens": recorded.input_tokens, "completion_tokens": recorded.output_tokens, "total_tokens": total}


def _pieces(text: str) -> list[str]:
    return [text[start : start + 4 * _CHARACTERS_PER_TOKEN] for start in range(0, len(text), 4 * _CHARACTERS_PER_TOKEN)]


def _error(
    status: int, message: str, code: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    kind = "invalid_request_error" if status < 429 else "server_error"
    return web.json_response(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status, headers=headers
    )
