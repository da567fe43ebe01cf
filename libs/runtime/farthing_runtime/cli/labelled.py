"""Labelled answers from files, as `farthing calibrate` sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farthing_runtime.settings import SettingsInvalid

PART = 100
"""Examples a message: small enough that a server that takes them in stays smooth."""
_NUMBERS = {"score", "cost_usd_nanos", "input_tokens", "output_tokens"}
_FIELDS = _NUMBERS | {"text", "cost_usd", "finish_reason", "logprobs"}


def read_labelled(path: Path) -> list[Any]:
    """Examples of a JSON lines file (`prompt` or `messages`, `answers` by model), or made of recorded answers that were marked right or
    wrong: a JSON lines file or a folder as `farthing replay` takes them. Raises SettingsInvalid and RecordingInvalid, naming the line.
    """
    if path.is_dir() or _is_recordings(path):
        return _from_recordings(path)
    with path.open(encoding="utf-8") as lines:
        return [_example(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def parts(examples: list[Any]) -> Iterator[Any]:
    """Messages of at most PART examples."""
    from farthing.router.v1 import router_pb2

    for start in range(0, len(examples), PART):
        part = router_pb2.CalibrateCascadeRequest.Examples(examples=examples[start : start + PART])
        yield router_pb2.CalibrateCascadeRequest(examples=part)


def _is_recordings(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as lines:
            first = next((line for line in lines if line.strip() and not line.startswith("#")), "{}")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(field=str(path), problem="cannot be read as text") from error
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and "answers" not in row and {"model", "answer"} <= row.keys()


def _from_recordings(path: Path) -> list[Any]:
    from farthing.router.v1 import router_pb2

    from farthing_runtime.replay.answers import read_recordings

    recordings, made = read_recordings(path), dict[str, Any]()
    for model in recordings.models:
        for each in recordings.all_of(model):
            if each.correct is None:
                continue
            example = made.setdefault(each.prompt, router_pb2.CalibrationExample(prompt=each.prompt))
            example.answers.add(
                model=model,
                text=each.answer,
                score=float(each.correct),
                input_tokens=each.input_tokens,
                output_tokens=each.output_tokens,
                finish_reason=each.finish_reason,
            )
    if not made:
        raise SettingsInvalid(field=str(path), problem="says of no answer whether it is correct")
    return list(made.values())


def _example(line: str, where: str) -> Any:
    from farthing.router.v1 import router_pb2

    try:
        row = json.loads(line)
    except ValueError as error:
        raise SettingsInvalid(field=where, problem="is not JSON") from error
    if not isinstance(row, dict) or not isinstance(row.get("answers"), dict):
        raise SettingsInvalid(field=where, problem="must be an object with a prompt and answers by model")
    if unknown := row.keys() - {"prompt", "messages", "task", "answers"}:
        raise SettingsInvalid(field=f"{where}: {sorted(unknown)[0]}", problem="is not a known field")
    made = router_pb2.CalibrationExample(prompt=_prompt(row, where), task=_of(row, "task", str, where, ""))
    for model, answer in row["answers"].items():
        made.answers.append(_answer(model, answer, f"{where}: answers.{model}"))
    return made


def _prompt(row: dict[str, Any], where: str) -> str:
    """The prompt, or the conversation as the router reads one: a lone message as it is, else each with its role before it."""
    if "messages" not in row:
        return str(_of(row, "prompt", str, where))
    turns = _of(row, "messages", list, where)
    if not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
        raise SettingsInvalid(field=f"{where}: messages", problem="must be a list of objects whose content is text")
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n\n".join(f"{turn.get('role', 'user')}: {turn['content']}" for turn in turns if turn["content"])


def _answer(model: str, given: Any, where: str) -> Any:
    from farthing.router.v1 import router_pb2
    from farthing_core.errors import FarthingError
    from farthing_core.money import nanos_from_usd

    if not isinstance(given, dict):
        raise SettingsInvalid(field=where, problem="must be an object")
    if unknown := given.keys() - _FIELDS:
        raise SettingsInvalid(field=f"{where}.{sorted(unknown)[0]}", problem="is not a known field")
    if not isinstance(given.get("score"), bool | int | float):
        raise SettingsInvalid(field=f"{where}.score", problem="must be true, false or a number from 0 to 1")
    made = router_pb2.ExampleAnswer(model=model, text=_of(given, "text", str, where), score=float(given["score"]))
    made.finish_reason = _of(given, "finish_reason", str, where, "")
    for name in ("cost_usd_nanos", "input_tokens", "output_tokens"):
        setattr(made, name, _of(given, name, int, where, 0))
    if given.get("cost_usd") is not None:
        try:
            made.cost_usd_nanos = nanos_from_usd(str(given["cost_usd"]))
        except FarthingError as error:
            raise SettingsInvalid(field=f"{where}.cost_usd", problem="must be an amount of dollars") from error
    if given.get("logprobs") is not None:
        values = given["logprobs"] if isinstance(given["logprobs"], list) else [given["logprobs"]]
        if not values or not all(isinstance(each, int | float) for each in values):
            raise SettingsInvalid(field=f"{where}.logprobs", problem="must be log-probabilities, or their mean")
        made.mean_logprob = sum(values) / len(values)
    return made


def _of(row: dict[str, Any], name: str, kind: type, where: str, otherwise: Any = None) -> Any:
    value = row.get(name)
    if value is None and otherwise is not None:
        return otherwise
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {str: "text", int: "a whole number", list: "a list"}
        raise SettingsInvalid(field=f"{where}: {name}", problem=f"must be {words[kind]}")
    return value
