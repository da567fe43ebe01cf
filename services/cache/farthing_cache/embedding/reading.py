"""What one pass of a model reads in a text: its vector, its tokens and their states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_VERSION = 1
SCALE = 127.0
"""Token states are kept as whole numbers of this many steps."""
_HEAD_BYTES = 5

Vector = np.ndarray[Any, np.dtype[np.float32]]


class ReadingUnknown(ValueError):
    """Bytes that are no reading, or one of another version."""

    def __init__(self) -> None:
        super().__init__("the bytes are no reading of this version")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as a model read it. `vector` is of unit length; `token_ids` (tokens) are the model's own; `token_states` (tokens × width) are
    the last layer's, of length SCALE each. A model that shows no token states leaves both empty. `truncated`: the text was longer than the
    model reads, and its end did not count.
    """

    vector: Vector
    token_ids: np.ndarray[Any, np.dtype[np.int32]]
    token_states: np.ndarray[Any, np.dtype[np.int8]]
    truncated: bool = False

    @property
    def size_bytes(self) -> int:
        """What it takes to keep it at hand."""
        return self.vector.nbytes + self.token_ids.nbytes + self.token_states.nbytes

    def to_bytes(self) -> bytes:
        """Tokens and their states, a byte a number; the vector is kept elsewhere."""
        tokens, width = self.token_states.shape
        head = bytes([_VERSION]) + tokens.to_bytes(2, "little") + width.to_bytes(2, "little")
        return b"".join((head, self.token_ids.astype("<i4").tobytes(), self.token_states.tobytes()))


def steps_of(states: Vector) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Token states (tokens × width) at length SCALE, as whole numbers."""
    length = np.linalg.norm(states, axis=1, keepdims=True)
    steps: np.ndarray[Any, np.dtype[np.int8]] = np.rint(states / np.maximum(length, 1e-9) * SCALE).astype(np.int8)
    return steps


def without_tokens(vector: Vector, *, truncated: bool = False) -> Reading:
    """The reading of a model that shows its vectors only."""
    return Reading(vector, np.zeros(0, np.int32), np.zeros((0, 0), np.int8), truncated)


def reading_of(kept: bytes, vector: Vector) -> Reading:
    """The reading of what `to_bytes` gave, beside its vector. Raises ReadingUnknown."""
    if len(kept) < _HEAD_BYTES or kept[0] != _VERSION:
        raise ReadingUnknown
    tokens, width = int.from_bytes(kept[1:3], "little"), int.from_bytes(kept[3:5], "little")
    if len(kept) != _HEAD_BYTES + tokens * (4 + width):
        raise ReadingUnknown
    ids = np.frombuffer(kept, dtype="<i4", count=tokens, offset=_HEAD_BYTES).astype(np.int32)
    raw = np.frombuffer(kept, dtype=np.int8, count=tokens * width, offset=_HEAD_BYTES + 4 * tokens)
    return Reading(vector, ids, raw.reshape(tokens, width))
