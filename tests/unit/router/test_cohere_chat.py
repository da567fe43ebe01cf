"""Conversations, tools, formats and streams in the words of Cohere's chat."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamFailed
from farthing_router.upstreams.cohere_wire import CohereFormat, cohere_url
from farthing_router.upstreams.payloads import Reported
from farthing_router.wires import Wire


def sent(*messages: Any, extra: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
    deployment = Deployment("p", "http://host", "command", "sk", 5.0, 0, Wire(name="cohere"))
    given = chat_pb2.Parameters(**parameters, extra_json=json.dumps(extra) if extra else "")
    conversation = messages or (chat_pb2.ChatMessage(role="user", content="hi"),)
    return json.loads(CohereFormat().outgoing(Call(deployment, conversation, given, 50, 1.0, "r-1"), stream=False).body)


def test_parameters_have_its_names() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("f", "g")]
    extra = {
        "tool_choice": {"type": "function", "function": {"name": "g"}},
        "top_k": 5,
        "user": "ann",
        "documents": ["d"],
        "logprobs": True,
    }
    form = json.dumps({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}})
    body = sent(top_p=0.9, seed=7, stop=["."], tools_json=json.dumps(tools), response_format_json=form, extra=extra)
    assert body == {
        "model": "command",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 50,
        "p": 0.9,
        "seed": 7,
        "stop_sequences": ["."],
        "tools": [tools[1]],
        "tool_choice": "REQUIRED",
        "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
        "k": 5,
        "documents": ["d"],
        "logprobs": True,
    }


def test_tool_calls_and_their_results_go_back_with_the_plan_before_them() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    body = sent(
        chat_pb2.ChatMessage(role="developer", content="be brief"),
        chat_pb2.ChatMessage(role="assistant", content="I will look.", extra_json=json.dumps({"tool_calls": calls})),
        chat_pb2.ChatMessage(role="tool", content="one", extra_json='{"tool_call_id": "a"}'),
    )
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "assistant", "tool_calls": calls, "tool_plan": "I will look."},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
    ]


def test_citations_thoughts_and_log_probabilities_come_whole_and_streamed() -> None:
    citation = {"start": 0, "end": 2, "text": "42", "sources": []}
    items = [{"text": "4", "token_ids": [1], "logprobs": [-0.2]}, {"text": "2", "token_ids": [2, 3], "logprobs": [-0.4, -0.6]}]
    usage = {"billed_units": {"input_tokens": 10, "output_tokens": 3}}
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "42"}]
    body = {"id": "x", "message": {"content": content, "citations": [citation]}, "finish_reason": "MAX_TOKENS", "usage": usage}
    whole = CohereFormat().answer(json.dumps({**body, "logprobs": items}).encode())
    assembly = CohereFormat().assembly()
    pieces = [
        assembly.take(json.dumps(event).encode())
        for event in (
            {"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "hm"}}}},
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "4"}}}, "logprobs": items[0]},
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "2"}}}, "logprobs": items[1]},
            {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}},
            {"type": "citation-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS", "usage": usage}},
        )
    ]
    assert [piece.content for piece in pieces if piece is not None] == ["", "4", "2", ""]
    for found in (whole, assembly.answer()):
        assert (found.content, found.finish_reason, found.usage) == ("42", "length", Reported(10, 3))
        assert json.loads(found.extra_json) == {"reasoning_content": "hm", "citations": [citation]}
        assert found.mean_logprob == pytest.approx(-0.4)
        assert json.loads(found.response_extra_json)["logprobs"]["tokens"] == items


@pytest.mark.parametrize(("reason", "kind"), [("ERROR", FailureKind.SERVER_ERROR), ("TIMEOUT", FailureKind.TIMEOUT)])
def test_an_answer_that_ended_because_cohere_broke_down_is_a_failure(reason: str, kind: FailureKind) -> None:
    body = {"id": "x", "message": {"content": [{"type": "text", "text": "fo"}]}, "finish_reason": reason}
    with pytest.raises(UpstreamFailed) as caught:
        CohereFormat().answer(json.dumps(body).encode())
    assert (caught.value.kind, caught.value.may_be_billed) == (kind, True)


def test_its_address_may_be_written_with_or_without_a_version() -> None:
    assert {cohere_url(f"https://host{version}", "v2/chat") for version in ("", "/v1", "/v2")} == {"https://host/v2/chat"}


def test_nobody_asks_a_dearer_model_or_for_a_longer_answer_in_what_is_passed_on() -> None:
    assert sent(extra={"model": "command-a", "max_tokens": 9_000, "messages": [], "tools": [{}]}) == sent()
