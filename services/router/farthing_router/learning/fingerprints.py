"""What is kept of an answer instead of its text: enough to say how like another text is to it.

The final answer in its canonical form as a keyed hash, and the smallest hashes of its runs of three words, from which the share of runs
that two texts have in common is estimated (bottom-k sketches: Cohen and Kaplan, 2007). The key is the request, so that equal answers to
different requests look different, and nobody can look texts up.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b

import numpy as np

from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX, bounded
from farthing_router.judging.answers import final_answer

_RUNS = 64
_FINAL_BYTES = 8
_WORDS_MAX = 1_200
_NONE = bytes(_FINAL_BYTES)


def fingerprint(text: str, *, key: str) -> bytes:
    """The fingerprint of a text."""
    text = bounded(text, ANSWER_CHARACTERS_MAX)
    final, secret = final_answer(text), key.encode()[:64]
    head = _NONE if not final else blake2b(final.encode(errors="replace"), digest_size=_FINAL_BYTES, key=secret).digest()
    words = np.array([zlib.crc32(word.encode(errors="replace")) for word in text.lower().split()[:_WORDS_MAX]], dtype=np.uint64)
    runs = (
        words[:-2] * 0x9E3779B97F4A7C15 + words[1:-1] * 0xC2B2AE3D27D4EB4F + words[2:] * 0x165667B19E3779F9
        if len(words) > 2
        else words
    )
    salt = np.frombuffer(blake2b(secret, digest_size=8).digest(), dtype=np.uint64)[0] | np.uint64(1)
    mixed = ((runs ^ (runs >> np.uint64(31))) * salt) >> np.uint64(32)
    return head + np.unique(mixed)[:_RUNS].astype("<u4").tobytes()


def likeness(one: bytes, other: bytes) -> float:
    """How like two texts are whose fingerprints have the same key, 0 to 1: 1 or 0 where both come to a final answer, else the share of
    runs of words that they have in common."""
    if one[:_FINAL_BYTES] != _NONE and other[:_FINAL_BYTES] != _NONE:
        return float(one[:_FINAL_BYTES] == other[:_FINAL_BYTES])
    first, second = _runs(one), _runs(other)
    if not first or not second:
        return float(first == second)
    smallest = sorted(first | second)[:_RUNS]
    return sum(run in first and run in second for run in smallest) / len(smallest)


def _runs(of: bytes) -> set[int]:
    return set(np.frombuffer(of[_FINAL_BYTES:], dtype="<u4").tolist())
