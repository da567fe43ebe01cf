from __future__ import annotations

import json
import time

import pytest
from farthing_optimizer.conversation import Message
from farthing_optimizer.duplicates import deduplicated, reference_to
from farthing_optimizer.minification import minified
from farthing_optimizer.tokens import TokenCounter
from farthing_optimizer.transforms import Optimized, Optimizer
from farthing_optimizer.whitespace import tidied

DOCUMENT = "The farthing was a quarter of a penny and was struck from the thirteenth century on. " * 4
PRETTY = json.dumps({"city": "Paris", "temperatures": [1.0, 2.50, 1e3], "note": "two  spaces"}, indent=4)


def optimize(*messages: Message) -> Optimized:
    return Optimizer(TokenCounter()).optimize(
        list(messages), encodings=("o200k", "cl100k"), overhead={"o200k": 0, "cl100k": 0}, lossless=True
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("One sentence.  Another one.   A third.", "One sentence. Another one. A third."),
        ("trailing   \nspaces\t\nhere ", "trailing\nspaces\nhere"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("a\n\n\nb", "a\n\n\nb"),
        ("a\n  \n \t\n \n\nb", "a\n\n\nb"),
    ],
)
def test_superfluous_white_space_goes(before: str, after: str) -> None:
    assert tidied(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx  = 1   \n\n\n\n\ny = 2\n```",
        "~~~\na  b  \n~~~",
        "```\nnever closed  \n\n\n\n\n",
        "    def f(a,  b):\n        return a  \n",
        "Use `a  b` here.",
        'He said "wait.  What?" and left.',
        'She wrote: "first.\n\nSecond.  Still hers.\n\nThird." Then',
        "| a  | b  |\n|----|----|\n| 1  | 2  |",
        "Name   Age   City\nAnn    41    Rome",
        "Ann  Rome\nBob  Oslo",
        "total  12",
        "x  = y",
        "<pre>\na.  b\n</pre>",
        "   ",
    ],
)
def test_what_may_mean_something_keeps_every_byte(text: str) -> None:
    assert tidied(text) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{ "a" : 1.0 , "b" : [ 1e400 , -0 , 12345678901234567890123 ] }', '{"a":1.0,"b":[1e400,-0,12345678901234567890123]}'),
        ('[ "a  b" , "\\u00e9\\n \\" , ]" ]', '["a  b","\\u00e9\\n \\" , ]"]'),
        ('\n{ "empty" : { } }\n', '{"empty":{}}'),
    ],
)
def test_json_loses_its_white_space_and_nothing_else(before: str, after: str) -> None:
    assert minified(before) == after


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', "[NaN]", "[1, 2", "[1 2]", "{'a': 1}", "[note] text [end]", "[" * 10_000 + "]" * 10_000, "12", ""],
)
def test_json_that_is_none_or_ambiguous_or_too_deep_is_left_alone(text: str) -> None:
    assert minified(text) is None


def test_a_json_message_is_minified_and_accounted_for() -> None:
    found = optimize(Message("user", PRETTY))
    assert found.messages[0].content == minified(PRETTY)
    assert found.characters_saved == {"json": len(PRETTY) - len(found.messages[0].content)}
    assert all(found.tokens_after[name] < found.tokens_before[name] for name in ("o200k", "cl100k"))


def test_a_fenced_json_block_is_minified_within_its_fence() -> None:
    found = optimize(Message("user", f"What is this?\n```json\n{PRETTY}\n```\nThanks."))
    assert found.messages[0].content == f"What is this?\n```json\n{minified(PRETTY)}\n```\nThanks."


def test_instructions_parts_and_tool_calls_are_never_touched() -> None:
    messages = [
        Message("system", "Be  kind.   \n\n\n\n\nAlways.  "),
        Message("developer", PRETTY),
        Message("user", "x.  y", parts_json='[{"type": "text", "text": "a  b"}]'),
        Message("assistant", "calling.  now", extra_json='{"tool_calls": [ ]}'),
    ]
    found = optimize(*messages)
    assert not found.changed
    assert found.messages == messages
    assert found.tokens_before == found.tokens_after


def test_a_tools_answer_loses_json_white_space_but_no_other() -> None:
    source = "line one.  \nline two.  And three.\n"
    found = optimize(Message("user", "read"), Message("tool", source), Message("tool", PRETTY))
    assert [message.content for message in found.messages] == ["read", source, minified(PRETTY)]


def test_an_answer_that_the_model_shall_continue_is_not_touched() -> None:
    assert not optimize(Message("user", "go"), Message("assistant", "One.  Two.  Three. ")).changed


def test_a_repeated_passage_stays_where_it_stood_first() -> None:
    found = optimize(
        Message("user", f"Read this:\n\n{DOCUMENT}"),
        Message("assistant", "Done."),
        Message("user", f"Again:\n\n{DOCUMENT}\n\nWhat now?"),
        Message("assistant", "Nothing."),
        Message("user", "Fine."),
    )
    first, _, second, _, _ = (message.content for message in found.messages)
    assert DOCUMENT.strip() in first
    assert second == f"Again:\n\n{reference_to(first.split(chr(10))[2])}\n\nWhat now?"
    assert found.characters_saved["duplicates"] > 200


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_repeated_passage_is_not_taken_from_the_last_user_turn_an_assistant_or_instructions(role: str) -> None:
    messages = [Message("user", DOCUMENT.strip()), Message(role, DOCUMENT.strip())]
    assert deduplicated(messages) is messages


def test_passages_that_one_reference_would_fit_both_are_left_alone() -> None:
    one, two = (f"{DOCUMENT}{word} {DOCUMENT}".strip() for word in ("yes", "no"))
    messages = [Message("user", text) for text in (one, two, one, two, "well?")]
    assert deduplicated(messages) is messages


def test_a_change_that_saves_no_token_is_not_made() -> None:
    message = Message("user", "hello world \n")
    found = optimize(message)
    assert found.tokens_after["o200k"] <= found.tokens_before["o200k"]
    assert found.changed == (found.tokens_after != found.tokens_before)


@pytest.mark.parametrize(
    "text",
    [
        "`" * 1_000_000,
        "```\n" * 250_000,
        "```json\n{ }\n" * 80_000,
        "[" * 1_000_000,
        '{"a":' * 100_000,
        '["' + "\\\\" * 500_000,
        "a  " * 330_000,
        "ab.  " * 200_000,
        " \n" * 500_000,
        "> " * 500_000,
        '"' * 1_000_000,
    ],
    ids=lambda text: text[:8],
)
def test_hostile_megabytes_take_linear_time(text: str) -> None:
    began = time.process_time()
    optimize(Message("user", text), Message("assistant", "?"), Message("user", text))
    assert time.process_time() - began < 8.0
