"""What a machine can tell of one answer: its parts, each 0 (bad) to 1 (good), or nothing where a part does not apply.

Everything is linear in the texts, of which a bounded part is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX, PROMPT_CHARACTERS_MAX, BoughtAnswer, bounded
from farthing_router.calibration.forest import Floats
from farthing_router.judging.answers import agree, final_answer, overlap
from farthing_router.judging.opinions import HEDGES, REFUSALS, is_json
from farthing_router.judging.structures import is_python

_WORD = re.compile(r"[^\W_]{3,}")
_FENCE = re.compile(r"```(\w*)\n(.{0,4000}?)```", re.DOTALL)
_EQUATION = re.compile(
    r"(?<![\d.])(\d{1,9}(?:\.\d{1,4})?)\s?([-+*/×])\s?(\d{1,9}(?:\.\d{1,4})?)\s?=\s?(\d{1,12}(?:\.\d{1,4})?)(?!\d|\.\d)"
)
_EQUATIONS_MAX = 40
_STOP = frozenset(
    "the and for you your are with that this from have what how can please will not but was they has does into its out use".split()
)
_OTHERS_MAX = 8


@dataclass(frozen=True, slots=True)
class Metric:
    """One part: its name, its value, and why in a few words."""

    name: str
    value: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer and what it answers. `others` are what other models said; `reference` is a right answer, where there is one."""

    prompt: str
    answer: BoughtAnswer
    wants_json: bool = False
    calls_tools: bool = False
    others: Sequence[str] = ()
    reference: str = ""


NAMES = (
    "complete",
    "no refusal",
    "format",
    "no hedging",
    "fluent",
    "relevance",
    "agreement",
    "calculation",
    "code",
    "logprobs",
    "reference",
)
"""Every part there is, in order."""


def metrics_of(given: Answered) -> list[Metric]:
    """The parts of an answer that apply to it."""
    short = replace(given, prompt=bounded(given.prompt, PROMPT_CHARACTERS_MAX))
    text = bounded(given.answer.text, ANSWER_CHARACTERS_MAX)
    found: list[Metric | None] = [_complete(short, text)]
    if text.strip():
        found += [
            _refusal(text),
            _format(short, text),
            _hedging(text),
            _fluent(text),
            _relevance(short.prompt, text),
            _agreement(short, text),
            _calculation(text),
            _code(text),
            _logprobs(given.answer.mean_logprob),
            _reference(short, text),
        ]
    return [each for each in found if each is not None]


def vector(metrics: Sequence[Metric]) -> Floats:
    """The parts in the order of NAMES; NaN where one does not apply."""
    values = {each.name: each.value for each in metrics}
    return np.array([values.get(name, math.nan) for name in NAMES])


def _complete(given: Answered, text: str) -> Metric:
    if given.calls_tools:
        return Metric("complete", 1.0, "calls a tool")
    if not text.strip():
        return Metric("complete", 0.0, "empty")
    ended = {"length": (0.1, "cut off"), "content_filter": (0.0, "filtered"), "error": (0.0, "broken off")}
    value, reason = ended.get(given.answer.finish_reason, (1.0, "whole"))
    return Metric("complete", value, reason)


def _refusal(text: str) -> Metric:
    refuses = REFUSALS.search(text[:400]) is not None
    return Metric("no refusal", float(not refuses), "refuses" if refuses else "answers")


def _format(given: Answered, text: str) -> Metric | None:
    if given.wants_json:
        sound = is_json(given.answer.text)
        return Metric(
            "format", float(sound), "is the JSON that was asked for" if sound else "is not the JSON that was asked for"
        )
    if text.count("```") % 2:
        return Metric("format", 0.2, "code is cut off")
    return None


def _hedging(text: str) -> Metric:
    count = len(HEDGES.findall(text))
    return Metric("no hedging", 1 / (1 + count), f"{count} hedges" if count else "does not hedge")


def _fluent(text: str) -> Metric:
    """Whether it says things once: the share of distinct runs of four words, against that of text which does not degenerate."""
    words = text.lower().split()
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    share = len(set(runs)) / len(runs) if len(runs) >= 20 else 1.0
    value = min(1.0, max(0.0, (share - 0.3) / 0.4))
    return Metric("fluent", value, "says things once" if value > 0.9 else "repeats itself")


def _relevance(prompt: str, text: str) -> Metric | None:
    asked = {word for word in _WORD.findall(prompt.lower()) if word not in _STOP}
    said = set(_WORD.findall(text.lower()))
    if len(asked) < 4 or len(said) < 8:
        return None
    share = len(asked & said) / min(len(asked), 40)
    return Metric("relevance", min(1.0, share / 0.4), f"has {share:.0%} of the prompt's words")


def _agreement(given: Answered, text: str) -> Metric | None:
    if not given.others:
        return None
    verdicts = [agree(text, other) for other in given.others[:_OTHERS_MAX]]
    value = sum(0.5 if each is None else float(each) for each in verdicts) / len(verdicts)
    return Metric("agreement", value, f"{sum(each is True for each in verdicts)} of {len(verdicts)} other answers agree")


def _calculation(text: str) -> Metric | None:
    """Whether the equations of two numbers that it writes are right."""
    found = _EQUATION.findall(text)[:_EQUATIONS_MAX]
    if not found:
        return None
    right = sum(_holds(*equation) for equation in found)
    return Metric("calculation", right / len(found), f"{right} of {len(found)} equations hold")


def _holds(one: str, sign: str, other: str, result: str) -> bool:
    first, second, said = float(one), float(other), float(result)
    if sign == "/" and not second:
        return False
    true = {"+": first + second, "-": first - second}.get(sign, first / second if sign == "/" else first * second)
    return abs(true - said) <= max(0.006 * abs(true), 0.06 if "." in result or sign == "/" else 1e-9)


def _code(text: str) -> Metric | None:
    """Whether what it calls Python is."""
    blocks = [block for language, block in _FENCE.findall(text) if language.lower() in ("python", "py", "python3")]
    if not blocks:
        return None
    sound = sum(is_python(block) for block in blocks)
    return Metric("code", sound / len(blocks), f"{sound} of {len(blocks)} blocks parse")


def _logprobs(mean_logprob: float | None) -> Metric | None:
    if mean_logprob is None:
        return None
    return Metric("logprobs", math.exp(max(-20.0, min(0.0, mean_logprob))), f"mean log-probability {mean_logprob:.2f}")


def _reference(given: Answered, text: str) -> Metric | None:
    if not given.reference:
        return None
    right, said = final_answer(given.reference), final_answer(text)
    if right is not None and said is not None:
        return Metric("reference", float(right == said), "says what the reference says" if right == said else "differs from it")
    alike = overlap(text, given.reference)
    return Metric("reference", min(1.0, alike / 0.5), f"shares {alike:.0%} of its words with the reference")
