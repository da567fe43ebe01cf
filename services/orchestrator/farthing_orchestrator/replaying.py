"""A whole answer as the pieces of a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from farthing_orchestrator.request import Piece

_PIECE_CHARACTERS = 400
"""About a hundred tokens: short answers are one piece, and nobody has to take a long one at once."""
_PIECES_MAX = 64
_CUT = re.compile(r"\s\S*\Z")


def replayed(content: str, extra_json: str, model: str) -> Iterator[Piece]:
    """The text in pieces that end after words, then each call of a tool with its place, then what else there is; nothing twice."""
    size = max(_PIECE_CHARACTERS, -(-len(content) // _PIECES_MAX))
    at = 0
    while at < len(content):
        end = at + size
        if end < len(content) and (cut := _CUT.search(content, at + size // 2, end)):
            end = cut.start() + 1
        yield Piece(content[at:end], "", model)
        at = end
    if not extra_json:
        return
    rest = json.loads(extra_json)
    calls = rest.pop("tool_calls", None) or []
    for number, call in enumerate(calls):
        yield Piece("", json.dumps({"tool_calls": [{"index": number, **call}]}, ensure_ascii=False), model)
    if rest:
        yield Piece("", json.dumps(rest, ensure_ascii=False), model)
