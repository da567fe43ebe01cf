"""What two readings do not share: their content words, less what pairs up as synonyms, as one word spelled or split in two ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from farthing_cache.verifying.stems import stem
from farthing_cache.verifying.synonyms import are_synonyms, nearly_spelled
from farthing_cache.verifying.words import STOP, Reading

STRANGERS_MAX = 24
# Words that may stand in a question or not: what is asked stays the same.
IDLE = frozenset(
    map(
        stem,
        "really truly actually indeed currently presently honestly literally basically simply just even quite exactly definitely "
        "certainly surely seriously genuinely kindly please thanks thank hello hi hey anyway ok okay dear somehow apparently supposedly well correctly properly "
        "etc fact".split(),
    )
)


@dataclass(frozen=True, slots=True)
class Differences:
    """`one` and `two` stand on one side only, in their order; `paired` counts the words that pair up with other words."""

    one: tuple[str, ...]
    two: tuple[str, ...]
    paired: int
    shared: int


def differences(first: Reading, second: Reading) -> Differences:
    """The content words of each that the other does not have."""
    left, right = Counter(first.content), Counter(second.content)
    one = _listed(left - right)
    two = _listed(right - left)
    shared = (left & right).total()
    if len(one) > STRANGERS_MAX or len(two) > STRANGERS_MAX:
        return Differences(tuple(one), tuple(two), 0, shared)
    paired = 0
    for word in list(one):
        other = next((each for each in two if _may_pair(word, each, first, second)), None)
        if other is not None:
            one.remove(word)
            two.remove(other)
            paired += 1
    _join(one, two)
    _join(two, one)
    return Differences(tuple(one), tuple(two), paired, shared)


def _listed(counted: Counter[str]) -> list[str]:
    return [word for word in counted.elements() if word not in IDLE]


def _may_pair(word: str, other: str, first: Reading, second: Reading) -> bool:
    if are_synonyms(word, other):
        return True
    return nearly_spelled(word, other) and not (word in first.named and other in second.named)


def _join(whole: list[str], parts: list[str]) -> None:
    """Takes out a word that the other side writes as two: "e mail", "log in"."""
    for word in list(whole):
        for part in list(parts):
            rest = word.removeprefix(part)
            if rest and rest != word and (rest in parts or rest in STOP):
                whole.remove(word)
                parts.remove(part)
                if rest in parts:
                    parts.remove(rest)
                break
