"""The adapter over any-llm keeps the promises of every adapter, shown on its provider for OpenAI's wire."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing_core.errors import FieldInvalid
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.any_llm import AnyLlm
from farthing_router.wires import Wire, WireEntry, wire_of

from tests.fake_providers.dialects import OpenAI
from tests.fake_providers.server import FakeProvider

Stage = tuple[FakeProvider, AnyLlm, Callable[..., Call]]


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with FakeProvider(OpenAI()).running() as provider:

        def call(behaviour: str, *, port: int | None = None, timeout_s: float = 20.0, **parameters: Any) -> Call:
            wire = Wire(name="any_llm", any_llm_provider="openai")
            deployment = Deployment("p", f"http://127.0.0.1:{port or provider.port}/v1", behaviour, "sk-secret", 5.0, 0, wire)
            conversation = [chat_pb2.ChatMessage(role="user", content="what is it?")]
            return Call(deployment, conversation, chat_pb2.Parameters(**parameters), 50, timeout_s, "r-1")

        yield provider, AnyLlm(), call


async def failure(upstream: AnyLlm, call: Call, *, streaming: bool) -> tuple[UpstreamFailed, list[str]]:
    heard: list[str] = []
    with pytest.raises(UpstreamFailed) as caught:
        if streaming:
            async for item in upstream.stream(call):
                heard.append(item.content)
        else:
            await upstream.complete(call)
    assert "sk-secret" not in caught.value.message
    return caught.value, heard


async def test_a_whole_answer_comes_with_its_usage(stage: Stage) -> None:
    provider, upstream, call = stage
    found = await upstream.complete(call("good", temperature=0.5, response_format_json='{"type": "json_object"}'))
    assert (found.content, found.finish_reason) == ("forty-two", "stop")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.cached_input_tokens) == (10, 3, 4)
    body = provider.bodies[-1]
    assert (body["temperature"], body["response_format"]) == (0.5, {"type": "json_object"})
    assert body.get("max_completion_tokens") or body["max_tokens"] == 50
    assert provider.headers[-1]["authorization"] == "Bearer sk-secret"


async def test_a_stream_arrives_in_pieces_and_then_whole(stage: Stage) -> None:
    _, upstream, call = stage
    items = [item async for item in upstream.stream(call("good"))]
    assert [item.content for item in items if isinstance(item, UpstreamPiece)] == ["forty", "-two"]
    assert isinstance(items[-1], UpstreamAnswer)
    assert (items[-1].content, items[-1].finish_reason) == ("forty-two", "stop")
    assert items[-1].usage is not None
    assert items[-1].usage.output_tokens == 3


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])
async def test_parallel_tool_calls_come_through(stage: Stage, streaming: bool) -> None:
    _, upstream, call = stage
    if streaming:
        found: Any = [item async for item in upstream.stream(call("tools"))][-1]
    else:
        found = await upstream.complete(call("tools"))
    calls = json.loads(found.extra_json)["tool_calls"]
    assert [(each["id"], json.loads(each["function"]["arguments"])) for each in calls] == [
        ("c1", {"city": "Kyiv"}),
        ("c2", {"zone": "EET"}),
    ]


K = FailureKind
FAULTS = {
    "too-long": (K.CONTEXT_TOO_LONG, False, False),
    "filtered": (K.CONTENT_FILTER, False, False),
    "error-401": (K.AUTH, False, False),
    "error-402": (K.OUT_OF_CREDIT, False, False),
    "error-404": (K.NOT_FOUND, False, False),
    "error-429": (K.RATE_LIMITED, True, False),
    "out-of-quota": (K.OUT_OF_CREDIT, False, False),
    "error-500": (K.SERVER_ERROR, True, False),
    "error-503": (K.OVERLOADED, True, False),
    "error-504": (K.SERVER_ERROR, True, True),
    "reset-first": (K.CONNECTION, True, True),
    "login-page": (K.GARBAGE, True, True),
    "garbage": (K.GARBAGE, True, True),
    "other-json": (K.GARBAGE, True, True),
    "no-utf8": (K.GARBAGE, True, True),
    "truncated": (K.GARBAGE, True, True),
}
BROKEN = {"truncated": (K.BROKEN_STREAM, True, True), "reset-midway": (K.BROKEN_STREAM, True, True)}


@pytest.mark.parametrize("behaviour", FAULTS)
async def test_a_fault_of_a_plain_call_is_named_and_says_what_may_be_done(stage: Stage, behaviour: str) -> None:
    _, upstream, call = stage
    error, _ = await failure(upstream, call(behaviour), streaming=False)
    assert (error.kind, error.retryable, error.may_be_billed) == FAULTS[behaviour]


@pytest.mark.parametrize("behaviour", [*(each for each in FAULTS if each not in ("no-utf8", "truncated")), *BROKEN])
async def test_a_fault_of_a_stream_is_named_and_never_a_clean_end(stage: Stage, behaviour: str) -> None:
    _, upstream, call = stage
    error, heard = await failure(upstream, call(behaviour), streaming=True)
    assert (error.kind, error.retryable, error.may_be_billed) == {**FAULTS, **BROKEN}[behaviour]
    assert heard == (["forty"] if behaviour in BROKEN else [])


async def test_a_refusal_of_the_request_itself_is_not_asked_again(stage: Stage) -> None:
    _, upstream, call = stage
    with pytest.raises(UpstreamRejected, match="temperature is too hot"):
        await upstream.complete(call("error-400"))


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])
async def test_whoever_is_too_slow_is_left_in_time(stage: Stage, streaming: bool) -> None:
    _, upstream, call = stage
    error, heard = await failure(upstream, call("stalls" if streaming else "hangs", timeout_s=0.5), streaming=streaming)
    assert (error.kind, error.retryable, error.may_be_billed) == (K.TIMEOUT, False, True)
    assert heard == (["forty"] if streaming else [])


async def test_where_nobody_listens_nothing_can_be_billed(stage: Stage) -> None:
    _, upstream, call = stage
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        error, _ = await failure(upstream, call("good", port=listener.getsockname()[1]), streaming=False)
    assert (error.kind, error.retryable, error.may_be_billed) == (K.CONNECTION, True, False)


async def test_how_long_to_wait_comes_with_a_refusal(stage: Stage) -> None:
    _, upstream, call = stage
    error, _ = await failure(upstream, call("error-429-and-when"), streaming=False)
    assert error.retry_after_s == 7.0
    assert error.limits is not None
    assert error.limits.requests_remaining == 59


async def test_a_caller_who_leaves_a_stream_leaves_the_provider(stage: Stage) -> None:
    _, upstream, call = stage
    items = upstream.stream(call("stalls", timeout_s=60.0))
    assert (await anext(items)).content == "forty"
    async with asyncio.timeout(2):
        await items.aclose()


def test_a_provider_of_any_llm_must_be_named() -> None:
    with pytest.raises(FieldInvalid, match="any_llm_provider"):
        wire_of(WireEntry(wire="any_llm"), name="p", upstream_model="m", key_of=lambda _: None)


def test_nobody_loads_it_who_does_not_use_it() -> None:
    code = "import sys, farthing_router.app; print('any_llm' in sys.modules, 'httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False False"), done.stderr
