"""Rules that forbid two questions an answer in common, and say why. Similarity proposes, these rules dispose.

A cosine cannot tell "turn on" from "turn off": what must not differ is read word by word. Each rule looks for a sure sign of another
question; what is merely unlikely is left to the learned head. Microseconds, linear in the texts, which are read up to 400 words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farthing_cache.verifying.asking import kind_asked, kinds_differ
from farthing_cache.verifying.differences import STRANGERS_MAX, Differences, differences
from farthing_cache.verifying.numbers import amounts
from farthing_cache.verifying.opposites import are_opposites, of_one_kind
from farthing_cache.verifying.roles import roles_differ
from farthing_cache.verifying.scopes import and_or, foreign, operators, pronouns, scopes, tense, times
from farthing_cache.verifying.words import Reading, normalised, read

__all__ = ["Verdict", "normalised", "objection", "verify"]

_NEGATIONS = frozenset(
    "not no never none nobody nothing neither nor without hardly barely unable nicht kein keine pas jamais nunca".split()
)
_REFUSING = frozenset("stop prevent avoid except exclud fail refus lack quit".split())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer may be shared, and if not why, in a word or two."""

    same: bool
    reason: str


def verify(question: str, other: str) -> Verdict:
    """Whether two questions may share an answer, as far as rules can tell."""
    one, two = read(question), read(other)
    if one.text == two.text:
        return Verdict(True, "the same words")
    reason = objection(one, two)
    return Verdict(True, "similar") if reason is None else Verdict(False, reason)


def objection(one: Reading, two: Reading) -> str | None:
    """Why two texts must not share an answer, or None where no rule objects. The order of the texts does not matter."""
    if one.text == two.text:
        return None
    if not one.whole or not two.whole:
        return "too long to compare"
    apart = differences(one, two)
    for rule in _RULES:
        reason = rule(one, two, apart)
        if reason is not None:
            return reason
    return None


def _too_many(_one: Reading, _two: Reading, apart: Differences) -> str | None:
    """More content words on one side alone than both share: whatever it is, it is not the same question."""
    strangers = max(len(apart.one), len(apart.two))
    return "too many other words" if strangers > STRANGERS_MAX or strangers > max(2, apart.shared + apart.paired) else None


def _foreign(one: Reading, two: Reading, apart: Differences) -> str | None:
    """Of a language whose opposites are not known every word counts."""
    if (foreign(one) or foreign(two)) and (apart.one or apart.two or apart.paired):
        return "words differ"
    return None


def _amounts(one: Reading, two: Reading, _apart: Differences) -> str | None:
    same = amounts(one.words) == amounts(two.words) and operators(one) == operators(two)
    return None if same else "numbers differ"


def _kinds(_one: Reading, _two: Reading, apart: Differences) -> str | None:
    """One of a kind is not another of it: one programming language, one relative, one country."""
    found = [
        kind
        for left in apart.one
        for right in apart.two
        if (kind := of_one_kind(left, right)) and not are_opposites(left, right)
    ]
    return f"another {min(found)}" if found else None


def _polarity(one: Reading, two: Reading, apart: Differences) -> str | None:
    """A negation against none, or a word against its opposite, turn a question round; both together may leave it as it was."""
    left, right = list(apart.one), list(apart.two)
    if max(len(one.words), len(two.words)) <= _SHORT:
        left += [word for word in one.stems if word in _LITTLE and word not in two.stems]
        right += [word for word in two.stems if word in _LITTLE and word not in one.stems]
    opposed = _opposed(left, right)
    told = sum(word in _NEGATIONS for pair in opposed for word in pair)
    odd = (_negations(one.stems, left) + _negations(two.stems, right) - told) % 2
    if odd and not opposed:
        return "one is negated"
    return "opposites" if len(opposed) % 2 and not odd else None


def _opposed(left: list[str], right: list[str]) -> list[tuple[str, str]]:
    """The words of one side with their opposites on the other; they are taken out of both."""
    opposed = []
    for word in list(left):
        for other in right:
            if are_opposites(word, other):
                left.remove(word)
                right.remove(other)
                opposed.append((word, other))
                break
    return opposed


def _negations(stems: tuple[str, ...], apart: Sequence[str]) -> int:
    told = sum(word in _NEGATIONS for word in stems[stems[:1] == ("no",) :])
    if "not" in stems and any(idle in " ".join(stems) for idle in ("not only", "or not", "or why not")):
        told -= 1
    return told + sum(word in _REFUSING for word in apart)


def _times(one: Reading, two: Reading, apart: Differences) -> str | None:
    """Words of time count always; the tense where it is all that differs."""
    other = times(one) ^ times(two)
    if other and (other != {"become"} or len(apart.one) + len(apart.two) <= 2):
        return "times differ"
    return None if apart.one or apart.two or tense(one, two) else "times differ"


def _pronouns(one: Reading, two: Reading, _apart: Differences) -> str | None:
    return None if pronouns(one) == pronouns(two) else "another person"


def _names(one: Reading, two: Reading, apart: Differences) -> str | None:
    """A name of one text that the other does not have. Where everything is written with capitals nothing is a name."""
    if _shouting(one) or _shouting(two):
        return None
    missing = one.named.intersection(apart.one).difference(two.stems) or two.named.intersection(apart.two).difference(one.stems)
    return "names differ" if missing else None


def _shouting(reading: Reading) -> bool:
    return len(reading.named) > 3 and len(reading.named) >= 0.8 * (len(set(reading.content)) - 1)


def _asked(one: Reading, two: Reading, _apart: Differences) -> str | None:
    return "another kind of question" if kinds_differ(kind_asked(one.words), kind_asked(two.words)) else None


def _roles(one: Reading, two: Reading, apart: Differences) -> str | None:
    turned = any(are_opposites(left, right) for left in apart.one for right in apart.two)
    return "roles differ" if not turned and roles_differ(one, two) else None


def _scopes(one: Reading, two: Reading, _apart: Differences) -> str | None:
    if scopes(one) != scopes(two):
        return "another scope"
    return None if kind_asked(one.words) != "whether" or and_or(one, two) else "another scope"


def _swapped(one: Reading, two: Reading, apart: Differences) -> str | None:
    """Whether something is so, asked of one thing and of another: in a question for a yes or a no one swapped word is the question."""
    swapped = len(apart.one) == 1 and len(apart.two) == 1 and not are_opposites(apart.one[0], apart.two[0])
    return "another word" if swapped and kind_asked(one.words) == kind_asked(two.words) == "whether" else None


_SHORT = 16
_LITTLE = frozenset(
    "on off in out up down more less most least over under before after with without never none against same".split()
)
_RULES: tuple[Callable[[Reading, Reading, Differences], str | None], ...] = (
    _too_many,
    _amounts,
    _foreign,
    _kinds,
    _polarity,
    _times,
    _pronouns,
    _names,
    _asked,
    _roles,
    _scopes,
    _swapped,
)
