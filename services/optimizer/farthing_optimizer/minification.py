"""JSON without the white space between its tokens.

The text is checked by a parser but rewritten as a stream of tokens: strings and numbers keep every byte (`1.0`, `1e400`, `\\u00e9`).
What is no JSON, is nested too deep to check, or names a key twice is left alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

_TOKENS = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|[ \t\n\r]++', re.DOTALL)
_SPACE = " \t\n\r"


class _Untouchable(ValueError):
    """JSON that parses, but whose meaning depends on the reader."""


def minified(text: str) -> str | None:
    """A JSON array or object with no white space outside its strings; None when `text` is none, or must be left alone. Linear time."""
    stripped = text.strip(_SPACE)
    if len(stripped) < 2 or stripped[0] not in "{[" or stripped[-1] not in "}]":
        return None
    try:
        _CHECK.decode(stripped)
    except (ValueError, RecursionError):
        return None
    return _TOKENS.sub(r"\1", stripped)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Untouchable("a key stands twice")
    return found


def _constant(name: str) -> Any:
    raise _Untouchable(name)


# Numbers stay text: a number of a million digits must cost no more than a string.
_CHECK = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=str, parse_int=str, parse_constant=_constant)
