"""Labelled answers to learn from, and how they are read from JSON lines."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX, AmountInvalid, nanos_from_usd

from farthing_router.calibration.answers import PROMPT_CHARACTERS_MAX, BoughtAnswer, bounded, prompt_text

EXAMPLES_MAX = 200_000
ANSWERS_MAX = 32
TEXT_CHARACTERS_MAX = 20_000
LINE_BYTES_MAX = 4 * 2**20
_LOGPROBS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleAnswer(BoughtAnswer):
    """A model's answer with what is known of it: its quality, 0 to 1, and what it cost (None: not known, price the tokens first)."""

    score: float
    cost_usd_nanos: int | None = None
    input_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with the labelled answers of several models. `key` is the same for the same prompt, however often it occurs."""

    key: str
    prompt: str
    task: str
    answers: Mapping[str, ExampleAnswer]


def example(prompt: str, answers: Mapping[str, ExampleAnswer], *, task: str = "") -> Example:
    """An example under the key of its prompt."""
    text = bounded(prompt, PROMPT_CHARACTERS_MAX)
    return Example(hashlib.blake2b(prompt.encode(errors="replace"), digest_size=12).hexdigest(), text, task, answers)


def read_examples(lines: Iterable[str | bytes]) -> list[Example]:
    """Examples from JSON lines; empty lines are passed over.

    Raises FieldInvalid that names the line and the field, for the first line that is none and where there are more than EXAMPLES_MAX.
    """
    examples: list[Example] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(examples) == EXAMPLES_MAX:
            raise FieldInvalid(field=f"line {number}", problem=f"at most {EXAMPLES_MAX} examples are read")
        examples.append(_example(line, f"line {number}"))
    return examples


def _example(line: str | bytes, where: str) -> Example:
    if len(line) > LINE_BYTES_MAX:
        raise FieldInvalid(field=where, problem=f"longer than {LINE_BYTES_MAX} bytes")
    try:
        row: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise FieldInvalid(field=where, problem="not JSON") from error
    if not isinstance(row, dict):
        raise FieldInvalid(field=where, problem="must be an object")
    _only(row, {"prompt", "messages", "task", "answers"}, where)
    answers = row.get("answers")
    if not isinstance(answers, dict) or not 1 <= len(answers) <= ANSWERS_MAX:
        raise FieldInvalid(field=f"{where}: answers", problem=f"must be an object of 1 to {ANSWERS_MAX} models")
    task = row.get("task", "")
    if not isinstance(task, str) or len(task) > 64:
        raise FieldInvalid(field=f"{where}: task", problem="must be a text of at most 64 characters")
    return example(
        _prompt(row, where),
        {model: _answer(value, f"{where}: answers.{model[:64]}") for model, value in answers.items()},
        task=task,
    )


def _prompt(row: Mapping[str, Any], where: str) -> str:
    if ("prompt" in row) == ("messages" in row):
        raise FieldInvalid(field=f"{where}: prompt", problem="exactly one of prompt and messages must be given")
    if "prompt" in row:
        prompt = row["prompt"]
    else:
        turns = row["messages"]
        if not isinstance(turns, list) or not all(
            isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns
        ):
            raise FieldInvalid(field=f"{where}: messages", problem="must be a list of objects whose content is text")
        prompt = prompt_text(turns)
    if not isinstance(prompt, str) or not prompt.strip():
        raise FieldInvalid(field=f"{where}: prompt", problem="must be a text that is not empty")
    return prompt


def _answer(value: Any, where: str) -> ExampleAnswer:
    if not isinstance(value, dict):
        raise FieldInvalid(field=where, problem="must be an object")
    known = {"text", "score", "cost_usd", "cost_usd_nanos", "input_tokens", "output_tokens", "finish_reason", "logprobs"}
    _only(value, known, where)
    text, finish = value.get("text"), value.get("finish_reason", "stop")
    if not isinstance(text, str):
        raise FieldInvalid(field=f"{where}.text", problem="must be a text")
    if not isinstance(finish, str) or len(finish) > 64:
        raise FieldInvalid(field=f"{where}.finish_reason", problem="must be a text of at most 64 characters")
    return ExampleAnswer(
        text=bounded(text, TEXT_CHARACTERS_MAX),
        finish_reason=finish,
        score=_score(value.get("score"), where),
        cost_usd_nanos=_cost(value, where),
        input_tokens=_tokens(value, "input_tokens", where),
        output_tokens=_tokens(value, "output_tokens", where),
        mean_logprob=_mean_logprob(value.get("logprobs"), where),
    )


def _score(value: Any, where: str) -> float:
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise FieldInvalid(field=f"{where}.score", problem="must be true, false or a number from 0 to 1")
    return float(value)


def _cost(value: Mapping[str, Any], where: str) -> int | None:
    if value.get("cost_usd_nanos") is not None:
        nanos = value["cost_usd_nanos"]
        if isinstance(nanos, bool) or not isinstance(nanos, int) or not 0 <= nanos <= NANOS_MAX:
            raise FieldInvalid(field=f"{where}.cost_usd_nanos", problem=f"must be a whole number from 0 to {NANOS_MAX}")
        return nanos
    usd = value.get("cost_usd")
    if usd is None:
        return None
    try:
        if isinstance(usd, bool):
            raise AmountInvalid(amount=usd)
        return nanos_from_usd(Decimal(repr(usd)) if isinstance(usd, float) else usd)
    except AmountInvalid as error:
        raise FieldInvalid(field=f"{where}.cost_usd", problem="must be an amount of dollars") from error


def _tokens(value: Mapping[str, Any], name: str, where: str) -> int | None:
    tokens = value.get(name)
    if tokens is None:
        return None
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens <= 2**31:
        raise FieldInvalid(field=f"{where}.{name}", problem="must be a whole number of tokens")
    return tokens


def _mean_logprob(value: Any, where: str) -> float | None:
    """From a list of the tokens' log-probabilities, or from their mean alone."""
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    sound = all(
        isinstance(each, int | float) and not isinstance(each, bool) and each <= 0 and math.isfinite(each) for each in values
    )
    if not values or len(values) > _LOGPROBS_MAX or not sound:
        raise FieldInvalid(field=f"{where}.logprobs", problem="must be log-probabilities, none above 0, or their mean")
    return sum(values) / len(values)


def _only(row: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in row:
        if name not in known:
            raise FieldInvalid(field=f"{where}: {str(name)[:64]}", problem="is not a known field")
