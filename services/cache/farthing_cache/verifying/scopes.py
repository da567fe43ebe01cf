"""Small words that say when, who, how many of them and with what sign: what a question is about stays, what it asks of it changes."""

from __future__ import annotations

from farthing_cache.verifying.words import Reading

_TIMES = {
    "before": "before",
    "prior": "before",
    "after": "after",
    "until": "until",
    "till": "until",
    "since": "since",
    "still": "still",
    "already": "already",
    "yet": "yet",
    "anymore": "no longer",
    "again": "again",
    "ago": "ago",
    "later": "later",
    "during": "during",
    "while": "during",
    "soon": "soon",
    "becom": "become",
    "today": "today",
    "tomorrow": "tomorrow",
    "yesterday": "yesterday",
    "tonight": "tonight",
    "ever": "ever",
    "former": "former",
    "formerly": "former",
    "future": "future",
}
_WHICH_SPAN = {
    "next": "next",
    "coming": "next",
    "last": "last",
    "previous": "last",
    "past": "last",
    "this": "this",
    "current": "this",
}
_SPANS = frozenset("day night week weekend month quarter year season semester summer winter spring fall".split())
_SOFT_TIMES = frozenset("ever already during again soon future after today tomorrow yesterday tonight".split())
_MALE, _FEMALE = frozenset("he him his himself".split()), frozenset("she her hers herself".split())
_SCOPES = {
    "only": "only",
    "solely": "only",
    "exclusively": "only",
    "except": "except",
    "besides": "except",
    "alone": "alone",
    "first": "first",
    "always": "always",
    "both": "both",
    "simultaneously": "both",
    "either": "either",
    "instead": "instead",
    "every": "every",
    "half": "half",
    "least": "least",
    "rather": "instead",
    "almost": "almost",
    "nearly": "almost",
    "if": "if",
    "unless": "unless",
    "although": "although",
    "according": "according",
}
_SOFT_SCOPES = frozenset("every if instead according either almost first always half".split())
_OPERATORS = frozenset("<>=^*+#")
_PAST, _PRESENT = frozenset("was were did had".split()), frozenset("is are am does do has have".split())
_FOREIGN = frozenset(
    "el la los las una por que como para con cual cuando donde puedo der die das ist und wie ich ein eine wo wann warum le les des "
    "est une dans pour quel comment je mon ma il che di sono come per perche um os uma onde posso het een van hoe ik en och hur jag".split()
)
_ENGLISH = frozenset("the is are of to in do does how what why when where who i my and can for a it you".split())


def times(reading: Reading) -> frozenset[str]:
    """The sure words of time in a text: before, until, becoming, used to …"""
    found = {_TIMES[stem] for stem in (*reading.stems, *reading.words) if stem in _TIMES} - _SOFT_TIMES
    for at in range(len(reading.words) - 1):
        pair = reading.words[at : at + 2]
        if pair == ("used", "to") and (at < 1 or reading.words[at - 1] not in ("is", "are", "be", "was", "get", "getting")):
            found.add("used to")
        if pair[0] in _WHICH_SPAN and pair[1] in _SPANS:
            found.add(f"{_WHICH_SPAN[pair[0]]} {pair[1]}")
        if pair[1] == "may" and pair[0] in ("in", "of", "since", "until", "by", "last", "next", "this"):
            found.add("may")
        if pair == ("no", "longer"):
            found.add("no longer")
    if "after" in reading.words:
        found.add("after")
    return frozenset(found)


def tense(one: Reading, two: Reading) -> bool:
    """Whether two texts may speak of one time: not one of the past alone and the other of the present alone."""
    first, second = set(one.words), set(two.words)
    past, present = first & _PAST, first & _PRESENT
    other_past, other_present = second & _PAST, second & _PRESENT
    return not (past and not present and other_present and not other_past) and not (
        present and not past and other_past and not other_present
    )


def pronouns(reading: Reading) -> tuple[bool, bool]:
    """Whether a man or a woman is spoken of as he or she."""
    return not _MALE.isdisjoint(reading.words), not _FEMALE.isdisjoint(reading.words)


def scopes(reading: Reading) -> frozenset[str]:
    """The sure words of scope in a text: only, except, first, least …"""
    return frozenset(_SCOPES[word] for word in reading.words if word in _SCOPES) - _SOFT_SCOPES


def and_or(one: Reading, two: Reading) -> bool:
    """Whether both join what they name alike: "a or b" is not "a and b"."""
    first, second = {"and", "or"}.intersection(one.words), {"and", "or"}.intersection(two.words)
    return not first or not second or bool(first & second)


def operators(reading: Reading) -> list[str]:
    """The signs of arithmetic and comparison in a text."""
    return sorted(word for word in reading.words if word in _OPERATORS)


def foreign(reading: Reading) -> bool:
    """Whether a text is probably not English: another script, or the small words of another language and none of English."""
    letters = [word for word in reading.words if word[0].isalpha()]
    if sum(not word.isascii() for word in letters) * 3 > len(letters):
        return True
    return len(_FOREIGN.intersection(letters)) >= 2 and len(_ENGLISH.intersection(letters)) <= 1
