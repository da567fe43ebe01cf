"""Judging an answer without knowing the right one: its structure, its hedging, and whether an independent answer agrees.

Agreement of two cheap models of different families is the strongest single signal on short answers; structure catches what no
model would call an answer. Everything is linear in the text and reads a bounded part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX, bounded
from farthing_router.calibration.texts import Parts
from farthing_router.judging.answers import agree, excerpt
from farthing_router.judging.structures import NOTHING, Asked, code_fault, json_fault, tool_fault

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


_PROBABLE = 0.8
"""Tokens this likely on average are those of a model that is sure of itself."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """How sure the judge is that an answer is good, 0 to 1, and why in a word or two. `gain`: what a dearer model's answer is expected to
    be better by, None where nobody said. `hopeless`: a dearer answer would likely have the same fault."""

    confidence: float
    reason: str
    gain: float | None = None
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """What is judged. `asked` is what the request wants of the form; `extra_json` has the answer's tool calls, if any."""

    text: str
    finish_reason: str
    asked: Asked = NOTHING
    extra_json: str = ""
    mean_logprob: float | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether the answer is a call of tools."""
        return '"tool_calls"' in self.extra_json


def judge(answer: Judged, others: Sequence[str]) -> Opinion:
    """The opinion on an answer, given what other models said to the same prompt."""
    structure = structure_of(answer)
    if structure.confidence < 0.5 or not others or answer.calls_tools:
        return structure
    verdicts = [agree(answer.text, other) for other in others]
    if any(verdict is True for verdict in verdicts):
        return Opinion(max(structure.confidence, _AGREED), "agrees with a second model")
    if all(verdict is False for verdict in verdicts):
        return Opinion(_DISAGREED, "a second model disagrees")
    return Opinion(structure.confidence * 0.8, "a second model says something else")


def fault_of(answer: Judged) -> str | None:
    """Why an answer is none at all for this request, whatever it says; None where it is one."""
    if answer.calls_tools:
        return tool_fault(answer.extra_json, answer.asked)
    if not answer.text.strip():
        return "empty"
    return json_fault(answer.text, answer.asked) if answer.asked.json else None


def structure_of(answer: Judged) -> Opinion:
    """The opinion on an answer alone, by its form and by how likely its tokens were."""
    text = excerpt(answer.text).strip()
    if answer.finish_reason == "length":
        return Opinion(0.1, "cut off", hopeless=True)
    if answer.finish_reason == "content_filter":
        return Opinion(0.1, "filtered")
    if (fault := fault_of(answer)) is not None:
        return Opinion(0.0 if fault == "empty" else 0.05, fault)
    if answer.calls_tools:
        return Opinion(_SOLID, "calls a tool")
    if REFUSALS.search(text[:400]):
        return Opinion(0.15, "refuses")
    if HEDGES.search(text):
        return Opinion(0.35, "hedges")
    if (fault := code_fault(text)) is not None:
        return Opinion(0.4, fault)
    if "=" in text and Parts(bounded(text, ANSWER_CHARACTERS_MAX)).reckoned[1]:
        return Opinion(0.3, "reckons wrong")
    if answer.mean_logprob is not None and (probable := math.exp(min(0.0, answer.mean_logprob))) < _PROBABLE:
        return Opinion(_SOLID * (0.5 + 0.5 * probable / _PROBABLE), "the model is not sure of itself")
    return Opinion(_SOLID, "well formed")


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
