"""Recorded answers of real models as labelled examples: what `evals.routing` fits on and judges by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from farthing_router.calibration.examples import Example, ExampleAnswer, example

MIXTRAL, GPT4 = "mixtral-8x7b", "gpt-4-1106"


def read_zeroeval(folder: Path) -> list[Example] | None:
    """ZeroEval's mix of tasks; None where the folder lacks it. The task's name is not passed on: nothing may depend on it."""
    prompts = {(row["task"], row["id"]): row["question"] for row in _rows(folder, "zeroeval_questions")}
    answers = [((row["task"], row["id"]), row) for row in _rows(folder, "zeroeval_outputs")]
    return _examples(prompts, answers)


def read_mmlupro(folder: Path) -> list[Example] | None:
    """MMLU-Pro, each question with its lettered options; None where the folder lacks it."""
    prompts = {row["question_id"]: _lettered(row) for row in _rows(folder, "mmlupro_questions")}
    answers = [(row["question_id"], row) for row in _rows(folder, "mmlupro_outputs")]
    return _examples(prompts, answers)


def read_gsm8k(folder: Path) -> list[Example] | None:
    """RouteLLM's pair on GSM8K with both answers; None where the folder lacks it. Calls cost alike: the curve counts strong calls."""
    return _pairs(folder, "routellm_gsm8k", lambda row, model: row[f"{model}_response"])


def read_mmlu(folder: Path) -> list[Example] | None:
    """RouteLLM's pair on MMLU, without answers; None where the folder lacks it."""
    return _pairs(folder, "routellm_mmlu", lambda row, model: "")


def _pairs(folder: Path, name: str, text: Callable[[dict[str, Any], str], str]) -> list[Example] | None:
    made = []
    for row in _rows(folder, name):
        answers = {
            model: ExampleAnswer(text=text(row, model) or "", score=float(row[f"{model}_correct"]), cost_usd_nanos=cost)
            for model, cost in ((MIXTRAL, 0), (GPT4, 1_000_000))
        }
        made.append(example(row["question"], answers))
    return made or None


def _examples(prompts: dict[Any, str], rows: list[tuple[Any, dict[str, Any]]]) -> list[Example] | None:
    answers: dict[Any, dict[str, ExampleAnswer]] = {key: {} for key in prompts}
    for key, row in rows:
        if key in answers:
            answers[key][row["model"]] = ExampleAnswer(
                text=row["response"] or "",
                score=float(row["correct"]),
                cost_usd_nanos=round(row["cost_usd"] * 1e9),
                input_tokens=row["in_tok"],
                output_tokens=row["out_tok"],
            )
    return [example(prompt, answers[key]) for key, prompt in prompts.items() if answers[key]] or None


def _lettered(row: dict[str, Any]) -> str:
    options = json.loads(row["options"]) if isinstance(row["options"], str) else row["options"]
    return "\n".join([row["question"].strip(), *(f"{chr(65 + place)}. {option}" for place, option in enumerate(options))])


def _rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    path = folder / f"{name}.parquet"
    return iter(pyarrow.parquet.read_table(path).to_pylist()) if path.is_file() else iter(())


def embeddings_of(prompts: list[str], models_dir: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The unit vectors of prompts, as the cache makes them."""
    from farthing_cache.embedding.minilm import MiniLM

    return MiniLM.load(models_dir).encode(prompts).astype(np.float64)
