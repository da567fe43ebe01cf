"""Conversations, tools, formats and streams in the words of Anthropic's Messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamFailed
from farthing_router.upstreams.anthropic_wire import AnthropicFormat, anthropic_url
from farthing_router.upstreams.payloads import Reported
from farthing_router.wires import Wire


def message(role: str, content: Any = "", **extra: Any) -> Any:
    return chat_pb2.ChatMessage(
        role=role,
        content=content if isinstance(content, str) else "",
        content_parts_json="" if isinstance(content, str) else json.dumps(content),
        extra_json=json.dumps(extra) if extra else "",
    )


def sent(*messages: Any, wire: Wire | None = None, extra: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
    deployment = Deployment("p", "http://host", "claude", "sk", 5.0, 0, wire or Wire(name="anthropic"))
    given = chat_pb2.Parameters(**parameters, extra_json=json.dumps(extra) if extra else "")
    call = Call(deployment, messages or (message("user", "hi"),), given, 50, 1.0, "r-1")
    return json.loads(AnthropicFormat().outgoing(call, stream=False).body)


def test_systems_are_lifted_out_and_turns_alternate() -> None:
    body = sent(
        message("system", "be brief"),
        message("user", "a"),
        message("user", "b"),
        message("developer", "and kind"),
        message("assistant", "c "),
    )
    assert body["system"] == [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}]
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "c"}]},
    ]
    assert sent(message("system", "be brief"), message("user", "a"))["system"] == "be brief"


def test_images_and_files_are_sent_as_data_or_by_their_address() -> None:
    parts = [
        {"type": "text", "text": "what is this?", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,QUJD", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://host/cat.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
    ]
    assert sent(message("user", parts))["messages"][0]["content"] == [
        parts[0],
        {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "QUJD"}},
        {"type": "image", "source": {"type": "url", "url": "https://host/cat.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}},
    ]


def test_what_the_wire_has_no_words_for_fails_over_and_is_not_the_callers_fault() -> None:
    with pytest.raises(UpstreamFailed) as caught:
        sent(message("user", [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]))
    assert (caught.value.kind, caught.value.may_be_billed, caught.value.retryable) == (FailureKind.UNSUPPORTED, False, False)


def test_tool_calls_and_their_results_go_back_and_forth_with_the_thoughts_before_them() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}} for name in ("a", "b")]
    body = sent(
        message("user", "go"),
        message("assistant", "I call", tool_calls=calls, thinking_blocks=[thought]),
        message("tool", "one", tool_call_id="a"),
        message("tool", [{"type": "text", "text": "two"}], tool_call_id="b"),
        message("user", "and?"),
    )
    assert body["messages"][1]["content"] == [
        thought,
        {"type": "text", "text": "I call"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "f", "input": {"x": 1}},
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "one"},
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "two"}]},
        {"type": "text", "text": "and?"},
    ]


TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}},
        {"type": "web_search_20250305", "name": "web_search"},
    ]
)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"tool_choice": {"type": "tool", "name": "f"}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({}, None),
    ],
)
def test_tools_and_the_choice_between_them_are_said_in_its_words(asked: dict[str, Any], said: Any) -> None:
    body = sent(tools_json=TOOLS, extra=asked)
    assert body.get("tool_choice") == said
    assert body["tools"] == [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True},
        {"type": "web_search_20250305", "name": "web_search"},
    ]
    assert "parallel_tool_calls" not in body


def test_parameters_are_translated_passed_on_or_left_out() -> None:
    extra = {"user": "ann", "seed": 1, "n": 1, "top_k": 5, "thinking": {"type": "adaptive"}, "reasoning_effort": "minimal"}
    extra |= {"service_tier": "flex", "max_completion_tokens": 9, "output_config": {"task_budget": 5}}
    assert sent(temperature=1.7, top_p=0.9, stop=["."], extra=extra) == {
        "model": "claude",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "temperature": 1.0,
        "top_p": 0.9,
        "stop_sequences": ["."],
        "metadata": {"user_id": "ann"},
        "output_config": {"effort": "low", "task_budget": 5},
        "top_k": 5,
        "thinking": {"type": "adaptive"},
    }


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
WANTS_SCHEMA = json.dumps({"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}})


def test_a_schema_is_asked_for_natively_or_by_a_tool_that_must_be_called() -> None:
    assert sent(response_format_json=WANTS_SCHEMA)["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    body = sent(response_format_json=WANTS_SCHEMA, wire=Wire(name="anthropic", json_schema="tool"))
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert body["tool_choice"] == {"type": "tool", "name": body["tools"][0]["name"]}
    answer = {
        "type": "message",
        "content": [{"type": "tool_use", "id": "t", "name": body["tools"][0]["name"], "input": {"x": 1}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    found = AnthropicFormat().answer(json.dumps(answer).encode())
    assert (json.loads(found.content), found.finish_reason, found.extra_json) == ({"x": 1}, "stop", "")
    assert "JSON object" in sent(response_format_json='{"type": "json_object"}')["system"]
    assert "system" not in sent(response_format_json='{"type": "text"}')


def streamed(*events: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    assembly = AnthropicFormat().assembly()
    pieces = [piece for event in events if (piece := assembly.take(json.dumps(event).encode())) is not None]
    return [
        json.loads(piece.extra_json) if piece.extra_json else {"content": piece.content} for piece in pieces
    ], assembly.answer()


def test_thoughts_citations_and_unknown_blocks_come_through_a_stream() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 1, "output_tokens": 1}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    pieces, whole = streamed(
        {"type": "message_start", "message": {"usage": usage, "content": [], "container": {"id": "c"}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": search},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"q":1}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "citations_delta", "citation": {"url": "u"}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "42"}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 7}},
        {"type": "some_day", "this": "will come"},
        {"type": "message_stop"},
    )
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    assert pieces == [
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"thinking_blocks": [thought]},
        {"citations": [{"url": "u"}]},
        {"content": "42"},
    ]
    assert (whole.content, whole.finish_reason) == ("42", "length")
    assert whole.usage == Reported(10, 7, 4, cache_write_5m_tokens=1)
    extra = json.loads(whole.extra_json)
    assert (extra["reasoning_content"], extra["thinking_blocks"], extra["citations"]) == ("hm", [thought], [{"url": "u"}])
    assert extra["content_blocks"] == [{**search, "input": '{"q":1}'}]
    assert json.loads(whole.response_extra_json) == {"container": {"id": "c"}}


def test_a_tool_call_without_arguments_has_an_empty_object_also_in_pieces() -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    pieces, whole = streamed(
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
    )
    assert pieces[-1] == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    assert json.loads(whole.extra_json)["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("refusal", "content_filter"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "stop"),
        ("stop_sequence", "stop"),
    ],
)
def test_why_it_stopped_is_said_in_openais_words(said: str, means: str) -> None:
    body = {"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": said}
    assert AnthropicFormat().answer(json.dumps(body).encode()).finish_reason == means


def test_its_address_may_be_written_with_or_without_the_version() -> None:
    assert (
        anthropic_url("https://host", "messages") == anthropic_url("https://host/v1", "messages") == "https://host/v1/messages"
    )


def test_nobody_asks_a_dearer_model_or_for_a_longer_answer_in_what_is_passed_on() -> None:
    body = sent(
        extra={"model": "claude-opus", "max_tokens": 9_000, "messages": [], "system": "unread", "tools": [{}], "top_k": 5}
    )
    assert (body["model"], body["max_tokens"], body["top_k"]) == ("claude", 50, 5)
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert not {"system", "tools"} & set(body)
