"""The HTTP edge against bad callers: every answer is OpenAI's error object with the field, and nothing is unbounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from farthing.gateway.v1 import access_pb2, access_pb2_grpc
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import running_replay

MESSAGES = [{"role": "user", "content": "hello"}]
CATALOG = """\
version: 1
providers: {{replay: {{base_url: "{url}", api_key_optional: true, retries: 0}}}}
models:
  m: {{provider: replay, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
"""


@pytest.fixture
async def edge(suite: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """POSTs to a running gateway: `status, headers, body = await edge(…)`."""
    async with AsyncExitStack() as stack:
        recordings = Recordings([Recorded("m", "hello", "Hello, you.", 10, 4)])
        url = await stack.enter_async_context(running_replay(recordings))
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        names = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator", "gateway")
        running = await stack.enter_async_context(suite(*names, config_file=path))
        session = await stack.enter_async_context(aiohttp.ClientSession(running.endpoints["http"]))

        async def post(
            body: Any = None, *, raw: bytes | None = None, target: str = "/v1/chat/completions", **options: Any
        ) -> Any:
            data = raw if raw is not None else json.dumps(body).encode()
            method = options.pop("method", "POST")
            async with session.request(method, target, data=data, **options) as answer:
                return answer.status, answer.headers, await answer.read()

        post.suite = running  # type: ignore[attr-defined]
        yield post


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], "body"),
        ({"messages": MESSAGES}, "model"),
        ({"model": 5, "messages": MESSAGES}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["x"]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "m", "messages": MESSAGES, "temperature": 3}, "temperature"),
        ({"model": "m", "messages": MESSAGES, "temperature": True}, "temperature"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": -1}, "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"model": "m", "messages": MESSAGES, "stop": [1]}, "stop"),
        ({"model": "m", "messages": MESSAGES, "n": 2}, "n"),
        ({"model": "m", "messages": MESSAGES, "seed": "x"}, "seed"),
        ({"model": "m", "messages": MESSAGES, "tools": {}}, "tools"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream"),
        ({"model": "m", "messages": MESSAGES, "farthing": 1}, "farthing"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(edge: Any, body: Any, param: str) -> None:
    status, _, raw = await edge(body)
    assert (status, error_of(raw)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-farthing-scope": "acme"}, "x-farthing-scope"),
        ({"x-farthing-cache": "always"}, "x-farthing-cache"),
        ({"x-farthing-cache-ttl-s": "soon"}, "x-farthing-cache-ttl-s"),
        ({"x-farthing-request-id": "7"}, "x-farthing-request-id"),
    ],
)
async def test_a_bad_header_is_a_400_that_names_it(edge: Any, headers: dict[str, str], param: str) -> None:
    status, _, raw = await edge({"model": "m", "messages": MESSAGES}, headers=headers)
    assert (status, error_of(raw)["param"]) == (400, param)


@pytest.mark.parametrize("raw", [b"", b"{", b'{"model": "\xff\xfe"}', b"[" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000])
async def test_what_is_no_json_is_a_400(edge: Any, raw: bytes) -> None:
    status, _, body = await edge(raw=raw)
    assert (status, error_of(body)["param"]) == (400, "body")


async def test_too_much_is_refused_with_the_limit(edge: Any) -> None:
    status, _, body = await edge({"model": "m", "messages": [{"role": "user", "content": "x" * 10_000_000}]})
    assert (status, error_of(body)["param"]) == (400, "messages[0].content")
    status, _, body = await edge(raw=b" " * 20_000_000)
    assert (status, error_of(body)["code"]) == (413, "body_too_large")


async def test_unknown_models_and_paths_are_404(edge: Any) -> None:
    for options, code in (
        ({"body": {"model": "ghost", "messages": MESSAGES}}, "model_not_found"),
        ({"target": "/v1/nothing", "raw": b""}, "not_found"),
        ({"target": "/v1/models/ghost", "method": "GET", "raw": b""}, "model_not_found"),
    ):
        status, _, body = await edge(**options)
        assert (status, error_of(body)["code"]) == (404, code)


async def test_another_method_is_a_405_that_names_the_right_one(edge: Any) -> None:
    status, headers, body = await edge(method="GET", raw=b"")
    assert (status, headers["allow"], error_of(body)["code"]) == (405, "POST", "method_not_allowed")


async def test_an_answer_has_openais_shape_and_our_headers(edge: Any) -> None:
    status, headers, raw = await edge({"model": "m", "messages": MESSAGES, "some_new_field": {"deep": [1]}})
    body = json.loads(raw)
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello, you."},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert body["usage"]["total_tokens"] == 14
    assert headers["x-farthing-cost-usd"] == "0.000018000"
    assert headers["x-farthing-baseline-usd"] == "0.000018000"


async def test_a_stream_is_events_and_an_end_marker(edge: Any) -> None:
    _, headers, raw = await edge({"model": "m", "messages": MESSAGES, "stream": True, "farthing": {"receipt": True}})
    assert headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix(b"data: ") for line in raw.split(b"\n\n") if line]
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["farthing"]["receipt"]["cost_usd_nanos"] == "18000"


async def test_health_and_readiness_answer(edge: Any) -> None:
    for target in ("/healthz", "/readyz"):
        assert (await edge(method="GET", target=target, raw=b""))[0] == 200


async def test_keys_are_made_listed_and_end(edge: Any) -> None:
    stub = access_pb2_grpc.AccessServiceStub(edge.suite.mesh.channel("gateway"))
    scope = "organizations/acme"
    made = await stub.CreateKey(access_pb2.CreateKeyRequest(scope=scope, display_name="ci"))
    assert made.secret.startswith("fk-")
    assert len(made.secret) >= 35
    assert (await stub.WhoAmI(access_pb2.WhoAmIRequest(secret=made.secret))).key.scope == scope
    status, *_ = await edge({"model": "m", "messages": MESSAGES}, headers={"authorization": f"Bearer {made.secret}"})
    assert status == 200
    await stub.RevokeKey(access_pb2.RevokeKeyRequest(scope=scope, key_id=made.key.key_id))
    status, _, raw = await edge({"model": "m", "messages": MESSAGES}, headers={"authorization": f"Bearer {made.secret}"})
    assert (status, error_of(raw)["code"]) == (401, "key_invalid")
    listed = await stub.ListKeys(access_pb2.ListKeysRequest(scope=scope))
    assert [key.HasField("revoke_time") for key in listed.keys] == [True]
