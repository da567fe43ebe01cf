"""Prompt text as lines and blocks: which parts are prose and which must stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"[ \t]*+(?:[-*+>]\s|\d{1,3}[.)]\s)?[ \t]*+(`{3,}+|~{3,}+)([^\n]*+)")

_SPACE = " \t"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines of one kind: a fenced block with its fences, a run of blank lines, or a paragraph.

    `language` is the word after the fence, in lower case; None outside fences. An unfinished fence reaches to the end, and `closed` is
    False.
    """

    lines: tuple[str, ...]
    language: str | None = None
    blank: bool = False
    closed: bool = True

    @property
    def text(self) -> str:
        """The block's lines, joined."""
        return "\n".join(self.lines)


def blocks(text: str) -> Iterator[Block]:
    """Splits a text into blocks; joining their texts by newlines gives the text back. Linear time."""
    lines = text.split("\n")
    start, total = 0, len(lines)
    while start < total:
        opening = _FENCE.match(lines[start])
        if opening is not None and not (opening[1][0] == "`" and "`" in opening[2]):
            end, closed = _fence_end(lines, start, opening[1])
            yield Block(tuple(lines[start:end]), language=opening[2].strip().lower(), closed=closed)
        else:
            blank = not lines[start].strip(_SPACE)
            end = start + 1
            while end < total and (not lines[end].strip(_SPACE)) == blank and not _FENCE.match(lines[end]):
                end += 1
            yield Block(tuple(lines[start:end]), blank=blank)
        start = end


def _fence_end(lines: list[str], start: int, fence: str) -> tuple[int, bool]:
    """Where a fence that opens at `start` ends: after its closing line, or after the last line when nothing closes it."""
    for index in range(start + 1, len(lines)):
        line = lines[index].strip(" \t\r>")
        if len(line) >= len(fence) and not line.strip(fence[0]):
            return index + 1, True
    return len(lines), False
