"""Whether a fresh answer says the same as the one that was served.

Two answers to one question differ in their words, so only clear cases are decided: the middle is left out of the evidence rather than
counted as half. Counting it as half would call every long answer wrong half the time and suspend what is right; leaving it out assumes that
the undecided are wrong as often as the decided, and the chance of being decided is part of the weights. Linear in the texts, which are cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"
_CHARACTERS_MAX = 8_000
_RIGHT_MIN, _WRONG_BELOW = 0.6, 0.3
_SHORT_WORDS = 4
_WORD = re.compile(r"[^\W_]+(?:['.,:/-][^\W_]+)*")
_CODE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_LITTLE = frozenset(
    "a an the is are was were be to of in on at by for with and or it its this that you your i we they he she as so then".split()
)
_YES, _NO = frozenset("yes yeah yep correct true right".split()), frozenset("no nope incorrect false wrong never".split())


@dataclass(frozen=True, slots=True)
class Said:
    """An answer's text, and the JSON of what else it holds (tool calls)."""

    content: str
    extra_json: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two answers are, 0 to 1, and what that makes of the served one: "right", "wrong" or "unsure"."""

    agreement: float
    verdict: str


def compare(served: Said, fresh: Said, *, similarity: float | None = None) -> Agreement:
    """Compares two answers to one question. `similarity` is the cosine of their vectors, where somebody has embedded them."""
    calls = _calls(served.extra_json), _calls(fresh.extra_json)
    if calls != (None, None):
        return Agreement(1.0, RIGHT) if calls[0] == calls[1] else Agreement(0.0, WRONG)
    one, two = served.content[:_CHARACTERS_MAX], fresh.content[:_CHARACTERS_MAX]
    words, others = _words(one), _words(two)
    if words == others:
        return Agreement(1.0, RIGHT)
    if _opposed(words, others) or _other_figures(words, others):
        return Agreement(0.0, WRONG)
    shared = _overlap(words, others)
    if min(len(words), len(others)) <= _SHORT_WORDS:
        return Agreement(shared, RIGHT if _contained(words, others) else WRONG if shared == 0 else UNSURE)
    codes = _CODE.findall(one), _CODE.findall(two)
    if codes[0] and codes[1]:
        shared = min(shared, _overlap(_words(" ".join(codes[0])), _words(" ".join(codes[1]))))
    alike = shared if similarity is None else 0.4 * shared + 0.6 * max(0.0, similarity)
    return Agreement(alike, RIGHT if alike >= _RIGHT_MIN else WRONG if alike < _WRONG_BELOW else UNSURE)


def _words(text: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(text)]
    return [word.replace(",", "") if word[0].isdigit() else word for word in words if word.lower() not in _LITTLE]


def _opposed(one: list[str], two: list[str]) -> bool:
    """One says yes, the other no."""
    first, second = set(one[:1]), set(two[:1])
    return bool((first & _YES and second & _NO) or (first & _NO and second & _YES))


def _other_figures(one: list[str], two: list[str]) -> bool:
    """Both give figures, and none of them is the same."""
    first, second = ({word for word in words if word[0].isdigit()} for words in (one, two))
    return bool(first and second and not first & second)


def _overlap(one: list[str], two: list[str]) -> float:
    first, second = set(one), set(two)
    return 2 * len(first & second) / (len(first) + len(second)) if first and second else 0.0


def _contained(one: list[str], two: list[str]) -> bool:
    short, long = sorted((one, two), key=len)
    return bool(short) and set(short) <= set(long) and not (set(long) - set(short)) & (_NO | {"not"})


def _calls(extra_json: str) -> Any:
    """Tool calls without what names them by chance; None where there are none."""
    if not extra_json:
        return None
    try:
        extra = orjson.loads(extra_json)
    except orjson.JSONDecodeError:
        return extra_json
    calls = extra.get("tool_calls") if isinstance(extra, dict) else None
    return [_call(each) for each in calls] if isinstance(calls, list) and calls else None


def _call(call: Any) -> Any:
    function = call.get("function", {}) if isinstance(call, dict) else {}
    arguments = function.get("arguments", "") if isinstance(function, dict) else ""
    try:
        parsed = orjson.loads(arguments)
    except (orjson.JSONDecodeError, TypeError):
        parsed = arguments
    return function.get("name") if isinstance(function, dict) else call, parsed
