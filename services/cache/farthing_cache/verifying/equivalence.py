"""Whether two questions are one when both are put plainly: politeness and idle words gone, passives read as actives, lists and relations
that hold both ways in one order, a denied word as its opposite, synonyms alike. What is equal so is equal by grammar, not by likeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from farthing_cache.verifying.asking import kind_asked, question_begins
from farthing_cache.verifying.differences import IDLE
from farthing_cache.verifying.opposites import are_opposites, kinds
from farthing_cache.verifying.roles import active, listed, relates
from farthing_cache.verifying.stems import stem
from farthing_cache.verifying.synonyms import are_synonyms
from farthing_cache.verifying.words import Reading

_DROPPED = frozenset(
    "a an the my your our i you we one do be have can could will would should may might must shall me us 's some any that there it get "
    "please very too so then of".split()
)
_ASKING = frozenset("who what which why when where how whom whose".split())
_LEADING = frozenset("in on at for with during after before since within without".split())
_THINKING = frozenset(map(stem, "think believe consider say reckon feel".split()))
_APART = frozenset(("nationality", "religion"))
_IDLE_PAIRS = frozenset((("in", "fact"), ("of", "course"), ("for", "sure"), ("for", "real"), ("in", "reality"), ("right", "now"), ("at", "present")))
_WAYS = (
    "what be good way to",
    "what be some good way to",
    "what be easy way to",
    "what be way to",
    "what be the way to",
    "be there way to",
    "be there any way to",
    "how to",
    "how do",
    "how can",
    "how could",
    "how should",
    "how would",
    "how",
)
_PLAIN_MAX = 40

Word = tuple[bool, str]
"""Whether it is denied, and its stem."""


def same_plainly(one: Reading, two: Reading) -> bool:
    """Whether two questions are the same, put plainly. Assumes that no rule objects: numbers and names were compared."""
    if kind_asked(one.words) != kind_asked(two.words):
        return False
    first, second = plainly(one), plainly(two)
    if not first or len(first) != len(second) or len(first) > _PLAIN_MAX:
        return False
    return all(map(_same_word, first, second))


def _same_word(one: Word, two: Word) -> bool:
    if one[0] == two[0]:
        return one[1] == two[1] or are_synonyms(one[1], two[1])
    return are_opposites(one[1], two[1])


@lru_cache(maxsize=1024)
def plainly(reading: Reading) -> tuple[Word, ...]:
    """The words of a question that are left when it is put plainly."""
    begin = question_begins(reading.words)
    stems = _rotated(active(reading)[begin:])
    stems = _opinions_last(_without_idle(stems))
    stems = _ways(stems)
    stems = listed(_adjectives_listed([word for word in stems if word not in _DROPPED]))
    return tuple(_denials(_related(stems)))


def _without_idle(stems: Sequence[str]) -> list[str]:
    found: list[str] = []
    for word in stems:
        if found and (found[-1], word) in _IDLE_PAIRS:
            found.pop()
        elif word not in IDLE:
            found.append(word)
    return found


def _rotated(stems: Sequence[str]) -> list[str]:
    """ "In a microwave, how do I cook rice" with its beginning at its end; "according to critics, who …" too."""
    found = list(stems)
    if not found or (found[0] not in _LEADING and found[:2] != ["accord", "to"]):
        return found
    for at in range(2, min(len(found), 9)):
        if found[at] in _ASKING or found[at] in ("be", "do", "can", "should"):
            return found[at:] + found[:at]
    return found


def _opinions_last(stems: list[str]) -> list[str]:
    """ "Who do critics think is the best" as "who is the best according to critics"."""
    if len(stems) < 5 or stems[0] not in _ASKING or stems[1] != "do":
        return stems
    for at in range(3, min(len(stems) - 1, 8)):
        if stems[at] in _THINKING:
            rest = stems[at + 1 :]
            return [stems[0], *(rest[1:] if rest[0] == "that" else rest), "accord", "to", *stems[2:at]]
    return stems


def _ways(stems: list[str]) -> list[str]:
    """Every way to ask for a way as one "how"."""
    joined = " ".join("good" if word == "best" else word for word in stems if word not in ("the", "a"))
    for way in _WAYS:
        if joined == way or joined.startswith(way + " "):
            return ["how", *joined[len(way) :].split()]
    return stems


def _adjectives_listed(stems: list[str]) -> list[str]:
    """ "A Kenyan judge" as "a judge and Kenyan", for adjectives that say the same of whatever they stand with."""
    found: list[str] = []
    at = 0
    while at < len(stems):
        word = stems[at]
        alone = at + 1 < len(stems) and stems[at + 1] not in ("and", "or") and (not found or found[-1] not in ("and", "or"))
        if alone and at and kinds().get(word, frozenset()) & _APART and stems[at + 1].isalpha() and stems[at + 1] not in _LEADING:
            found += [stems[at + 1], "and", word]
            at += 2
            continue
        found.append(word)
        at += 1
    return found


def _related(stems: Sequence[str]) -> list[str]:
    """The sides of a relation that holds both ways in the order of the alphabet: "A married to B", "distance between A and B"."""
    found = list(stems)
    for at, word in enumerate(found):
        if relates(word) and at:
            after = at + 2 if found[at + 1 : at + 2] in (["to"], ["with"], ["from"]) else at + 1
            left, right = found[:at], found[after:]
            if left and right and not _ASKING.intersection(left) and "between" not in right and "and" not in found:
                return [*min(left, right), word, *max(left, right)]
    if "between" in found and "and" in found[found.index("between") :]:
        begin = found.index("between") + 1
        middle = found.index("and", begin)
        left, right = found[begin:middle], found[middle + 1 :]
        return [*found[:begin], *min(left, right), "and", *max(left, right)]
    return found


def _denials(stems: Sequence[str]) -> list[Word]:
    """A "not" or "less" joined to the word that it denies."""
    found: list[Word] = []
    denied = False
    for word in stems:
        if word in ("not", "never"):
            denied = not denied
        elif word in ("less", "fewer"):
            found.append((False, "more"))
            denied = not denied
        else:
            found.append((denied, word))
            denied = False
    return [*found, (True, "")] if denied else found
