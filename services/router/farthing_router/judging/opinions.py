"""Judging an answer without knowing the right one: its structure, its hedging, and whether an independent answer agrees.

Agreement of two cheap models of different families is the strongest single signal on short answers; structure catches what no
model would call an answer. Everything is linear in the text and reads a bounded part of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from farthing_router.judging.answers import agree, excerpt

HEDGES = re.compile(
    r"\b(?:i(?:'m| am) not (?:sure|certain)|i (?:do not|don't|cannot|can't) (?:know|tell|say|determine|confirm|verify)|not entirely sure|"
    r"i(?:'m| am) unsure|hard to say|it is unclear|i might be wrong|i believe it (?:may|might)|possibly|please (?:check|contact|consult)|"
    r"i would (?:need|have to) (?:check|know)|you may want to (?:check|ask))\b",
    re.IGNORECASE,
)
REFUSALS = re.compile(
    r"\b(?:as an ai|i(?:'m| am) (?:sorry|unable)|i (?:cannot|can't|can not) (?:help|assist|answer|provide|do that)|"
    r"unable to (?:answer|help))\b",
    re.IGNORECASE,
)
_SOLID = 0.82
_AGREED = 0.95
_DISAGREED = 0.2


@dataclass(frozen=True, slots=True)
class Opinion:
    """How sure the judge is that an answer is good, 0 to 1, and why in a word or two."""

    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What is judged. `wants_json` says that the request asks for JSON; `calls_tools` that the answer is a tool call."""

    text: str
    finish_reason: str
    wants_json: bool = False
    calls_tools: bool = False


def judge(answer: Judged, others: Sequence[str]) -> Opinion:
    """The opinion on an answer, given what other models said to the same prompt."""
    structure = _structure(answer)
    if structure.confidence < 0.5 or not others or answer.calls_tools:
        return structure
    verdicts = [agree(answer.text, other) for other in others]
    if any(verdict is True for verdict in verdicts):
        return Opinion(max(structure.confidence, _AGREED), "agrees with a second model")
    if all(verdict is False for verdict in verdicts):
        return Opinion(_DISAGREED, "a second model disagrees")
    return Opinion(structure.confidence * 0.8, "a second model says something else")


def _structure(answer: Judged) -> Opinion:
    text = excerpt(answer.text).strip()
    if answer.calls_tools:
        return Opinion(_SOLID, "calls a tool")
    if not text:
        return Opinion(0.0, "empty")
    if answer.finish_reason == "length":
        return Opinion(0.1, "cut off")
    if answer.finish_reason == "content_filter":
        return Opinion(0.1, "filtered")
    if answer.wants_json and not is_json(answer.text):
        return Opinion(0.05, "not the JSON that was asked for")
    head = text[:400]
    if REFUSALS.search(head):
        return Opinion(0.15, "refuses")
    if HEDGES.search(text):
        return Opinion(0.35, "hedges")
    if text.count("```") % 2:
        return Opinion(0.4, "code is cut off")
    return Opinion(_SOLID, "well formed")


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
