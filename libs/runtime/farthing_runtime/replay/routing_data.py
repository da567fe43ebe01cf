"""Adapters to two published collections of models' answers, kept as pairs of parquet files (questions, outputs).

ZeroEval: `zeroeval_questions` (task, id, question) and `zeroeval_outputs` (task, id, model, response, answer, correct, in_tok, out_tok,
cost_usd). MMLU-Pro: `mmlupro_questions` (question_id, question, options) and `mmlupro_outputs` (question_id, model, response, pred,
correct, in_tok, out_tok); its prompt is the question with its options on lines of their own, lettered from A.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farthing_runtime.replay.answers import Recorded, RecordingInvalid


def read_routing_data(folder: Path) -> Iterator[Recorded]:
    """Every recorded answer of the collections in a folder. Raises RecordingInvalid when there is none, or a column is missing."""
    found = False
    for name, read in (("zeroeval", read_zeroeval), ("mmlupro", read_mmlupro)):
        if (folder / f"{name}_questions.parquet").is_file() and (folder / f"{name}_outputs.parquet").is_file():
            found = True
            yield from read(folder)
    if not found:
        raise RecordingInvalid(
            where=str(folder), problem="holds neither zeroeval_ nor mmlupro_questions.parquet with its outputs"
        )


def read_zeroeval(folder: Path) -> Iterator[Recorded]:
    """ZeroEval's answers."""
    columns = ("task", "id", "question")
    questions = {(row["task"], row["id"]): row["question"] for row in _rows(folder / "zeroeval_questions.parquet", columns)}
    for row in _rows(folder / "zeroeval_outputs.parquet", ("task", "id", "model", "response", "correct", "in_tok", "out_tok")):
        prompt = questions.get((row["task"], row["id"]))
        if prompt is not None:
            yield _recorded(row, prompt)


def read_mmlupro(folder: Path) -> Iterator[Recorded]:
    """MMLU-Pro's answers."""
    columns = ("question_id", "question", "options")
    questions = {row["question_id"]: mmlupro_prompt(row) for row in _rows(folder / "mmlupro_questions.parquet", columns)}
    for row in _rows(folder / "mmlupro_outputs.parquet", ("question_id", "model", "response", "correct", "in_tok", "out_tok")):
        prompt = questions.get(row["question_id"])
        if prompt is not None:
            yield _recorded(row, prompt)


def mmlupro_prompt(row: dict[str, Any]) -> str:
    """A question with its lettered options."""
    options = json.loads(row["options"]) if isinstance(row["options"], str) else row["options"]
    options = [f"{chr(65 + number)}. {option}" for number, option in enumerate(options)]
    return "\n".join([row["question"].strip(), *options])


def _recorded(row: dict[str, Any], prompt: str) -> Recorded:
    return Recorded(
        model=row["model"],
        prompt=prompt,
        answer=row["response"] or "",
        input_tokens=int(row["in_tok"]),
        output_tokens=int(row["out_tok"]),
        correct=bool(row["correct"]),
    )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise RecordingInvalid(
            where=str(path), problem="reading parquet needs pyarrow: install farthing-runtime[replay]"
        ) from error
    try:
        table = pyarrow.parquet.read_table(path, columns=list(columns))
    except (OSError, pyarrow.ArrowException) as error:
        raise RecordingInvalid(where=str(path), problem=str(error)) from error
    if missing := set(columns) - set(table.column_names):
        raise RecordingInvalid(where=str(path), problem=f"has no column {sorted(missing)[0]}")
    for batch in table.to_batches(max_chunksize=2048):
        yield from batch.to_pylist()
