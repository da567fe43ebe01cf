"""What every adapter to a provider promises, against a local server that speaks the OpenAI wire and has every fault we know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from farthing.chat.v1 import chat_pb2
from farthing_router.catalog import Deployment
from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.events import sse_events
from farthing_router.upstreams.exchange import HttpUpstream, open_session
from farthing_router.upstreams.openai_wire import OpenAIFormat
from farthing_router.upstreams.payloads import Reported

USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


def answer(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "forty-two", **more.pop("message", {})}
    return {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
        **more,
    }


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> bytes:
    body = {
        "choices": [
            {"index": 0, "delta": {**({"content": content} if content is not None else {}), **delta}, "finish_reason": finish}
        ]
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Provider:
    """Behaves as its model's name says; remembers what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        behaviour = body["model"]
        if body.get("stream"):
            return await self._stream(request, behaviour)
        match behaviour:
            case "good":
                return web.json_response(answer(system_fingerprint="fp", message={"refusal": None}))
            case "tools":
                calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}}]
                return web.json_response(answer(message={"content": None, "tool_calls": calls}))
            case "no-usage":
                return web.json_response(answer(usage=None))
            case "zero-usage":
                return web.json_response(answer(usage={"prompt_tokens": 0, "completion_tokens": 0}))
            case "malformed":
                return web.json_response({"error": {"message": "temperature is too hot"}}, status=400)
            case "overloaded":
                return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "7"})
            case "broken":
                return web.Response(status=503, text="<html>")
            case "forbidden":
                return web.json_response({"error": {"message": "bad key"}}, status=401)
            case "garbage":
                return web.Response(text="not json at all")
            case "empty":
                return web.json_response({"choices": []})
            case "hangs":
                await asyncio.sleep(30)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _stream(self, request: web.Request, behaviour: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": comment\n\n" + chunk("", role="assistant") + chunk("forty"))
        if behaviour == "truncated":
            await response.write_eof()
            return response
        if behaviour == "reset":
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
            return response
        if behaviour == "drip":
            whole = chunk("-two") + chunk(None, "stop")
            for position in range(0, len(whole), 7):
                await response.write(whole[position : position + 7])
                await asyncio.sleep(0.001)
        else:
            await response.write(chunk("-two") + chunk(None, "stop"))
        await response.write(b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n" + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


@pytest.fixture
async def provider() -> AsyncIterator[Any]:
    made = Provider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with open_session(connections_max=10) as session:
        wire = HttpUpstream(session, OpenAIFormat())

        def call(behaviour: str, **parameters: Any) -> Call:
            deployment = Deployment("p", f"http://127.0.0.1:{port}/v1", behaviour, "sk-secret", 5.0, 0)
            conversation = [chat_pb2.ChatMessage(role="user", content="what is it?")]
            return Call(deployment, conversation, chat_pb2.Parameters(**parameters), 50, 1.0, "r-1")

        yield made, wire, call
    await runner.cleanup()


async def test_a_whole_answer_comes_with_its_usage_and_unknown_fields(provider: Any) -> None:
    made, wire, call = provider
    found = await wire.complete(call("good", temperature=0.5, stop=["."], extra_json='{"logit_bias": {"5": -100}}'))
    assert (found.content, found.finish_reason, json.loads(found.response_extra_json)) == (
        "forty-two",
        "stop",
        {"system_fingerprint": "fp"},
    )
    assert found.usage == Reported(10, 3, 4)
    body = made.bodies[0]
    assert body == {
        "model": "good",
        "messages": [{"role": "user", "content": "what is it?"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "stop": ["."],
        "logit_bias": {"5": -100},
    }
    assert made.headers[0]["authorization"] == "Bearer sk-secret"


async def test_tool_calls_come_through_untouched(provider: Any) -> None:
    _, wire, call = provider
    found = await wire.complete(call("tools"))
    assert found.content == ""
    assert json.loads(found.extra_json)["tool_calls"][0]["function"]["arguments"] == '{"a": 1.0}'


async def test_usage_that_is_missing_is_told_from_usage_of_zero(provider: Any) -> None:
    _, wire, call = provider
    assert (await wire.complete(call("no-usage"))).usage is None
    assert (await wire.complete(call("zero-usage"))).usage == Reported(0, 0)


@pytest.mark.parametrize(
    ("behaviour", "retryable", "retry_after_s", "may_be_billed"),
    [
        ("overloaded", True, 7.0, False),
        ("broken", True, None, False),
        ("forbidden", False, None, False),
        ("garbage", True, None, True),
        ("empty", True, None, True),
        ("reset", True, None, True),
        ("hangs", False, None, True),
    ],
)
async def test_a_fault_is_named_and_says_whether_to_ask_again_and_whether_it_may_be_billed(
    provider: Any, behaviour: str, retryable: bool, retry_after_s: float | None, may_be_billed: bool
) -> None:
    _, wire, call = provider
    with pytest.raises(UpstreamFailed) as caught:
        await wire.complete(call(behaviour))
    assert (caught.value.retryable, caught.value.retry_after_s) == (retryable, retry_after_s)
    assert caught.value.may_be_billed == may_be_billed
    assert "sk-secret" not in caught.value.message


async def test_a_refusal_of_the_request_itself_is_not_asked_again(provider: Any) -> None:
    _, wire, call = provider
    with pytest.raises(UpstreamRejected, match="temperature is too hot"):
        await wire.complete(call("malformed"))


@pytest.mark.parametrize("behaviour", ["good", "drip"])
async def test_a_stream_arrives_in_pieces_and_then_whole(provider: Any, behaviour: str) -> None:
    made, wire, call = provider
    items = [item async for item in wire.stream(call(behaviour))]
    assert [item.content for item in items if isinstance(item, UpstreamPiece)] == ["forty", "-two"]
    assert isinstance(items[-1], UpstreamAnswer)
    assert (items[-1].content, items[-1].finish_reason, items[-1].usage) == ("forty-two", "stop", Reported(10, 3, 4))
    assert made.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("behaviour", ["truncated", "reset"])
async def test_a_stream_that_breaks_is_an_error_after_its_pieces_never_a_clean_end(provider: Any, behaviour: str) -> None:
    _, wire, call = provider
    pieces = []
    with pytest.raises(UpstreamFailed):
        async for item in wire.stream(call(behaviour)):
            pieces.append(item.content)
    assert pieces == ["forty"]


async def test_events_are_the_same_however_their_bytes_are_cut() -> None:
    raw = b'data: {"a":1}\r\n\r\n: note\n\ndata: one\ndata: two\n\nevent: x\ndata:[DONE]\n\n'

    async def cut(size: int) -> AsyncIterator[bytes]:
        for position in range(0, len(raw), size):
            yield raw[position : position + size]

    for size in (1, 2, 3, 5, 1000):
        assert [event async for event in sse_events(cut(size))] == [b'{"a":1}', b"one\ntwo", b"[DONE]"]
