"""Pieces of a text that are to be masked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What a piece is; where two overlap, the smaller number gives its name to both."""

    API_KEY = 1
    EMAIL = 2
    IBAN = 3
    CARD = 4
    IP = 5
    PHONE = 6


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The characters from `start` until before `end`."""

    start: int
    end: int
    kind: Kind


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, overlapping ones as one: nothing that any of them covers is left uncovered."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.start < result[-1].end:
            last = result[-1]
            result[-1] = Span(last.start, max(last.end, span.end), min(last.kind, span.kind))
        else:
            result.append(span)
    return result
