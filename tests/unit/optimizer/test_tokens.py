from __future__ import annotations

import base64
import json

import pytest
from farthing_optimizer.conversation import Message
from farthing_optimizer.tokens import EncodingUnknown, TokenCounter, known_encoding


@pytest.fixture
def counter() -> TokenCounter:
    return TokenCounter(remembered_max=4)


@pytest.mark.parametrize(
    ("text", "o200k", "cl100k"),
    [
        ("", 0, 0),
        ("hello world", 2, 2),
        ("The quick brown fox jumps over the lazy dog.", 10, 10),
        ("お誕生日おめでとう", 8, 9),
        ("2 + 2 = 4", 7, 7),
    ],
)
def test_texts_are_counted_as_the_published_vocabularies_say(counter: TokenCounter, text: str, o200k: int, cl100k: int) -> None:
    assert counter.text(text, encoding="o200k") == o200k
    assert counter.text(text, encoding="cl100k") == cl100k


def test_special_tokens_are_counted_as_the_text_that_they_are(counter: TokenCounter) -> None:
    assert counter.text("<|endoftext|>", encoding="o200k") > 1


def test_a_remembered_count_is_the_count(counter: TokenCounter) -> None:
    texts = [f"{number} " + "farthings and pennies " * 20 for number in range(9)]
    first = [counter.text(text, encoding="o200k") for text in texts]
    assert [counter.text(text, encoding="o200k") for text in texts] == first
    assert [TokenCounter().text(text, encoding="o200k") for text in texts] == first


def test_the_two_encodings_of_one_text_are_not_confused(counter: TokenCounter) -> None:
    text = "请联系我们。" * 60
    o200k = counter.text(text, encoding="o200k")
    assert counter.text(text, encoding="cl100k") != o200k
    assert counter.text(text, encoding="o200k") == o200k


def test_a_conversation_counts_three_tokens_a_message_and_three_for_the_reply(counter: TokenCounter) -> None:
    messages = [Message("system", "You are brief."), Message("user", "hello world")]
    assert counter.conversation(messages, encoding="o200k") == (3 + 1 + 4) + (3 + 1 + 2) + 3


def test_a_name_counts_itself_and_one(counter: TokenCounter) -> None:
    plain, named = Message("user", "hello"), Message("user", "hello", extra_json='{"name": "ann"}')
    assert counter.message(named, encoding="o200k") == counter.message(plain, encoding="o200k") + 2


def test_tool_calls_count_their_names_and_arguments(counter: TokenCounter) -> None:
    arguments = json.dumps({"city": "Paris", "days": 3})
    calls = {
        "tool_calls": [{"id": "call_" + "x" * 500, "type": "function", "function": {"name": "weather", "arguments": arguments}}]
    }
    tokens = counter.message(Message("assistant", "", extra_json=json.dumps(calls)), encoding="o200k")
    assert tokens == 3 + 1 + 3 + counter.text("weather", encoding="o200k") + counter.text(arguments, encoding="o200k")


def test_an_image_counts_by_its_detail_and_not_by_its_bytes(counter: TokenCounter) -> None:
    url = "data:image/png;base64," + base64.b64encode(b"\0" * 30_000).decode()
    parts = [{"type": "text", "text": "hello world"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    assert counter.message(Message("user", "", parts_json=json.dumps(parts)), encoding="o200k") == 3 + 1 + 2 + 85


def test_tools_count_more_with_every_property(counter: TokenCounter) -> None:
    def tools(properties: dict[str, object]) -> str:
        parameters = {"type": "object", "properties": properties}
        return json.dumps(
            [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": parameters}}]
        )

    counts = [
        counter.overhead(tools_json=tools(properties), response_format_json="", encoding="o200k")
        for properties in ({}, {"city": {"type": "string"}}, {"city": {"type": "string", "enum": ["Paris", "Rome"]}})
    ]
    assert counts[0] == 12 + 7 + counter.text("weather:The weather", encoding="o200k")
    assert counts[0] < counts[1] < counts[2]


def test_what_is_no_json_is_counted_as_text(counter: TokenCounter) -> None:
    broken = "{not json " * 10
    assert counter.message(Message("user", "", extra_json=broken), encoding="o200k") == 4 + counter.text(
        broken, encoding="o200k"
    )
    deep = "[" * 50_000
    assert counter.overhead(tools_json=deep, response_format_json="", encoding="o200k") == counter.text(deep, encoding="o200k")


def test_what_is_nested_deeper_than_can_be_written_is_still_counted(counter: TokenCounter) -> None:
    deep = '{"tool_calls": [{"function": {"name": "f", "arguments": ' + "[" * 600 + "1" + "]" * 600 + "}}]}"
    assert counter.message(Message("assistant", "", extra_json=deep), encoding="o200k") > 1_200
    assert counter.message(Message("user", "", parts_json="[" * 600 + "]" * 600), encoding="o200k") > 1_000


def test_an_unknown_encoding_is_refused_by_name() -> None:
    assert known_encoding("") == "o200k"
    with pytest.raises(EncodingUnknown) as refused:
        known_encoding("p50k")
    assert refused.value.facts["encoding"] == "p50k"
