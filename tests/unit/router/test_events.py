"""Server-sent events, however providers cut them and however much they send."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest
from farthing_router.upstreams import FailureKind, UpstreamFailed
from farthing_router.upstreams.events import EVENT_BYTES_MAX, sse_events
from hypothesis import given
from hypothesis import strategies as st

RAW = b'data: {"a":1}\r\n\r\n: note\n\ndata: one\ndata: two\n\nevent: x\ndata:[DONE]\n\n'


async def cut(raw: bytes, size: int) -> AsyncIterator[bytes]:
    for position in range(0, len(raw), size):
        yield raw[position : position + size]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
async def test_events_are_the_same_however_their_bytes_are_cut(size: int) -> None:
    assert [event async for event in sse_events(cut(RAW, size))] == [b'{"a":1}', b"one\ntwo", b"[DONE]"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=20), max_size=8), st.integers(1, 40))
async def test_what_goes_in_as_events_comes_out_as_events(texts: list[str], size: int) -> None:
    events = [json.dumps({"text": text}).encode() for text in texts]
    raw = b"".join(b": keep-alive\n\ndata: " + event + b"\n\n" for event in events)
    assert [event async for event in sse_events(cut(raw, size))] == events


async def test_a_last_event_without_its_empty_line_counts_and_a_torso_does_not() -> None:
    assert [event async for event in sse_events(cut(b"data: [DONE]", 5))] == [b"[DONE]"]
    assert [event async for event in sse_events(cut(b'data: {"a": 1}\ndata: {"b', 5))] == [b'{"a": 1}']


@pytest.mark.parametrize("line", [b"x" * 65_536, b"data: " + b"x" * 65_530 + b"\n"], ids=["one line", "one event"])
async def test_an_event_without_an_end_is_given_up_in_linear_time(line: bytes) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield line

    began_s = time.process_time()
    with pytest.raises(UpstreamFailed) as caught:
        async for _ in sse_events(endless()):
            pass
    assert caught.value.kind is FailureKind.TOO_LARGE
    assert time.process_time() - began_s < 2.0 * EVENT_BYTES_MAX / 2**20
