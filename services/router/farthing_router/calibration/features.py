"""What can be measured of a prompt and of bought answers without knowing the right one. Linear in the text, which is bounded first.

Every feature is generic: the shape of the question, the form of each answer, whether its reasoning and its final answer fit, what the
answers have in common. NaN is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX, PROMPT_CHARACTERS_MAX, BoughtAnswer, bounded
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.texts import Parts

_MARKS = "=+*/^\\{[(?!:;,.'\n$%<_"
_OPTION = re.compile(r"^\(?([A-J])[.):]\s{1,4}(.{0,400})$", re.MULTILINE)
_ASKS = tuple(
    "how what which why find prove compute explain write if when total percent each more most least except not true".split()
)
_CODE = tuple("def return for while if lambda import class print append range split join".split())
_TURNS = (
    "however", "wait", "but ", "mistake", "correct", "assum", "approximat", "cannot", "not ", "therefore", "let's", "first", "finally",
    "option", "because", "likely", "incorrect",
)  # fmt: skip
_NUMERAL = re.compile(r"-?\d+(?:\.\d+)?")

PROMPT_NAMES = (
    "characters", "words", "numbers", "lines", "word_characters", "distinct", "number_max", "digits_share", "options",
    "option_characters", "option_numbers", "indented", *(f"mark_{n}" for n in range(len(_MARKS))),
    *(f"asks_{word}" for word in _ASKS), *(f"code_{word}" for word in _CODE),
)  # fmt: skip
ANSWER_NAMES = (
    "characters", "words", "numbers", "lines", "word_characters", "distinct", "tail_distinct", "latex", "fences", "json", "equals",
    "right_equations", "wrong_equations", *(f"turns_{n}" for n in range(len(_TURNS))), "final_found", "final_characters",
    "final_number", "final_value", "final_fraction", "final_letter", "final_quoted", "final_list", "final_flag", "final_in_prompt",
    "final_mentions", "final_is_last_number", "claims", "claims_differ", "chosen_fits", "chosen_fits_more", "letters_named",
    "numbers_of_prompt", "prompt_numbers_used", "words_of_prompt", "stopped", "mean_logprob", "likely_margin", "to_prompt",
)  # fmt: skip
PAIR_NAMES = (
    "same", "same_strictly", "both_final", "near", "common_start", "common_end", "same_characters", "length", "final_length",
    "words_shared", "numbers_shared", "one_in_other", "other_in_one", "both_letters", "number_ratio",
)  # fmt: skip


def names_of(answers: int) -> list[str]:
    """The features' names where so many answers are read."""
    names = [f"prompt_{name}" for name in PROMPT_NAMES]
    for number in range(answers):
        names += [f"answer{number}_{name}" for name in ANSWER_NAMES]
    for one in range(answers):
        names += [f"pair{other}{one}_{name}" for other in range(one) for name in PAIR_NAMES]
    return names


def parts_of(prompt: str, answers: Sequence[BoughtAnswer]) -> tuple[Parts, list[Parts]]:
    """The prompt and the answers, bounded and taken apart."""
    return Parts(bounded(prompt, PROMPT_CHARACTERS_MAX)), [
        Parts(bounded(answer.text, ANSWER_CHARACTERS_MAX)) for answer in answers
    ]


def features_of(prompt: str, answers: Sequence[BoughtAnswer]) -> Floats:
    """The features of a prompt and the answers bought for it, in the order of `names_of`."""
    return features_of_parts(*parts_of(prompt, answers), answers)


def features_of_parts(asked: Parts, said: Sequence[Parts], answers: Sequence[BoughtAnswer]) -> Floats:
    """The same of texts that are taken apart already."""
    options = {letter: set(re.findall(r"[a-z]{3,}|\d+", text.lower())) for letter, text in _OPTION.findall(asked.text)}
    values = _of_prompt(asked, options)
    for answer, text in zip(answers, said, strict=True):
        values += _of_answer(answer, text, asked, options)
    for one in range(len(answers)):
        for other in range(one):
            values += _of_pair(said[other], said[one])
    return np.asarray(values, dtype=np.float64)


def _of_prompt(asked: Parts, options: dict[str, set[str]]) -> list[float]:
    text, words = asked.text, asked.words
    counts = dict.fromkeys((*_ASKS, *_CODE), 0)
    for word in words:
        if word in counts:
            counts[word] += 1
    values = [float(number) for number in asked.numbers[:50] if len(number) < 12]
    return [
        *_shape(asked),
        math.log1p(max(values, default=0.0)),
        sum(map(len, asked.numbers)) / max(1, len(text)),
        float(len(options)),
        math.log1p(sum(len(" ".join(words)) for words in options.values())),
        float(sum(bool(words) and all(word.isdigit() for word in words) for words in options.values())),
        math.log1p(text.count("\n  ")),
        *(math.log1p(text.count(mark)) for mark in _MARKS),
        *(math.log1p(counts[word]) for word in (*_ASKS, *_CODE)),
    ]


def _shape(parts: Parts) -> list[float]:
    return [
        math.log1p(len(parts.text)),
        math.log1p(len(parts.words)),
        math.log1p(len(parts.numbers)),
        math.log1p(parts.text.count("\n")),
        sum(map(len, parts.words)) / max(1, len(parts.words)),
        len(parts.vocabulary) / max(1, len(parts.words)),
    ]


def _of_answer(answer: BoughtAnswer, said: Parts, asked: Parts, options: dict[str, set[str]]) -> list[float]:
    text, lower = said.text, said.lower
    tail = said.tokens[-120:]
    right, wrong = said.reckoned
    return [
        *_shape(said),
        len(set(tail)) / max(1, len(tail)),
        math.log1p(text.count("\\")),
        float(min(4, text.count("```"))),
        float('"answer"' in text),
        math.log1p(text.count("=")),
        math.log1p(right),
        math.log1p(wrong),
        *(math.log1p(lower.count(turn)) for turn in _TURNS),
        *_of_final(said, asked),
        *_of_claims(said, options),
        len(said.figures & asked.figures) / max(1, len(said.figures)),
        len(said.figures & asked.figures) / max(1, len(asked.figures)),
        len(said.vocabulary & asked.vocabulary) / max(1, len(asked.vocabulary)),
        float(answer.finish_reason in ("stop", "tool_calls")),
        math.nan if answer.mean_logprob is None else answer.mean_logprob,
        math.nan if answer.likely_margin is None else answer.likely_margin,
        math.log1p(len(text)) - math.log1p(len(asked.text)),
    ]


def _of_final(said: Parts, asked: Parts) -> list[float]:
    final, stated = said.final, (said.stated or "").strip()
    if final is None:
        return [0.0, *[math.nan] * 11]
    value = float(final) if _NUMERAL.fullmatch(final) and len(final) < 16 else None
    return [
        1.0,
        math.log1p(len(stated)),
        float(value is not None),
        math.nan if value is None else math.copysign(math.log1p(abs(value)), value),
        float("." in final) if value is not None else math.nan,
        float(len(final) == 1 and final.isalpha()),
        float(stated[:1] in "\"'"),
        float(stated[:1] in "[({"),
        float(final in ("true", "false", "none", "yes", "no")),
        float(bool(stated) and stated.lower() in asked.lower),
        math.log1p(said.lower.count(stated.lower()[:80])) if stated else 0.0,
        float(said.numbers[-2:].count(final.lstrip("-")) > 0) if value is not None else math.nan,
    ]


def _of_claims(said: Parts, options: dict[str, set[str]]) -> list[float]:
    claims = said.claims
    chosen = options.get(said.final or "")
    head = [math.log1p(len(claims)), float(len(set(claims)))]
    if not options or not chosen:
        return [*head, math.nan, math.nan, math.nan]
    words = said.vocabulary | said.figures
    fits = {letter: len(option & words) / max(1, len(option)) for letter, option in options.items()}
    others = max((fit for letter, fit in fits.items() if letter != said.final), default=0.0)
    named = sum(f"({letter})" in said.text for letter in options)
    return [*head, fits[said.final or ""], fits[said.final or ""] - others, float(named)]


def _of_pair(one: Parts, other: Parts) -> list[float]:
    first, second = one.final, other.final
    shared = [
        math.log1p(len(one.text)) - math.log1p(len(other.text)),
        0.0 if first is None or second is None else float(len(first) - len(second)),
        len(one.vocabulary & other.vocabulary) / max(1, len(one.vocabulary | other.vocabulary)),
        len(one.figures & other.figures) / max(1, len(one.figures | other.figures)),
    ]
    if first is None or second is None:
        return [
            math.nan,
            math.nan,
            0.0,
            math.nan,
            math.nan,
            math.nan,
            math.nan,
            *shared,
            math.nan,
            math.nan,
            math.nan,
            math.nan,
        ]
    plain_one, plain_other = (text.strip().strip("\"'`") for text in (one.stated or "", other.stated or ""))
    longest = max(len(first), len(second), 1)
    ratio = _ratio(first, second)
    return [
        float(first == second),
        float(plain_one == plain_other),
        1.0,
        float(ratio is not None and ratio < 0.02),
        _common(first, second) / longest,
        _common(first[::-1], second[::-1]) / longest,
        float(sorted(first) == sorted(second)),
        *shared,
        float(bool(plain_one) and plain_one.lower() in other.lower),
        float(bool(plain_other) and plain_other.lower() in one.lower),
        float(len(first) == len(second) == 1),
        math.nan if ratio is None else ratio,
    ]


def _ratio(one: str, other: str) -> float | None:
    """How far two numbers are apart, as a share of the larger one."""
    if not (_NUMERAL.fullmatch(one) and _NUMERAL.fullmatch(other)) or max(len(one), len(other)) > 15:
        return None
    first, second = float(one), float(other)
    return abs(first - second) / max(abs(first), abs(second), 1e-9)


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    for number, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return number
    return min(len(one), len(other))
