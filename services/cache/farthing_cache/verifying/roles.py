"""Who does what to whom, and which way: the same words in another order may ask another question.

A passive with "by" is read as its active, a relation that holds both ways lets its sides change places, and so do the parts of a list.
"""

from __future__ import annotations

from collections.abc import Sequence

from farthing_cache.verifying.asking import kind_asked
from farthing_cache.verifying.stems import stem
from farthing_cache.verifying.words import FUNCTION, Reading

_BE = frozenset("is are was were be been being am get got gets".split())
_PLACED = frozenset("from to by into onto than over under against through via before after behind above below inside".split())
_SYMMETRIC = frozenset(
    stem(word)
    for word in (
        "married wed engaged divorced related relationship similar alike equal same differ difference different compare comparison "
        "versus vs between connect link adjacent near nearby close friend roommate sibling brother sister neighbor neighbour twin "
        "cousin dating date partner spouse compatible distance far identical equivalent parallel perpendicular acquainted acquaintance "
        "colleague classmate mate rival enemy ally marriage contact affair join unite together correlate confuse mix combine match "
        "meet agree argue separate better best prefer choose pick"
    ).split()
)
_COMPARING = frozenset(map(stem, "better best prefer choose pick separate combine mix match agree argue meet".split()))
_UNCHANGED = frozenset("hurt hit cut put set beat read let cost quit shut cast spread bet split burst".split())
_CAP = 40
# Of a longer text the clauses change places, and nothing is meant by it; what is told rather than asked is moved about more freely.
_SHARED_MAX, _TOLD_MAX = 9, 4


def active(reading: Reading) -> tuple[str, ...]:
    """The stems of a text with "… is DONE by AGENT" turned into "… AGENT do …": doer, deed and done-to stand in this order."""
    words, stems = list(reading.words), list(reading.stems)
    if "by" not in words[2:]:
        return reading.stems
    by = words.index("by", 2)
    deed = by - 1
    be = next((at for at in range(deed - 1, -1, -1) if words[at] in _BE), None)
    if be is None or not _is_participle(words[deed], stems[deed]):
        return reading.stems
    end = _phrase_end(words, by + 1)
    agent, patient = stems[by + 1 : end], stems[be + 1 : deed]
    if not agent:
        return reading.stems
    if not patient:  # "B was trusted by A": the done-to stands before the verb
        patient, before = stems[:be], []
    else:
        before = stems[:be]
    return (*before, *agent, stems[deed], *patient, *stems[end:])


def _is_participle(word: str, root: str) -> bool:
    if word in _UNCHANGED:
        return True
    return word != root and word.isalpha() and word not in FUNCTION and not word.endswith(("ing", "s"))


def _phrase_end(words: Sequence[str], begin: int) -> int:
    """Where a noun phrase ends: at a preposition, a conjunction or after five words."""
    for at in range(begin, min(len(words), begin + 5)):
        if at > begin and words[at] in (
            "in",
            "on",
            "at",
            "for",
            "with",
            "to",
            "from",
            "when",
            "if",
            "because",
            "during",
            "after",
            "before",
        ):
            return at
    return min(len(words), begin + 5)


def roles_differ(first: Reading, second: Reading) -> bool:
    """Whether words that both texts have change sides around a word that they share, or change places between prepositions."""
    one, two = active(first), active(second)
    if _symmetric(one) and _symmetric(two):
        return False
    if _placed_otherwise(first, second):
        return True
    left, right = _once(listed(one)), _once(listed(two))
    shared = [word for word in left if word in right][:_CAP]
    other = [word for word in right if word in left and word in shared]
    asks = bool(kind_asked(first.words) and kind_asked(second.words))
    if not 3 <= len(shared) <= (_SHARED_MAX if asks else _TOLD_MAX) or shared == other:
        return False
    return _crossed(shared, other)


def _symmetric(stems: Sequence[str]) -> bool:
    return not _SYMMETRIC.isdisjoint(stems)


def listed(stems: Sequence[str]) -> tuple[str, ...]:
    """With the two words about every "and" and "or" in the order of the alphabet: a list has no order."""
    found = list(stems)
    for at in range(1, len(found) - 1):
        if found[at] in ("and", "or") and found[at + 1] < found[at - 1]:
            found[at - 1], found[at + 1] = found[at + 1], found[at - 1]
    return tuple(found)


def relates(word: str) -> bool:
    """Whether a stem names a relation that holds both ways."""
    return word in _SYMMETRIC and word not in _COMPARING


def _once(stems: Sequence[str]) -> list[str]:
    """Content stems that occur once, in their order."""
    counted: dict[str, int] = {}
    for word in stems:
        if word not in FUNCTION and word[0].isalnum():
            counted[word] = counted.get(word, 0) + 1
    return [word for word in stems if counted.get(word) == 1]


def _crossed(one: list[str], two: list[str]) -> bool:
    """Whether some word has one word before and another after it, and in the other text the other way round."""
    bit = {word: 1 << at for at, word in enumerate(one)}
    everything = (1 << len(one)) - 1
    before_in_two: dict[str, int] = {}
    seen = 0
    for word in two:
        before_in_two[word] = seen
        seen |= bit[word]
    for at, word in enumerate(one):
        before = (1 << at) - 1
        after = everything & ~before & ~bit[word]
        moved_back, moved_on = before & ~before_in_two[word], after & before_in_two[word]
        if moved_back and moved_on:
            return True
    return False


def _placed_otherwise(first: Reading, second: Reading) -> bool:
    """Whether two words change places across a preposition: "pdf to word" is not "word to pdf", "from A to B" not "to A from B"."""
    one, two = _after_prepositions(first), _after_prepositions(second)
    for preposition, (at, word) in one.items():
        there, other = two.get(preposition, (0, word))
        if other != word and _elsewhere(word, second, two, there) and _elsewhere(other, first, one, at):
            return True
    return False


def _elsewhere(word: str, reading: Reading, placed: dict[str, tuple[int, str]], at: int) -> bool:
    """Whether a word stands before the word at a place, or after another preposition."""
    return word in reading.stems[:at] or any(word == other for _, other in placed.values())


def _after_prepositions(reading: Reading) -> dict[str, tuple[int, str]]:
    """The first content word after each preposition, and where the preposition stands."""
    found: dict[str, tuple[int, str]] = {}
    for at, word in enumerate(reading.words):
        if word not in _PLACED or word in found:
            continue
        for after in range(at + 1, min(at + 5, len(reading.words))):
            if reading.words[after] not in FUNCTION and reading.words[after][0].isalnum():
                found[word] = at, reading.stems[after]
                break
    return found
