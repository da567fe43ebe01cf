"""What the edge refuses: in OpenAI's error object, naming the field or header as the caller knows it, in bounded time and memory."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

BODY = b'{"model": "small", "messages": [{"role": "user", "content": "hello"}]}'
REFUSED = [
    ("MODEL_UNKNOWN", 404, "invalid_request_error", "model_not_found"),
    ("CONTEXT_TOO_LONG", 400, "invalid_request_error", "context_too_long"),
    ("SCOPE_FORBIDDEN", 403, "permission_error", "scope_forbidden"),
    ("ENTRY_UNKNOWN", 404, "invalid_request_error", "entry_unknown"),
    ("ABORTED", 409, "invalid_request_error", "aborted"),
    ("BUDGET_EXHAUSTED", 429, "insufficient_quota", "budget_exhausted"),
    ("BUDGET_DEGRADED", 429, "insufficient_quota", "budget_degraded"),
    ("RATE_LIMITED", 429, "rate_limit_exceeded", "rate_limited"),
    ("DATA_LOST", 500, "server_error", "data_lost"),
    ("PEER_UNAVAILABLE", 503, "server_error", "peer_unavailable"),
    ("DEADLINE_EXCEEDED", 504, "server_error", "deadline_exceeded"),
]


async def test_each_refusal_has_its_http_status_and_the_requests_id(gateway: Any) -> None:
    async with gateway() as running:
        for reason, status, kind, code in REFUSED:
            running.orchestrator.fails(reason)
            answer = await running.chat()
            assert (answer.status, answer.error["type"], answer.error["code"]) == (status, kind, code)
            assert answer.headers["x-farthing-request-id"] == running.orchestrator.seen[-1].request_id


async def test_a_bug_is_a_500_that_tells_nothing(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.failure = RuntimeError("the secret cause")
        answer = await running.chat()
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert b"secret" not in answer.raw


async def test_over_budget_says_when_to_come_back_and_that_trying_at_once_is_no_use(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.fails("BUDGET_EXHAUSTED", retry_after_s=90.5)
        broke = await running.chat()
        running.orchestrator.fails("RATE_LIMITED", retry_after_s=0.2)
        busy = await running.chat()
    assert (broke.headers["retry-after"], broke.headers["x-should-retry"]) == ("91", "false")
    assert (busy.status, busy.headers["retry-after"]) == (429, "1")
    assert "x-should-retry" not in busy.headers


async def test_over_budget_says_what_the_ledger_said(gateway: Any) -> None:
    said = {"verdict": "DENY", "cause": "LIMIT", "budget_id": "b-1", "alternatives": "OPEN_MODELS,WAIT", "output_tokens_max": 0}
    async with gateway() as running:
        running.orchestrator.fails("BUDGET_EXHAUSTED", retry_after_s=0.0, **said)
        broke = await running.chat()
    found = {name: broke.headers.get(f"x-farthing-{name.replace('_', '-')}") for name in said}
    assert found == {**said, "output_tokens_max": None}


async def test_a_stream_that_is_cut_ends_with_the_budgets_error_and_no_end_marker(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.fails("BUDGET_EXHAUSTED", output_tokens_delivered=2)
        cut = await running.chat(stream=True)
    assert (cut.status, cut.events[-1]["error"]["code"]) == (200, "budget_exhausted")
    assert [event["choices"][0]["delta"].get("content") for event in cut.events[:-1]] == ["", "Hello", ", you."]


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-farthing-scope": "acme"}, "x-farthing-scope"),
        ({"x-farthing-scope": "organizations/a/users/b"}, "x-farthing-scope"),
        ({"x-farthing-task": "t" * 61}, "x-farthing-task"),
        ({"x-farthing-tier": "t" * 61}, "x-farthing-tier"),
        ({"x-farthing-tags": "t" * 101}, "x-farthing-tags"),
        ({"x-farthing-tags": ",".join("t" * 33)}, "x-farthing-tags"),
        ({"x-farthing-providers": "p" * 101}, "x-farthing-providers"),
        ({"x-farthing-cache": "always"}, "x-farthing-cache"),
        ({"x-farthing-cache": ""}, "x-farthing-cache"),
        ({"x-farthing-cache-ttl-s": "soon"}, "x-farthing-cache-ttl-s"),
        ({"x-farthing-cache-ttl-s": "-1"}, "x-farthing-cache-ttl-s"),
        ({"x-farthing-cache-ttl-s": "31536001"}, "x-farthing-cache-ttl-s"),
        ({"x-farthing-cache-ttl-s": "9" * 5000}, "x-farthing-cache-ttl-s"),
        ({"x-farthing-cache-ttl-s": "²"}, "x-farthing-cache-ttl-s"),
        ({"x-farthing-request-id": "7"}, "x-farthing-request-id"),
        ({"x-farthing-receipt": "please"}, "x-farthing-receipt"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_header_is_a_400_that_names_it(gateway: Any, headers: dict[str, str], param: str, stream: bool) -> None:
    async with gateway() as running:
        answer = await running.chat(headers=headers, stream=stream)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["message"].startswith(f"{param}: ") or ";" in answer.error["message"]
    assert running.orchestrator.seen == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": {}, "content": "x"}]}, "messages[0].role"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 10_001}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 4_194_305}]}, "messages[0].content"),
        ({"model": ""}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"model": None}, "model"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 1e999}, "body"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 10_000_001}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": {}}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"n": 0}, "n"),
        ({"n": []}, "n"),
        ({"response_format": "json"}, "response_format"),
        ({"stream": 1}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"farthing": {"receipt": 1}}, "farthing.receipt"),
        ({"farthing": {"recipe": True}}, "farthing.recipe"),
    ],
)
async def test_a_bad_field_is_a_400_that_names_it(gateway: Any, body: dict[str, Any], param: str) -> None:
    async with gateway() as running:
        answer = await running.chat(**body)
    assert (answer.status, answer.error["param"], answer.error["type"]) == (400, param, "invalid_request_error")
    assert running.orchestrator.seen == []


async def test_every_limit_is_named_in_the_refusal(gateway: Any) -> None:
    async with gateway(FARTHING_GATEWAY_BODY_BYTES_MAX="5000000") as running:
        prompt = await running.chat(messages=[{"role": "user", "content": "x" * 4_194_305}])
        assert "4194304" in prompt.error["message"]
        body = await running.chat(raw=b" " * 5_000_001)
        assert (body.status, body.error["param"]) == (413, "body")
        assert "5000000" in body.error["message"]
        bomb = gzip.compress(b" " * 200_000_000)
        packed = await running.chat(raw=bomb, headers={"content-encoding": "gzip"})
        assert (packed.status, packed.error["code"]) == (413, "body_too_large")
        broken = await running.chat(raw=b"no gzip at all", headers={"content-encoding": "gzip"})
        assert (broken.status, broken.error["param"]) == (400, "body")
        assert (await running.chat()).status == 200


async def ask_raw(url: str, *parts: bytes, ends: bool = False) -> tuple[int, dict[str, Any]]:
    """Sends bytes as they are; (status, error object). With `ends` the connection must end with the answer."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            body = await reader.readexactly(length)
            assert not ends or await reader.read() == b""
    finally:
        writer.close()
    return int(head.split()[1]), json.loads(body).get("error", {})


def head(*headers: bytes, length: int = len(BODY)) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: x", b"content-length: %d" % length, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        head(b"x-secret-header : fk-secret"),
        head(b"x-long: " + b"fk-secret" * 2000),
        head(*(b"x-%d: fk-secret" % number for number in range(200))),
        b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_in_json_and_its_bytes_stay_out_of_the_log(gateway: Any, raw: bytes) -> None:
    async with gateway() as running:
        with capture_logs() as logs:
            status, error = await ask_raw(running.url, raw, ends=True)
        assert (status, error["code"]) == (400, "invalid_http")
        assert "secret" not in json.dumps(logs) + json.dumps(error)
        assert (await running.chat()).status == 200


@pytest.mark.parametrize("name", [b"x-farthing-task", b"x-farthing-scope", b"x-farthing-tags", b"x-farthing-providers"])
async def test_a_header_that_is_no_utf_8_is_a_400_that_names_it(gateway: Any, name: bytes) -> None:
    async with gateway() as running:
        status, error = await ask_raw(running.url, head(name + b": \xff\xfe"), BODY)
        assert (status, error["param"]) == (400, name.decode())
        status, error = await ask_raw(running.url, head(b"authorization: Bearer fk-\xff\xfe"), BODY)
        assert (status, error["code"]) == (401, "key_invalid")


async def test_a_body_that_does_not_come_is_waited_for_only_so_long(gateway: Any) -> None:
    async with gateway(FARTHING_GATEWAY_BODY_TIMEOUT_S="0.2") as running:
        status, error = await ask_raw(running.url, head(), BODY[:10])
        assert (status, error["code"], error["param"]) == (408, "body_timeout", "body")


async def test_a_client_that_waits_to_be_told_may_go_on(gateway: Any) -> None:
    async with gateway() as running:
        host, port = running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head(b"expect: 100-continue"))
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(BODY)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        status, error = await ask_raw(running.url, head(b"expect: a-miracle"), BODY)
        assert (status, error["code"]) == (417, "expectation_failed")


async def test_beyond_the_limit_requests_are_refused_and_health_is_not(gateway: Any) -> None:
    async with gateway(FARTHING_GATEWAY_REQUESTS_MAX="2") as running:
        running.orchestrator.holds = asyncio.Event()
        held = [asyncio.create_task(running.chat()) for _ in range(2)]
        while len(running.orchestrator.seen) < 2:
            await asyncio.sleep(0)
        refused = await running.chat()
        assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert (await running.send("GET", "/healthz")).status == 200
        running.orchestrator.holds.set()
        assert [(await each).status for each in held] == [200, 200]
        assert (await running.chat()).status == 200
