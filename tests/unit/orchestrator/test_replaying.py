"""Whole answers as pieces of a stream: nothing is lost, nothing comes twice, and tools are called as OpenAI's wire has it."""

from __future__ import annotations

import json

from farthing_orchestrator.replaying import replayed
from hypothesis import given
from hypothesis import strategies as st


@given(st.text(max_size=5_000))
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    pieces = list(replayed(text, "", "m"))
    assert "".join(piece.content for piece in pieces) == text
    assert all(piece.content for piece in pieces)


def test_a_long_answer_comes_in_pieces_that_end_after_words() -> None:
    pieces = [piece.content for piece in replayed("words and words " * 100, "", "m")]
    assert len(pieces) > 3
    assert all(len(piece) <= 400 and piece.endswith(" ") for piece in pieces)


def test_the_longest_answer_is_a_bounded_number_of_pieces() -> None:
    assert len(list(replayed("x " * 500_000, "", "m"))) <= 129


def test_each_call_of_a_tool_has_its_place_and_what_else_there_is_comes_last() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    extra = json.dumps({"tool_calls": calls, "refusal": None})
    first, second, last = (json.loads(piece.extra_json) for piece in replayed("", extra, "m"))
    assert [first, second] == [{"tool_calls": [{"index": number, **call}]} for number, call in enumerate(calls)]
    assert last == {"refusal": None}
