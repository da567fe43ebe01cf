"""Whatever a provider sends, an adapter answers with an answer or with a named failure, never with an error of its own."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from farthing_router.upstreams import UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.anthropic_wire import AnthropicFormat
from farthing_router.upstreams.cohere_wire import CohereFormat
from farthing_router.upstreams.failures import refusal
from farthing_router.upstreams.limits import read_limits, retry_after_s
from farthing_router.upstreams.openai_wire import OpenAIFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fake_providers.dialects import Anthropic, Azure, Cohere, OpenAI

WIRES = [(OpenAIFormat, OpenAI), (OpenAIFormat, Azure), (AnthropicFormat, Anthropic), (CohereFormat, Cohere)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        found += paths(each, (*at, key))
    return found


def changed(value: Any, data: st.DataObject) -> Any:
    """A value with something else in a place or two, or with a place left out."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from(paths(value)))
        if not at:
            return data.draw(JSON)
        inner = value
        for key in at[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[at[-1]] = data.draw(JSON)
        else:
            del inner[at[-1]]
    return value


@pytest.mark.parametrize(("wire", "dialect"), WIRES, ids=lambda each: each.__name__)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_an_answer_that_is_not_as_documented_is_read_or_named(wire: Any, dialect: Any, data: st.DataObject) -> None:
    body = changed(dialect().whole(tools=data.draw(st.booleans())), data)
    try:
        answer = wire().answer(json.dumps(body).encode())
    except UpstreamFailed:
        return
    assert isinstance(answer, UpstreamAnswer)
    assert isinstance(answer.content, str)
    assert all(not text or json.loads(text) for text in (answer.extra_json, answer.response_extra_json))


@pytest.mark.parametrize(("wire", "dialect"), WIRES, ids=lambda each: each.__name__)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_stream_that_is_not_as_documented_is_read_or_named(wire: Any, dialect: Any, data: st.DataObject) -> None:
    events = [event.split(b"data: ", 1)[1].strip() for event in dialect().events(tools=data.draw(st.booleans()))]
    at = data.draw(st.integers(0, len(events) - 1))
    if events[at] != b"[DONE]":
        events[at] = json.dumps(changed(json.loads(events[at]), data)).encode()
    assembly = wire().assembly()
    try:
        for event in events:
            piece = assembly.take(event)
            assert piece is None or (isinstance(piece, UpstreamPiece) and isinstance(piece.content, str))
            if assembly.ended:
                break
        answer = assembly.answer()
    except UpstreamFailed:
        return
    assert isinstance(answer.content, str)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()), status=st.integers(204, 599))
def test_every_refusal_has_a_name(body: bytes, status: int) -> None:
    for shaped in (body, b'{"error": ' + body + b"}"):
        error = refusal(status=status, headers={}, body=shaped, provider="p")
        assert isinstance(error, UpstreamFailed | UpstreamRejected)
        assert len(error.message) < 500


HEADERS = ("retry-after", "retry-after-ms", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "ratelimit-reset")


@settings(max_examples=500, deadline=None)
@given(headers=st.dictionaries(st.sampled_from(HEADERS), st.text(max_size=30) | st.integers(-(2**70), 2**70).map(str)))
def test_headers_that_say_nothing_sensible_are_no_error(headers: dict[str, str]) -> None:
    for seconds in (retry_after_s(headers), getattr(read_limits(headers), "requests_reset_s", None)):
        assert seconds is None or 0 <= seconds <= 30 * 86_400
