"""Whatever a prompt holds: its words, numbers, code, quotations and JSON values survive the clean-up."""

from __future__ import annotations

import json
import re
from typing import Any

from farthing_optimizer.conversation import Message
from farthing_optimizer.minification import minified
from farthing_optimizer.tokens import TokenCounter
from farthing_optimizer.transforms import Optimizer
from farthing_optimizer.whitespace import tidied
from hypothesis import given, settings
from hypothesis import strategies as st

COUNTER = TokenCounter()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CODE = st.text(alphabet="ab(){}=;:\"'# \t\n1.0", max_size=60).filter(lambda code: "```" not in code)
PIECES = st.one_of(
    st.sampled_from(
        ["word", "two.  words", "  ", "\n", "\n\n\n\n\n", "   \n", "1  2", "x\t", '"a  b"', "“c  d”", "`e  f`", "| g  | h |"]
    ),
    st.text(alphabet=" \n\tab1.\"'`|", max_size=12),
)


def levels(value: Any) -> list[tuple[str, Any]]:
    return json.loads(value, object_pairs_hook=list, parse_float=str, parse_int=str)


@given(JSON.filter(lambda value: isinstance(value, list | dict)), st.sampled_from([None, 1, 4, "\t"]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_minified_json_has_the_same_values_and_the_same_number_texts(value: Any, indent: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    short = minified(text)
    assert short is not None
    assert levels(short) == levels(text)
    assert len(short) <= len(text)
    assert minified(short) == short


@given(st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_tidying_takes_nothing_but_white_space_and_is_done_after_once(text: str) -> None:
    short = tidied(text)
    assert short.split() == text.split()
    assert re.findall(r"[0-9.]+", short) == re.findall(r"[0-9.]+", text)
    assert tidied(short) == short


@given(st.lists(PIECES, max_size=6).map("".join), CODE)
@settings(max_examples=200, deadline=None)
def test_fenced_code_keeps_every_byte(prose: str, code: str) -> None:
    before = prose.replace("`", "").replace('"', "").replace("“", "").replace("”", "")
    block = f"\n```python\n{code}\n```\n"
    text = f"{before}{block}One.  Two.  \n\n\n\n\n"
    assert block.strip("\n") in tidied(text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(PIECES, max_size=6).map("".join)),
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_optimizing_never_adds_tokens_and_never_touches_instructions(turns: list[tuple[str, str]]) -> None:
    messages = [Message(role, content) for role, content in turns]
    found = Optimizer(COUNTER).optimize(messages, encodings=("o200k",), overhead={"o200k": 0}, lossless=True)
    assert found.tokens_after["o200k"] <= found.tokens_before["o200k"]
    assert found.tokens_after["o200k"] == COUNTER.conversation(found.messages, encoding="o200k")
    for before, after in zip(messages, found.messages, strict=True):
        assert before.role == after.role
        if before.role == "system":
            assert before == after
