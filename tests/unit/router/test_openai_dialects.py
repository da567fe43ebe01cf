"""The OpenAI wire as those speak it who are only nearly compatible."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed
from farthing_router.upstreams.openai_wire import AzureFormat, OpenAIFormat
from farthing_router.upstreams.payloads import Reported
from farthing_router.wires import Wire, WireEntry, wire_of


def call_of(*messages: Any, wire: Wire | None = None, model: str = "m", **parameters: Any) -> Call:
    deployment = Deployment("p", "http://host/v1", model, "sk", 5.0, 0, wire or Wire())
    conversation = messages or (chat_pb2.ChatMessage(role="user", content="what is it?"),)
    return Call(deployment, conversation, chat_pb2.Parameters(**parameters), 50, 1.0, "r-1")


def sent(call: Call, *, stream: bool = False) -> dict[str, Any]:
    return json.loads(OpenAIFormat().outgoing(call, stream=stream).body)


def streamed(*chunks: Any, end: bool = True) -> UpstreamAnswer:
    assembly = OpenAIFormat().assembly()
    for chunk in chunks:
        assembly.take(json.dumps(chunk).encode())
    if end:
        assembly.take(b"[DONE]")
        assert assembly.ended
    assert assembly.whole
    return assembly.answer()


def delta(finish: str | None = None, index: int = 0, **given: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": given, "finish_reason": finish}]}


def plain(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> UpstreamAnswer:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}
    return OpenAIFormat().answer(json.dumps(body).encode())


def test_unknown_parameters_go_out_and_unknown_fields_come_back() -> None:
    assert sent(call_of(temperature=0.5, stop=["."], extra_json='{"logit_bias": {"5": -100}}')) == {
        "model": "m",
        "messages": [{"role": "user", "content": "what is it?"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "stop": ["."],
        "logit_bias": {"5": -100},
    }
    found = plain({"content": "hi", "refusal": "no", "annotations": []}, system_fingerprint="fp", object="o", created=1)
    assert json.loads(found.extra_json) == {"refusal": "no"}
    assert json.loads(found.response_extra_json) == {"system_fingerprint": "fp"}


def test_a_reasoning_model_gets_the_newer_limit_and_a_dialect_its_own_names() -> None:
    newer = wire_of(WireEntry(), name="p", upstream_model="openai/o3-mini", key_of=lambda _: None)
    assert sent(call_of(wire=newer))["max_completion_tokens"] == 50
    assert "max_tokens" not in sent(call_of(wire=newer))
    entry = WireEntry(rename={"seed": "random_seed"}, omit=("stream_options", "user"), developer_role="system")
    mistral = wire_of(entry, name="p", upstream_model="mistral-small", key_of=lambda _: None)
    developer = chat_pb2.ChatMessage(role="developer", content="be brief")
    body = sent(call_of(developer, wire=mistral, seed=7, extra_json='{"user": "ann"}'), stream=True)
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}],
        "max_tokens": 50,
        "random_seed": 7,
        "stream": True,
    }


def test_headers_query_and_key_stand_where_farthing_yaml_wants_them() -> None:
    entry = WireEntry(
        api_key_header="x-key", headers={"x-a": "1"}, header_envs={"x-b": "B"}, query={"api-version": "2026-01-01 preview"}
    )
    wire = wire_of(entry, name="p", upstream_model="m", key_of={"B": "2"}.get)
    out = OpenAIFormat().outgoing(call_of(wire=wire), stream=False)
    assert out.url == "http://host/v1/chat/completions?api-version=2026-01-01+preview"
    assert (out.headers["x-key"], out.headers["x-a"], out.headers["x-b"]) == ("sk", "1", "2")
    assert "authorization" not in out.headers


def test_azure_has_the_deployment_in_its_path_and_a_version_in_its_query() -> None:
    out = AzureFormat().outgoing(call_of(wire=Wire(name="azure"), model="my gpt"), stream=False)
    assert out.url == "http://host/v1/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"
    assert out.headers["api-key"] == "sk"
    other = AzureFormat().outgoing(call_of(wire=Wire(name="azure", query={"api-version": "v9"})), stream=False)
    assert other.url.endswith("?api-version=v9")


def test_a_stream_that_says_why_it_stopped_needs_no_end_marker() -> None:
    assert streamed(delta(content="a"), delta("stop"), end=False).content == "a"
    assembly = OpenAIFormat().assembly()
    assembly.take(json.dumps(delta(content="a")).encode())
    assert not assembly.whole


@pytest.mark.parametrize(
    "pieces",
    [
        # OpenAI: an index with every piece, the name and the id once.
        [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"x":'}},
            {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            {"index": 0, "function": {"arguments": "1}"}},
        ],
        # Gemini: whole calls without an index.
        [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
        # Some count every call as the first one.
        [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
        # Some repeat name and id with every piece, count in text, or send arguments that are no text.
        [
            {"index": "0", "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}},
            {"index": "0", "id": "a", "type": "function", "function": {"name": "f", "arguments": "1}"}},
            {"index": "1", "id": "b", "type": "function", "function": {"name": "g", "arguments": None}},
            {"index": "1", "id": "b", "function": {"arguments": "{}"}},
        ],
        # Without an index and without an id, a piece belongs to the call before it.
        [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}},
            {"function": {"arguments": "1}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    ],
    ids=["openai", "no-index", "one-index", "repeats", "no-id"],
)
def test_tool_calls_are_put_together_however_they_come_in_pieces(pieces: list[dict[str, Any]]) -> None:
    found = streamed(*(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls"))
    assert json.loads(found.extra_json)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


USAGE = {"prompt_tokens": 10, "completion_tokens": 3}


@pytest.mark.parametrize(
    "last",
    [
        {"choices": [], "usage": USAGE},
        {**delta("stop"), "usage": USAGE},
        {**delta("stop"), "x_groq": {"id": "r", "usage": {**USAGE, "queue_time": 0.1}}},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]},
        {"choices": None, "usage": {"prompt_tokens": "10", "completion_tokens": "3"}},
    ],
    ids=["openai", "with-the-last-choice", "groq", "moonshot", "numbers-as-text"],
)
def test_usage_is_found_wherever_a_stream_has_it(last: dict[str, Any]) -> None:
    assert streamed(delta(content="a", usage=None), delta("stop"), last).usage == Reported(10, 3)


def test_running_totals_are_not_added_up() -> None:
    found = streamed(
        {**delta(content="a"), "usage": {"prompt_tokens": 10, "completion_tokens": 1}}, {**delta("stop"), "usage": USAGE}
    )
    assert found.usage == Reported(10, 3)


def test_reasoning_and_refusals_come_in_pieces_and_whole() -> None:
    found = streamed(
        delta(reasoning_content="I th"),
        delta(reasoning_content="ink"),
        delta(refusal="I can"),
        delta(refusal="not"),
        delta("stop"),
    )
    assert json.loads(found.extra_json) == {"reasoning_content": "I think", "refusal": "I cannot"}
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "42"}]
    for mistral in (plain({"content": parts}), streamed(delta(content=parts), delta("stop"))):
        assert (mistral.content, json.loads(mistral.extra_json)) == ("42", {"reasoning_content": "hm"})
    assert plain({"content": None, "refusal": None}).content == ""


def test_log_probabilities_are_kept_and_summed_up_whole_and_streamed() -> None:
    def token(text: str, logprob: float, other: float) -> dict[str, Any]:
        top = [{"token": text, "logprob": logprob}, {"token": "other", "logprob": other}]
        return {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": top}

    tokens = [token("forty", -0.2, -2.2), token("-two", -0.4, -1.4)]
    body = {"choices": [{"message": {"content": "forty-two"}, "finish_reason": "stop", "logprobs": {"content": tokens}}]}
    whole = OpenAIFormat().answer(json.dumps(body).encode())
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": each["token"]}, "logprobs": {"content": [each], "refusal": None}}]}
        for each in tokens
    ]
    for found in (whole, streamed(*chunks, delta("stop"))):
        assert found.mean_logprob == pytest.approx(-0.3)
        assert found.mean_margin == pytest.approx(1.5)
        assert json.loads(found.response_extra_json)["logprobs"]["content"] == tokens
    older = {"choices": [{"message": {"content": "a"}, "logprobs": {"token_logprobs": [-1.0, None, -9999.0]}}]}
    assert OpenAIFormat().answer(json.dumps(older).encode()).mean_logprob == pytest.approx(-50.5)


def test_several_choices_are_all_kept_and_the_first_is_the_answer() -> None:
    choices = [{"index": index, "message": {"content": f"{index}"}, "finish_reason": "stop"} for index in (0, 1)]
    whole = OpenAIFormat().answer(json.dumps({"choices": choices, "usage": USAGE}).encode())
    assert (whole.content, whole.usage) == ("0", Reported(10, 3))
    assert json.loads(whole.response_extra_json)["choices"] == choices
    found = streamed(delta(content="a"), delta(index=1, content="b"), delta("stop"), delta("length", index=1))
    assert found.content == "a"
    kept = json.loads(found.response_extra_json)["choices"]
    assert [(each["message"]["content"], each["finish_reason"]) for each in kept] == [("a", "stop"), ("b", "length")]


def test_fields_of_a_choice_that_nobody_knows_are_kept() -> None:
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": 128_001}]}
    found = OpenAIFormat().answer(json.dumps(body).encode())
    assert json.loads(found.response_extra_json) == {"choices": [{"index": 0, "stop_reason": 128_001}]}


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("eos", "stop"),
        ("eos_token", "stop"),
        ("model_length", "length"),
        ("content_filter: SAFETY", "content_filter"),
        ("", "stop"),
    ],
)
def test_why_it_stopped_is_said_in_openais_words(said: str, means: str) -> None:
    assert plain({"content": "a"}, said).finish_reason == means


def test_an_answer_that_ended_because_the_provider_broke_down_is_a_failure() -> None:
    with pytest.raises(UpstreamFailed) as caught:
        plain({"content": "a"}, "insufficient_system_resource")
    assert (caught.value.kind, caught.value.may_be_billed) == (FailureKind.OVERLOADED, True)


def test_the_tier_of_service_is_read_from_the_end_of_a_stream() -> None:
    found = streamed(delta(content="a"), {**delta("stop"), "service_tier": "flex"})
    assert found.usage == Reported(tier="flex")


def test_nobody_asks_other_models_than_the_planned_one() -> None:
    given = json.dumps({"model": "dear", "models": ["dear"], "max_tokens": 9_000})
    body = sent(call_of(extra_json=given))
    assert ("models" in body, body["model"], body["max_tokens"]) == (False, "m", call_of().output_tokens_max)
