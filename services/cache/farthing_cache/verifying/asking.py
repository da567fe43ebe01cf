"""What kind of question a text asks: how, why, when, whether one can, should or must, who, how much …"""

from __future__ import annotations

from collections.abc import Sequence

_POLITE = frozenset(
    "please can could would you tell me explain i want to know need understand help hi hello hey thanks thank kindly so and but ok "
    "do any idea anyone somebody someone just wonder wondering like".split()
)
_YES_NO = {
    "can": "possible",
    "could": "possible",
    "may": "permitted",
    "might": "possible",
    "should": "advisable",
    "ought": "advisable",
    "must": "necessary",
    "will": "will",
    "would": "would",
    "shall": "advisable",
}
_PLAIN_YES_NO = frozenset("is are was were am do does did has have had".split())
_MEASURES = frozenset("much many long far old tall big often fast deep high large heavy soon wide likely hot cold".split())
_NOUNS = {
    "reason": "why",
    "cause": "why",
    "way": "how",
    "ways": "how",
    "steps": "how",
    "method": "how",
    "methods": "how",
    "process": "how",
    "procedure": "how",
    "approach": "how",
    "strategy": "how",
    "trick": "how",
    "tricks": "how",
    "tips": "how",
    "technique": "how",
    "techniques": "how",
    "time": "when",
    "date": "when",
    "year": "when",
    "day": "when",
    "place": "where",
    "location": "where",
    "person": "who",
    "cost": "how much",
    "price": "how much",
    "number": "how many",
    "age": "how old",
    "height": "how tall",
    "distance": "how far",
    "duration": "how long",
    "difference": "what",
}
_SAME = frozenset(
    (
        frozenset(("which", "what")),
        frozenset(("who", "what")),
        frozenset(("where", "what")),
        frozenset(("who", "which")),
        frozenset(("whether", "possible")),
        frozenset(("whether", "permitted")),
        frozenset(("whether", "will")),
        frozenset(("whether", "would")),
        frozenset(("will", "would")),
        frozenset(("possible", "permitted")),
        frozenset(("possible", "would")),
        frozenset(("how likely", "whether")),
        frozenset(("whether", "necessary")),
        frozenset(("whether", "advisable")),
    )
)


def kind_asked(words: Sequence[str]) -> str:
    """The kind of question, or "" where it shows none (a statement, an order, another language)."""
    at = question_begins(words)
    window = words[at : at + 12]
    if not window:
        return ""
    first = window[0]
    following = window[1] if len(window) > 1 else ""
    if first == "how":
        return _how(window)
    if first == "what":
        return _what(window)
    if first in ("why", "when", "where", "who", "whom", "whose", "which"):
        return "who" if first in ("whom", "who") else first
    if first in _YES_NO:
        return _YES_NO[first]
    if first == "is" and following in ("it", "there"):
        return _is_there(window)
    if first in ("do", "does", "did") and "have" in window[1:4] and "to" in window[2:6]:
        return "necessary"
    return "whether" if first in _PLAIN_YES_NO else ""


def kinds_differ(one: str, two: str) -> bool:
    """Whether two kinds of question cannot have one answer."""
    return bool(one and two) and one != two and frozenset((one, two)) not in _SAME


def question_begins(words: Sequence[str]) -> int:
    """Where the question itself begins: "could you tell me how …" asks how."""
    for at, word in enumerate(words[:10]):
        if at and word in ("how", "what", "why", "when", "where", "who", "which"):
            return at
        if word not in _POLITE:
            break
    return 0


def _how(window: Sequence[str]) -> str:
    following = window[1] if len(window) > 1 else ""
    if following == "come":
        return "why"
    if following in ("expensive", "costly") or window[1:3] == ("much", "cost"):
        return "how much"
    if window[1:3] == ("much", "time"):
        return "how long"
    if following in ("is", "was") and window[2:4] == ("the", "weather"):
        return "what"
    if any(word.startswith("differ") for word in window):
        return "what"
    return f"how {following}" if following in _MEASURES else "how"


def _what(window: Sequence[str]) -> str:
    if "for" in window[-1:] and len(window) < 12:
        return "what"
    if "to" in window[4:8] and window[1:4] in (("do", "i", "need"), ("do", "i", "have"), ("should", "i", "do"), ("can", "i", "do")):
        return "how"
    if window[1:2] == ("makes",):
        return "why"
    for word in window[1:7]:
        if word in ("of", "in", "for", "to", "that", "if"):
            break
        if word in _NOUNS:
            return _NOUNS[word]
    return "what"


def _is_there(window: Sequence[str]) -> str:
    if window[1] == "there":
        return "how" if {"way", "method"} & set(window[2:6]) else "whether"
    for word in window[2:5]:
        if word in ("wise", "advisable", "good", "recommended", "sensible"):
            return "advisable"
        if word in ("possible", "feasible"):
            return "possible"
        if word in ("necessary", "mandatory", "required", "compulsory", "obligatory"):
            return "necessary"
    return "whether"
