"""What comes out of the edge is OpenAI's to the byte, and what goes in reaches the orchestrator untouched."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import aiohttp
import pytest
from farthing.orchestrator.v1 import orchestrator_pb2

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


async def test_a_plain_answer_is_a_chat_completion_with_its_account_in_the_headers(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.answer.extra_json = '{"system_fingerprint": "fp", "logprobs": {"content": []}}'
        running.orchestrator.answer.receipt.budget_left.free_usd_nanos = 1
        running.orchestrator.answer.receipt.cache_outcome = 3
        answer = await running.chat()
    body, request_id = answer.json, running.orchestrator.seen[0].request_id
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": f"chatcmpl-{request_id.replace('-', '')}",
        "object": "chat.completion",
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello, you."},
                "logprobs": {"content": []},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
        "system_fingerprint": "fp",
    }
    ours = {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("x-")}
    assert ours == {
        "x-request-id": request_id,
        "x-farthing-request-id": request_id,
        "x-farthing-cost-usd": "0.000001500",
        "x-farthing-baseline-usd": "2.000000000",
        "x-farthing-saved-usd": "1.999998500",
        "x-farthing-cache": "semantic",
        "x-farthing-model": "small",
        "x-farthing-escalated": "false",
        "x-farthing-added-latency-us": "0",
        "x-farthing-budget-left-usd": "0.000000001",
    }


async def test_an_answer_that_cost_more_than_its_baseline_says_so_with_a_sign(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.answer.receipt.baseline_usd_nanos = 500
        assert (await running.chat()).headers["x-farthing-saved-usd"] == "-0.000001000"


async def test_a_models_name_cannot_break_out_of_its_header(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.answer.model = "modèle\r\nx-evil: 1"
        answer = await running.chat()
    assert answer.headers["x-farthing-model"] == "mod%C3%A8le%0D%0Ax-evil%3A%201"
    assert "x-evil" not in answer.headers


async def test_tool_calls_come_with_null_content(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.answer.answer.content = ""
        running.orchestrator.answer.answer.extra_json = json.dumps({"tool_calls": [CALL], "refusal": None})
        running.orchestrator.answer.answer.finish_reason = "tool_calls"
        (choice,) = (await running.chat()).json["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None}
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("wish", [{"headers": {"x-farthing-receipt": "full"}}, {"farthing": {"receipt": True}}])
async def test_who_asks_for_the_receipt_gets_the_whole(gateway: Any, wish: dict[str, Any]) -> None:
    async with gateway() as running:
        body = (await running.chat(**wish)).json
        assert body["farthing"]["receipt"]["baseline_usd_nanos"] == "2000000000"
        assert "farthing" not in (await running.chat()).json
        assert running.orchestrator.seen[0].parameters.extra_json == ""


async def test_a_request_arrives_as_it_was_sent(gateway: Any) -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
    ]
    unknown = {"tool_choice": "auto", "logit_bias": {"50256": -100}, "some_new_field": {"deep": [1, 2.5, None]}}
    known = {"temperature": 0, "top_p": 0.5, "max_completion_tokens": 7, "stop": "END", "seed": -3, "n": 1}
    json_mode, tools = {"type": "json_object"}, [{"type": "function", "function": {"name": "weather"}}]
    async with gateway() as running:
        await running.chat(messages=messages, tools=tools, response_format=json_mode, **known, **unknown)
        await running.chat(max_tokens=5, stop=["a", "b"], temperature=None)
    seen, bare = running.orchestrator.seen
    assert [message.role for message in seen.messages] == ["developer", "user", "assistant", "tool"]
    assert (seen.messages[1].content, json.loads(seen.messages[1].content_parts_json)) == ("", parts)
    assert json.loads(seen.messages[1].extra_json) == {"name": "ann"}
    assert json.loads(seen.messages[2].extra_json) == {"tool_calls": [CALL]}
    parameters = seen.parameters
    assert (parameters.temperature, parameters.top_p, parameters.output_tokens_max, parameters.seed) == (0, 0.5, 7, -3)
    assert parameters.HasField("temperature")
    assert list(parameters.stop) == ["END"]
    assert json.loads(parameters.tools_json) == tools
    assert json.loads(parameters.response_format_json) == json_mode
    assert json.loads(parameters.extra_json) == unknown
    assert (bare.scope, bare.parameters.output_tokens_max, list(bare.parameters.stop)) == (
        "organizations/default",
        5,
        ["a", "b"],
    )
    assert not bare.parameters.HasField("temperature")
    assert not bare.HasField("overrides")


async def test_our_headers_arrive_as_fields(gateway: Any) -> None:
    request_id = str(uuid.uuid4())
    headers = {
        "x-farthing-scope": "organizations/acme/workspaces/w",
        "x-farthing-task": "caption",
        "x-farthing-tier": "free",
        "x-farthing-cache": "exact",
        "x-farthing-cache-ttl-s": "60",
        "x-farthing-tags": "a, b,",
        "x-farthing-request-id": request_id.upper(),
        "x-farthing-providers": "p,q",
        "x-farthing-service": "crawler",
        "x-farthing-domain": "search",
        "x-farthing-critical": "true",
    }
    async with gateway() as running:
        answer = await running.chat(headers=headers)
    (seen,) = running.orchestrator.seen
    assert (seen.request_id, seen.scope) == (request_id, "organizations/acme/workspaces/w")
    assert (seen.task, seen.tier) == ("caption", "free")
    assert (list(seen.tags), list(seen.overrides.allowed_providers)) == (["a", "b"], ["p", "q"])
    assert (seen.service, seen.domain, seen.key_id, seen.overrides.critical) == ("crawler", "search", "", True)
    assert (seen.overrides.cache_mode, seen.overrides.cache_ttl_s) == (orchestrator_pb2.CACHE_MODE_EXACT, 60)
    assert answer.headers["x-farthing-request-id"] == request_id


def chunk(request_id: str, created: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request_id.replace('-', '')}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": "small",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


async def test_a_stream_is_openais_to_the_chunk(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.pieces = ['Say "hi"\n', "€ and 🐦"]
        answer = await running.chat(stream=True)
    request_id, events = running.orchestrator.seen[0].request_id, answer.events
    created = events[0]["created"]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-farthing-request-id"] == request_id
    assert events == [
        chunk(request_id, created, {"role": "assistant", "content": ""}),
        chunk(request_id, created, {"content": 'Say "hi"\n'}),
        chunk(request_id, created, {"content": "€ and 🐦"}),
        chunk(request_id, created, {}, "stop"),
        "[DONE]",
    ]


async def test_usage_is_null_in_every_chunk_but_the_last_when_it_is_asked_for(gateway: Any) -> None:
    async with gateway() as running:
        events = (await running.chat(stream=True, stream_options={"include_usage": True})).events
    assert [event["usage"] for event in events[:-2]] == [None] * 4
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["total_tokens"] == 14
    assert "farthing" not in events[-2]
    assert events[-1] == "[DONE]"


async def test_the_receipt_of_a_stream_is_in_a_last_chunk_without_choices(gateway: Any) -> None:
    async with gateway() as running:
        events = (await running.chat(stream=True, farthing={"receipt": True})).events
    assert events[-2]["choices"] == []
    assert events[-2]["farthing"]["receipt"]["cost_usd_nanos"] == "1500"
    assert "usage" not in events[-2]


async def test_tool_calls_are_streamed_with_their_positions(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.pieces = ["", "text too"]
        running.orchestrator.extras = [json.dumps({"tool_calls": [CALL]}), '{"reasoning_content": "hm"}']
        running.orchestrator.answer.answer.finish_reason = "tool_calls"
        events = (await running.chat(stream=True)).events
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"tool_calls": [{**CALL, "index": 0}]},
        {"reasoning_content": "hm", "content": "text too"},
        {},
    ]
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_an_answer_that_comes_without_pieces_is_streamed_nevertheless(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.pieces = running.orchestrator.extras = []
        events = (await running.chat(stream=True)).events
    assert [event["choices"][0]["delta"] for event in events[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "Hello, you."},
        {},
    ]


async def test_what_fails_before_the_first_piece_is_an_http_error(gateway: Any) -> None:
    async with gateway() as running:
        running.orchestrator.pieces = running.orchestrator.extras = []
        running.orchestrator.fails("PEER_UNAVAILABLE")
        answer = await running.chat(stream=True)
    assert (answer.status, answer.error["code"]) == (503, "peer_unavailable")
    assert answer.headers["x-farthing-request-id"] == running.orchestrator.seen[0].request_id


@pytest.mark.parametrize("code", ["peer_unavailable", "stream_broken"])
async def test_what_fails_later_is_an_error_event_and_no_end_marker(gateway: Any, code: str) -> None:
    async with gateway() as running:
        if code == "stream_broken":
            running.orchestrator.finishes = False
        else:
            running.orchestrator.fails("PEER_UNAVAILABLE")
        answer = await running.chat(stream=True)
    assert answer.status == 200
    assert [event["choices"][0]["delta"].get("content") for event in answer.events[:-1]] == ["", "Hello", ", you."]
    assert answer.events[-1]["error"]["code"] == code


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_ends_the_call(gateway: Any, stream: bool) -> None:
    async with gateway() as running:
        running.orchestrator.holds = asyncio.Event()
        asked = asyncio.create_task(running.chat(stream=stream))
        async with asyncio.timeout(5):
            await running.orchestrator.begun.wait()
            asked.cancel()
            await running.orchestrator.cancelled.wait()


async def test_models_are_listed_over_all_pages_with_auto_first(gateway: Any) -> None:
    async with gateway() as running:
        listed = (await running.send("GET", "/v1/models")).json
        one = (await running.send("GET", "/v1/models/org/small")).json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["farthing/auto", "large", "org/small", "tiny"]
    assert one == {"id": "org/small", "object": "model", "created": 0, "owned_by": "p"} == listed["data"][2]


async def test_ready_means_that_the_peers_answer(gateway: Any) -> None:
    async with gateway(FARTHING_GATEWAY_AUTH="required") as running:
        assert (await running.send("GET", "/readyz")).status == 200
    for name in ("orchestrator", "router"):
        async with gateway(without=name) as running:
            assert (await running.send("GET", "/readyz")).status == 503
            assert (await running.send("GET", "/healthz")).status == 200
            assert (await running.send("HEAD", "/healthz")).status == 200


async def test_what_is_under_way_is_answered_before_the_listener_closes(gateway: Any) -> None:
    async with aiohttp.ClientSession() as session:
        async with gateway() as running:
            running.orchestrator.holds = holds = asyncio.Event()
            body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
            asked = asyncio.create_task(session.post(f"{running.url}/v1/chat/completions", json=body))
            await running.orchestrator.begun.wait()
            asyncio.get_running_loop().call_later(0.3, holds.set)
        async with await asked as response:
            assert (response.status, (await response.json())["object"]) == (200, "chat.completion")
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{running.url}/healthz")
