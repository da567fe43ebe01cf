"""What can be measured of a prompt and of bought answers without knowing the right one. Linear in the text, which is bounded first.

Every feature is generic: the shape of the question, the form of each answer, what the answers have in common. NaN is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX, PROMPT_CHARACTERS_MAX, BoughtAnswer, bounded
from farthing_router.calibration.forest import Floats
from farthing_router.judging.answers import final_answer

_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MARKS = "=+*/^\\{}[]()?!:;,.\n"
_HEDGES = ("however", "wait", "but ", "assume", "approximately", "unclear", "not sure", "let's", "therefore", "thus")

PROMPT_NAMES = (
    "characters",
    "words",
    "numbers",
    "word_characters",
    "capitals",
    "distinct",
    *(f"mark_{n}" for n in range(len(_MARKS))),
)
ANSWER_NAMES = (
    *(f"{name}" for name in PROMPT_NAMES),
    *(f"hedge_{n}" for n in range(len(_HEDGES))),
    "final_found",
    "final_characters",
    "final_number",
    "stopped",
    "mean_logprob",
    "likely_margin",
    "share_of_prompt",
)
PAIR_NAMES = ("final_same", "final_both", "length_ratio", "words_shared", "numbers_shared")


def names_of(answers: int) -> list[str]:
    """The features' names where so many answers are read."""
    names = [f"prompt_{name}" for name in PROMPT_NAMES]
    for number in range(answers):
        names += [f"answer{number}_{name}" for name in ANSWER_NAMES]
    for one in range(answers):
        for other in range(one):
            names += [f"pair{other}{one}_{name}" for name in PAIR_NAMES]
    return names


def features_of(prompt: str, answers: Sequence[BoughtAnswer]) -> Floats:
    """The features of a prompt and the answers bought for it, in the order of `names_of`."""
    asked = _Text(bounded(prompt, PROMPT_CHARACTERS_MAX))
    said = [_Text(bounded(answer.text, ANSWER_CHARACTERS_MAX)) for answer in answers]
    values = list(asked.form)
    for answer, text in zip(answers, said, strict=True):
        values += _of_answer(answer, text, asked)
    for one in range(len(answers)):
        for other in range(one):
            values += _of_pair(said[one], said[other])
    return np.asarray(values, dtype=np.float64)


class _Text:
    """A text taken apart once."""

    def __init__(self, text: str) -> None:
        words = _WORD.findall(text)
        numbers = _NUMBER.findall(text)
        self.text = text
        self.final = final_answer(text)
        self.words = {word.lower() for word in words}
        self.numbers = set(numbers)
        self.form = [
            np.log1p(len(text)),
            np.log1p(len(words)),
            np.log1p(len(numbers)),
            sum(map(len, words)) / max(1, len(words)),
            sum(word[0].isupper() for word in words) / max(1, len(words)),
            len(self.words) / max(1, len(words)),
            *(np.log1p(text.count(mark)) for mark in _MARKS),
        ]


def _of_answer(answer: BoughtAnswer, said: _Text, asked: _Text) -> list[float]:
    lower = said.text.lower()
    final = said.final
    return [
        *said.form,
        *(float(lower.count(hedge)) for hedge in _HEDGES),
        float(final is not None),
        float(len(final)) if final is not None else np.nan,
        float(bool(final) and final is not None and final.lstrip("-").replace(".", "").isdigit()),
        float(answer.finish_reason == "stop"),
        np.nan if answer.mean_logprob is None else answer.mean_logprob,
        np.nan if answer.likely_margin is None else answer.likely_margin,
        len(said.words & asked.words) / max(1, len(asked.words)),
    ]


def _of_pair(one: _Text, other: _Text) -> list[float]:
    both = one.final is not None and other.final is not None
    shared_words, shared_numbers = len(one.words & other.words), len(one.numbers & other.numbers)
    return [
        float(one.final == other.final) if both else np.nan,
        float(both),
        one.form[0] - other.form[0],
        shared_words / max(1, len(one.words | other.words)),
        shared_numbers / max(1, len(one.numbers | other.numbers)),
    ]
