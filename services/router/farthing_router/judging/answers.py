"""What an answer finally says, as far as a machine can compare it with another answer. Linear in the text, bounded."""

from __future__ import annotations

import re
from typing import Any

import orjson

CHARACTERS_MAX = 20_000
"""Only so much of an answer's beginning and end is read."""
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?%?")
_SAYS = re.compile(r"(?:answer|result|output)\s*(?:is|:|=)[\s:*]*([^\n]{1,200})", re.IGNORECASE)
_LETTER = re.compile(r"^\(?([A-J])\)?(?:[.):\s]|$)")
_BOXED = "\\boxed{"
_FILLER = re.compile(r"[\s\"'`*$.]+")
_WORD = re.compile(r"[a-z0-9]+")
_SHORT_CHARACTERS = 80


def excerpt(text: str) -> str:
    """A text, or its beginning and end where it is long."""
    half = CHARACTERS_MAX // 2
    return text if len(text) <= CHARACTERS_MAX else f"{text[:half]}\n{text[-half:]}"


def final_answer(text: str) -> str | None:
    """The final answer in a canonical form: a number, an option letter, or short text; None where the answer is prose."""
    stated = stated_answer(text)
    return None if stated is None else canonical(stated)


def stated_answer(text: str) -> str | None:
    """The final answer as it is written: from JSON, a box, a sentence that says so, or a whole short text; where a longer one reckons, its
    last number. None where the answer is prose."""
    text = excerpt(text).strip()
    stated = _from_json(text)
    if stated is None:
        stated = _from_box(text)
    if stated is None and (found := _SAYS.findall(text)):
        stated = found[-1]
    if stated is None:
        if len(text) <= _SHORT_CHARACTERS:
            return text
        numbers = _NUMBER.findall(text[-400:]) if "=" in text or len(_NUMBER.findall(text)) > 2 else []
        return numbers[-1] if numbers else None
    return stated


def agree(one: str, other: str) -> bool | None:
    """Whether two answers say the same; None where they are prose of middling likeness and nobody can tell."""
    first, second = final_answer(one), final_answer(other)
    if first is not None and second is not None:
        return first == second
    likeness = overlap(one, other)
    if likeness >= 0.6:
        return True
    return False if likeness < 0.2 else None


def overlap(one: str, other: str) -> float:
    """The share of words two texts have in common (Jaccard)."""
    first, second = set(_WORD.findall(excerpt(one).lower())), set(_WORD.findall(excerpt(other).lower()))
    return len(first & second) / len(first | second) if first and second else 0.0


def _from_json(text: str) -> str | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end <= start or '"answer"' not in text:
        return None
    try:
        parsed: Any = orjson.loads(text[start : end + 1])
    except orjson.JSONDecodeError:
        at = text.rfind('"answer"')
        found = re.match(r'"answer"\s*:\s*(?:"([^\n]{1,300})"|([^\n}]{1,300}))', text[at : at + 400])
        return (found.group(1) or found.group(2)).strip() if found else None
    answer = parsed.get("answer") if isinstance(parsed, dict) else None
    return None if answer is None else answer if isinstance(answer, str) else orjson.dumps(answer).decode()


def _from_box(text: str) -> str | None:
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, begin = 1, start + len(_BOXED)
    for position in range(begin, min(len(text), begin + 500)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position]
    return None


def canonical(stated: str) -> str:
    """One form for what is the same however it is written: \"2,400\", \"$2400.00\" and \"2400 dollars\"."""
    stated = stated.strip()
    letter = _LETTER.match(stated)
    if letter:
        return letter.group(1)
    whole = _NUMBER.fullmatch(stated.strip("$*. "))
    if whole:
        return _number(whole.group())
    words = stated.split()
    if 1 < len(words) <= 4 and (number := _NUMBER.fullmatch(words[0].rstrip(".,"))):
        return _number(number.group())
    return _FILLER.sub("", stated).lower()[:_SHORT_CHARACTERS]


def _number(text: str) -> str:
    """ "2,400" and "$2400.00" are one number."""
    digits = text.replace(",", "").replace("$", "").rstrip("%")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits or "0"
