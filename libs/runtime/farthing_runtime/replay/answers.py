"""Recorded answers by (model, prompt), from JSON lines or from the parquet layouts of `routing_data`.

A line of a JSON lines file is an object: `model`, `prompt` and `answer` (text), `input_tokens` and `output_tokens` (whole numbers), and
if it is known `latency_ms`, `finish_reason` ("stop"), `tool_calls` (OpenAI's list) and `correct` (true or false). Lines that begin with
`#` and empty lines are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farthing_core.errors import FarthingError


class RecordingInvalid(FarthingError):
    """A file of recorded answers that cannot be read: where, and why."""

    def __init__(self, *, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}", where=where)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded answer; `correct` is None where nobody said."""

    model: str
    prompt: str
    answer: str
    input_tokens: int
    output_tokens: int
    latency_ms: float = 0.0
    finish_reason: str = "stop"
    tool_calls: Any = None
    correct: bool | None = None


class Recordings:
    """Recorded answers, looked up by model and prompt. How much white space a prompt has, and where, does not matter."""

    def __init__(self, answers: Iterable[Recorded]) -> None:
        self._answers: dict[tuple[str, str], Recorded] = {}
        for each in answers:
            self._answers[each.model, _words(each.prompt)] = each
        self.models = sorted({model for model, _ in self._answers})

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, model: str, prompt: str) -> Recorded | None:
        """The recorded answer of a model to a prompt."""
        return self._answers.get((model, _words(prompt)))

    def all_of(self, model: str) -> list[Recorded]:
        """Everything recorded of a model, in the order in which it was recorded."""
        return [each for (name, _), each in self._answers.items() if name == model]


def _words(prompt: str) -> str:
    """A prompt as it is looked up: a clean-up of its white space on the way here must not lose the recording."""
    return " ".join(prompt.split())


def read_recordings(path: Path) -> Recordings:
    """The answers recorded in a JSON lines file, or in a folder with the parquet files of `routing_data`. Raises RecordingInvalid."""
    if path.is_dir():
        from farthing_runtime.replay.routing_data import read_routing_data

        return Recordings(read_routing_data(path))
    if path.suffix == ".parquet":
        raise RecordingInvalid(where=str(path), problem="give the folder that holds the parquet files of questions and outputs")
    return Recordings(_read_lines(path))


def _read_lines(path: Path) -> Iterator[Recorded]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingInvalid(where=str(path), problem=str(error)) from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            yield _recorded(line, f"{path.name}:{number}")


def _recorded(line: str, where: str) -> Recorded:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordingInvalid(where=where, problem=f"is not JSON: {error.msg}") from error
    if not isinstance(given, dict):
        raise RecordingInvalid(where=where, problem="must be an object")
    for name, kind in (("model", str), ("prompt", str), ("answer", str), ("input_tokens", int), ("output_tokens", int)):
        if not isinstance(given.get(name), kind):
            raise RecordingInvalid(where=where, problem=f"{name} must be {'text' if kind is str else 'a whole number'}")
    if unknown := given.keys() - Recorded.__dataclass_fields__.keys():
        raise RecordingInvalid(where=where, problem=f"unknown field {sorted(unknown)[0]}")
    return Recorded(**given)
