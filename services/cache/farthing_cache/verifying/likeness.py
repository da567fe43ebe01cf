"""How alike two questions are, in a few numbers that a head weighs: the cosine, and what reading both word by word says."""

from __future__ import annotations

from collections import Counter

import numpy as np

from farthing_cache.embedding.embedder import Vector
from farthing_cache.verifying.asking import kind_asked
from farthing_cache.verifying.differences import differences
from farthing_cache.verifying.equivalence import plainly, same_plainly
from farthing_cache.verifying.opposites import are_opposites
from farthing_cache.verifying.words import FUNCTION, Reading

NAMES = (
    "cosine",
    "cosine above 0.8",
    "cosine above 0.9",
    "cosine above 0.95",
    "the same put plainly",
    "shared content",
    "strangers on the side with fewer",
    "strangers on the side with more",
    "pairs of synonyms",
    "few words shared",
    "kinds of question are the same",
    "a kind of question is not shown",
    "shared small words",
    "shared pairs of words",
    "lengths",
    "denied and turned round",
    "one word for another",
    "words on one side only",
    "words begin alike",
    "content in another order",
)


def likeness(one: Reading, two: Reading, *, cosine: float) -> Vector:
    """The features of a pair, in the order of `NAMES`. The order of the two does not matter."""
    apart = differences(one, two)
    fewer, more = sorted((len(apart.one), len(apart.two)))
    first, second = kind_asked(one.words), kind_asked(two.words)
    content = apart.shared + apart.paired
    return np.array(
        (
            cosine,
            max(0.0, cosine - 0.8),
            max(0.0, cosine - 0.9),
            max(0.0, cosine - 0.95),
            same_plainly(one, two),
            2 * content / max(1, 2 * content + fewer + more),
            min(fewer, 4),
            min(more, 6),
            min(apart.paired, 3),
            max(0, 3 - content),
            bool(first) and first == second,
            not first or not second,
            _shared([word for word in one.words if word in FUNCTION], [word for word in two.words if word in FUNCTION]),
            _shared(list(zip(one.stems, one.stems[1:], strict=False)), list(zip(two.stems, two.stems[1:], strict=False))),
            min(len(one.words), len(two.words)) / max(1, len(one.words), len(two.words)),
            any(are_opposites(left, right) for left in apart.one for right in apart.two),
            fewer == more == 1,
            fewer == 0 and more > 0,
            _begin_alike(apart.one, apart.two),
            _reordered(one, two),
        ),
        dtype=np.float32,
    )


def _shared(one: list[object], two: list[object]) -> float:
    left, right = Counter(one), Counter(two)
    return 2 * (left & right).total() / max(1, left.total() + right.total())


def _begin_alike(one: tuple[str, ...], two: tuple[str, ...]) -> float:
    """The share of strangers that begin as one on the other side does: forms of a word that stems do not bring together."""
    if not one or not two:
        return 0.0
    begins = {word[:4] for word in two}
    return sum(word[:4] in begins for word in one if len(word) > 4) / len(one)


def _reordered(one: Reading, two: Reading) -> float:
    """Whether what both put plainly stands in another order."""
    first, second = ([word for _, word in plainly(each)] for each in (one, two))
    left, right = [word for word in first if word in second], [word for word in second if word in first]
    return float(left != right)
