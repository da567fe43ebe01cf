"""The bins in which a stream owns its output tokens: fine where most answers end, doubling after that."""

from __future__ import annotations

from bisect import bisect_left

_ENDS: tuple[int, ...] = (*range(64, 513, 64), *(512 + 128 * ((1 << step) - 1) for step in range(1, 14)))
BINS = len(_ENDS)
"""How many bins there are: eight of 64 tokens, then 128, 256, … doubling."""
TOKENS_MAX = _ENDS[-1]
"""The longest answer that the bins reckon with, about a million tokens; what is longer counts as this long."""


def bin_of(tokens: int) -> int:
    """The bin that the last of this many output tokens falls into; no token yet is the first bin."""
    return bisect_left(_ENDS, tokens) if tokens <= TOKENS_MAX else BINS - 1


def bin_end(index: int) -> int:
    """How many output tokens a stream owns that owns this whole bin."""
    return _ENDS[index]
