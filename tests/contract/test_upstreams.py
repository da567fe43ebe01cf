"""What every adapter to a provider promises, each against a local server that speaks its wire and has every fault we know."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import (
    Call,
    FailureKind,
    Upstream,
    UpstreamAnswer,
    UpstreamFailed,
    UpstreamPiece,
    UpstreamRejected,
)
from farthing_router.upstreams.anthropic_wire import AnthropicFormat
from farthing_router.upstreams.cohere_wire import CohereFormat
from farthing_router.upstreams.exchange import HttpUpstream, open_session
from farthing_router.upstreams.openai_wire import AzureFormat, OpenAIFormat
from farthing_router.upstreams.payloads import Reported
from farthing_router.wires import Wire

from tests.fake_providers.dialects import CALLS, Anthropic, Azure, Cohere, OpenAI
from tests.fake_providers.server import FakeProvider

_TIMEOUT_S = 0.4
WIRES = {
    "openai": (OpenAIFormat, OpenAI, "/v1"),
    "azure": (AzureFormat, Azure, ""),
    "anthropic": (AnthropicFormat, Anthropic, ""),
    "cohere": (CohereFormat, Cohere, ""),
}
KEY_HEADERS = {"openai": "authorization", "azure": "api-key", "anthropic": "x-api-key", "cohere": "authorization"}


@dataclass
class Stage:
    """An adapter, the provider that it calls, and calls."""

    name: str
    provider: FakeProvider
    upstream: Upstream
    call: Callable[..., Call]

    async def streamed(self, call: Call) -> tuple[list[UpstreamPiece], UpstreamAnswer]:
        items = [item async for item in self.upstream.stream(call)]
        assert isinstance(items[-1], UpstreamAnswer)
        return [item for item in items if isinstance(item, UpstreamPiece)], items[-1]

    async def failure(self, call: Call, *, streaming: bool) -> tuple[UpstreamFailed, list[str]]:
        """The failure, and what was heard before it; within bounded time."""
        heard: list[str] = []
        began_s = time.monotonic()
        with pytest.raises(UpstreamFailed) as caught:
            if streaming:
                async for item in self.upstream.stream(call):
                    heard.append(item.content)
            else:
                await self.upstream.complete(call)
        assert time.monotonic() - began_s < call.timeout_s + 5.0
        assert "sk-secret" not in caught.value.message
        return caught.value, heard


@pytest.fixture(scope="module", params=WIRES)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    made, dialect, path = WIRES[request.param]
    async with FakeProvider(dialect()).running() as provider, open_session(connections_max=10) as session:
        upstream = HttpUpstream(session, made())

        def call(behaviour: str, *, port: int | None = None, timeout_s: float = 5.0, **parameters: Any) -> Call:
            base_url = f"http://127.0.0.1:{port or provider.port}{path}"
            deployment = Deployment("p", base_url, behaviour, "sk-secret", 5.0, 0, Wire(name=request.param))
            conversation = [chat_pb2.ChatMessage(role="user", content="what is it?")]
            return Call(deployment, conversation, chat_pb2.Parameters(**parameters), 50, timeout_s, "r-1")

        yield Stage(request.param, provider, upstream, call)


async def test_a_whole_answer_comes_with_its_usage_and_what_is_left_of_the_limits(stage: Stage) -> None:
    found = await stage.upstream.complete(stage.call("good", temperature=0.5, stop=["."]))
    assert (found.content, found.finish_reason) == ("forty-two", "stop")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 3)
    assert found.limits is not None
    assert found.limits.requests_remaining == 59
    key = stage.provider.headers[-1][KEY_HEADERS[stage.name]]
    assert key.removeprefix("Bearer ") == "sk-secret"
    assert stage.provider.bodies[-1]["temperature"] == 0.5
    assert "." in json.dumps(stage.provider.bodies[-1].get("stop") or stage.provider.bodies[-1]["stop_sequences"])


@pytest.mark.parametrize("behaviour", ["good", "bytewise", "mislabelled"])
async def test_a_stream_arrives_in_pieces_and_then_whole(stage: Stage, behaviour: str) -> None:
    pieces, whole = await stage.streamed(stage.call(behaviour))
    assert [piece.content for piece in pieces] == ["forty", "-two"]
    assert (whole.content, whole.finish_reason) == ("forty-two", "stop")
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (10, 3)
    assert whole.limits is not None
    assert stage.provider.bodies[-1]["stream"] is True


async def test_an_answer_is_read_by_what_it_is_and_not_by_its_label(stage: Stage) -> None:
    assert (await stage.upstream.complete(stage.call("mislabelled"))).content == "forty-two"


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])
async def test_parallel_tool_calls_come_through_in_openais_words(stage: Stage, streaming: bool) -> None:
    call = stage.call("tools")
    found = (await stage.streamed(call))[1] if streaming else await stage.upstream.complete(call)
    assert (found.content, found.finish_reason) == ("", "tool_calls")
    calls = json.loads(found.extra_json)["tool_calls"]
    assert [each["id"] for each in calls] == ["c1", "c2"]
    assert [each["function"]["name"] for each in calls] == ["weather", "time"]
    said = [json.loads(each["function"]["arguments"]) for each in calls]
    assert said == [json.loads(each["function"]["arguments"]) for each in CALLS]  # type: ignore[index]


async def test_streamed_tool_calls_can_be_put_together_from_their_pieces(stage: Stage) -> None:
    pieces, _ = await stage.streamed(stage.call("tools"))
    arguments = {0: "", 1: ""}
    for piece in pieces:
        for each in json.loads(piece.extra_json).get("tool_calls", ()):
            arguments[each["index"]] += each["function"].get("arguments") or ""
    assert [json.loads(arguments[index]) for index in (0, 1)] == [{"city": "Kyiv"}, {"zone": "EET"}]


async def test_a_refusal_of_the_request_itself_is_not_asked_again(stage: Stage) -> None:
    with pytest.raises(UpstreamRejected, match="temperature is too hot"):
        await stage.upstream.complete(stage.call("error-400"))
    with pytest.raises(UpstreamRejected, match="temperature is too hot"):
        await stage.streamed(stage.call("error-400"))


K = FailureKind
# behaviour: kind, and whether asking again may help, and whether it may be billed
SAME_FOR_BOTH = {
    "too-long": (K.CONTEXT_TOO_LONG, False, False),
    "filtered": (K.CONTENT_FILTER, False, False),
    "error-401": (K.AUTH, False, False),
    "error-402": (K.OUT_OF_CREDIT, False, False),
    "error-403": (K.AUTH, False, False),
    "error-404": (K.NOT_FOUND, False, False),
    "error-413": (K.CONTEXT_TOO_LONG, False, False),
    "error-429": (K.RATE_LIMITED, True, False),
    "error-429-and-when": (K.RATE_LIMITED, True, False),
    "out-of-quota": (K.OUT_OF_CREDIT, False, False),
    "error-500": (K.SERVER_ERROR, True, False),
    "error-501": (K.SERVER_ERROR, False, False),
    "error-503": (K.OVERLOADED, True, False),
    "error-504": (K.SERVER_ERROR, True, True),
    "error-529": (K.OVERLOADED, True, False),
    "redirects": (K.NOT_FOUND, False, False),
    "huge-header": (K.GARBAGE, True, True),
    "no-http": (K.GARBAGE, True, True),
    "reset-first": (K.CONNECTION, True, True),
    "login-page": (K.GARBAGE, True, True),
    "gzip-bomb": (K.TOO_LARGE, False, True),
    "garbage": (K.GARBAGE, True, True),
    "other-json": (K.GARBAGE, True, True),
    "no-utf8": (K.GARBAGE, True, True),
    "endless": (K.TOO_LARGE, False, True),
}
PLAIN = {
    "truncated": (K.GARBAGE, True, True),
    "reset-midway": (K.CONNECTION, True, True),
    "error-within": (K.OVERLOADED, True, False),
}
STREAMED = {
    "truncated": (K.BROKEN_STREAM, True, True),
    "reset-midway": (K.BROKEN_STREAM, True, True),
    "error-within": (K.OVERLOADED, True, True),
    "endless-line": (K.TOO_LARGE, False, True),
}
# What a provider bills on top.
BILLED = {("azure", "too-long"), ("azure", "filtered"), ("azure", "error-413")}
HEARD_FIRST = {"no-utf8", "truncated", "reset-midway", "error-within", "endless-line"}


@pytest.mark.parametrize("behaviour", [*SAME_FOR_BOTH, *PLAIN])
async def test_a_fault_of_a_plain_call_is_named_and_says_what_may_be_done(stage: Stage, behaviour: str) -> None:
    expected = {**SAME_FOR_BOTH, **PLAIN}[behaviour]
    error, _ = await stage.failure(stage.call(behaviour), streaming=False)
    assert (error.kind, error.retryable) == expected[:2]
    assert error.may_be_billed == (expected[2] or (stage.name, behaviour) in BILLED)


@pytest.mark.parametrize("behaviour", [*SAME_FOR_BOTH, *STREAMED])
async def test_a_fault_of_a_stream_is_named_and_never_a_clean_end(stage: Stage, behaviour: str) -> None:
    expected = {**SAME_FOR_BOTH, **STREAMED}[behaviour]
    error, heard = await stage.failure(stage.call(behaviour), streaming=True)
    assert (error.kind, error.retryable) == expected[:2]
    assert error.may_be_billed == (expected[2] or (stage.name, behaviour) in BILLED)
    assert heard[:1] == (["forty"] if behaviour in HEARD_FIRST or behaviour == "endless" else [])


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("behaviour", ["hangs", "drips", "stalls"])
async def test_whoever_is_too_slow_is_left_in_time(stage: Stage, behaviour: str, streaming: bool) -> None:
    if behaviour == "stalls" and not streaming:
        behaviour = "hangs"
    error, heard = await stage.failure(stage.call(behaviour, timeout_s=_TIMEOUT_S), streaming=streaming)
    assert (error.kind, error.retryable, error.may_be_billed) == (K.TIMEOUT, False, True)
    assert heard == (["forty"] if behaviour == "stalls" else [])


async def test_how_long_to_wait_and_what_is_left_come_with_a_refusal(stage: Stage) -> None:
    error, _ = await stage.failure(stage.call("error-429-and-when"), streaming=False)
    assert error.retry_after_s == 7.0
    assert error.limits is not None
    assert error.limits.requests_remaining == 59
    if stage.name == "anthropic":
        assert error.message == "429: slow down (request req_1)"
    bare, _ = await stage.failure(stage.call("error-429"), streaming=False)
    assert (bare.retry_after_s, bare.limits) == (None, None)


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])
async def test_where_nobody_listens_nothing_can_be_billed(stage: Stage, unused_port: int, streaming: bool) -> None:
    error, _ = await stage.failure(stage.call("good", port=unused_port), streaming=streaming)
    assert (error.kind, error.retryable, error.may_be_billed) == (K.CONNECTION, True, False)


async def test_a_caller_who_leaves_a_stream_leaves_the_provider(stage: Stage) -> None:
    items = stage.upstream.stream(stage.call("stalls", timeout_s=60.0))
    assert (await anext(items)).content == "forty"
    async with asyncio.timeout(2):
        await items.aclose()


@pytest.fixture(scope="module")
def unused_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_usage_is_told_apart_from_none() -> None:
    body = OpenAI().whole()
    assert OpenAIFormat().answer(json.dumps({**body, "usage": None}).encode()).usage is None
    zero = {"prompt_tokens": 0, "completion_tokens": 0}
    assert OpenAIFormat().answer(json.dumps({**body, "usage": zero}).encode()).usage == Reported(0, 0)
