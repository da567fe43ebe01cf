"""How far automatic scores agree with recorded truth.

    python -m evals.quality --data DIR [--answers 6000]

Answers whose correctness was recorded are scored by the code that serves: alone ("uncalibrated"), with what another model said ("with a
second answer"), and after so many opinions ("calibrated", fitted on other questions than those judged). Reported is Pearson's correlation
with correctness, answer by answer, for each collection and its first tasks; Spearman's; and that of the means of models at tasks.
Correctness is 0 or 1, so that even a score that knew every answer's true chance would stay well under 1: the row "ceiling" has the
correlation of such a score, were the fitted chances true.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.forest import Floats
from farthing_router.learning.fitted_scores import fit_scores
from farthing_router.learning.metrics import Answered
from farthing_router.learning.outcomes import Labelled
from farthing_router.learning.scoring import scored
from farthing_router.learning.trends import ranks
from farthing_runtime.replay.routing_data import mmlupro_prompt

from evals.report import print_figures, print_table

OPINIONS = (100, 300, 1_000)
_REPEATS = 3
_SEED = 7
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """An answer: of which collection and task, to which question, by whom, and whether it is right."""

    collection: str
    task: str
    question: str
    model: str
    prompt: str
    text: str
    truth: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Rows with their scores: by rules alone, by rules with a second answer, and the features of each."""

    rows: Sequence[Row]
    truth: Floats
    alone: Floats
    paired: Floats
    features: Floats


def read_rows(folder: Path) -> Iterator[Row]:
    """Every answer whose quality was recorded: right or wrong, and MT-bench's ten points."""
    if (folder / "zeroeval_outputs.parquet").is_file():
        prompts = {(row["task"], row["id"]): row["question"] for row in _table(folder / "zeroeval_questions.parquet")}
        for row in _table(folder / "zeroeval_outputs.parquet"):
            prompt = prompts.get((row["task"], row["id"]), "")
            yield Row("zeroeval", row["task"], row["id"], row["model"], prompt, row["response"] or "", float(row["correct"]))
    if (folder / "mmlupro_outputs.parquet").is_file():
        questions = {row["question_id"]: row for row in _table(folder / "mmlupro_questions.parquet")}
        for row in _table(folder / "mmlupro_outputs.parquet"):
            asked = questions[row["question_id"]]
            name, prompt = str(row["question_id"]), mmlupro_prompt(asked)
            yield Row("mmlupro", asked["category"], name, row["model"], prompt, row["response"] or "", float(row["correct"]))
    if (folder / "routellm_gsm8k.parquet").is_file():
        for number, row in enumerate(_table(folder / "routellm_gsm8k.parquet")):
            for model in ("mixtral-8x7b", "gpt-4-1106"):
                right, text = float(row[f"{model}_correct"]), row[f"{model}_response"] or ""
                yield Row("gsm8k", "gsm8k", str(number), model, row["question"], text, right)
    if (folder / "routellm_mtbench.parquet").is_file():
        for row in _table(folder / "routellm_mtbench.parquet"):
            name = f"{row['question_id']}/{row['turn']}"
            yield Row("mtbench", "prose", name, row["model"], row["question"], row["response"], (row["score"] - 1) / 9)


def measured(rows: Sequence[Row], *, answers: int, rng: np.random.Generator) -> Measured:
    """Scores a sample of the questions' answers, each alone and beside what another model said."""
    by_question: dict[str, list[Row]] = {}
    for row in rows:
        by_question.setdefault(f"{row.task}/{row.question}", []).append(row)
    questions = sorted(by_question)
    rng.shuffle(questions)
    chosen: list[Row] = []
    alone, paired, features = [], [], []
    for question in questions:
        if len(chosen) >= answers:
            break
        for row in by_question[question]:
            others = [other.text for other in by_question[question] if other is not row]
            given = Answered(prompt=row.prompt, answer=BoughtAnswer(text=row.text, finish_reason="stop"))
            score = scored(given, fitted=None, task=row.task)
            beside = replace(given, others=[others[int(rng.integers(len(others)))]] if others else [])
            chosen.append(row)
            alone.append(score.value)
            both = scored(beside, fitted=None, task=row.task)
            paired.append(both.value)
            features.append(np.concatenate([score.features, both.features[: len(both.features)]]))
    return Measured(chosen, np.array([row.truth for row in chosen]), np.array(alone), np.array(paired), np.stack(features))


def calibrated(data: Measured, opinions: int, *, beside: bool, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Scores of the answers to half of the questions after so many opinions on the other half, and the variance of a right or wrong
    answer at that chance; NaN for the half with opinions."""
    half = data.features.shape[1] // 2
    features = data.features[:, half:] if beside else data.features[:, :half]
    questions = [f"{row.task}/{row.question}" for row in data.rows]
    different = sorted(set(questions))
    learns = set(rng.permutation(different)[: len(different) // 2].tolist())
    pool = rng.permutation([number for number, question in enumerate(questions) if question in learns])
    scores = np.full(len(questions), np.nan)
    fitted = fit_scores([_labelled(data, int(number), features) for number in pool[:opinions]])
    if fitted is not None and opinions <= len(pool):
        for number in (number for number, question in enumerate(questions) if question not in learns):
            scores[number] = fitted.value(features[number], data.rows[number].task)
    return scores, scores * (1 - scores)


def pearson(one: Floats, other: Floats) -> float:
    """Pearson's correlation of what is known of both; NaN where one side does not vary."""
    seen = np.isfinite(one) & np.isfinite(other)
    if seen.sum() < 20 or one[seen].std() < 1e-9 or other[seen].std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(one[seen], other[seen])[0, 1])


def means_of_models(data: Measured, scores: Floats) -> tuple[list[float], list[float]]:
    """The mean score and the mean truth of each model at each task."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(data.rows):
        if np.isfinite(scores[number]):
            groups.setdefault((row.task, row.model), []).append(number)
    kept = [numbers for numbers in groups.values() if len(numbers) >= 20]
    return [float(scores[numbers].mean()) for numbers in kept], [float(data.truth[numbers].mean()) for numbers in kept]


def main(arguments: Sequence[str]) -> int:
    """Runs the eval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=6_000)
    given = parser.parse_args(arguments)
    began, rng = time.monotonic(), np.random.default_rng(_SEED)
    collections: dict[str, list[Row]] = {}
    for row in read_rows(given.data):
        collections.setdefault(row.collection, []).append(row)
    table: list[tuple[object, ...]] = []
    figures: dict[str, float | int | None] = {}
    model_means: dict[str, tuple[list[float], list[float]]] = {}
    for name, rows in collections.items():
        data = measured(rows, answers=given.answers, rng=rng)
        scores = {"uncalibrated": [data.alone], "with a second answer": [data.paired]}
        ceiling: list[float] = []
        for opinions in OPINIONS:
            found = [calibrated(data, opinions, beside=False, rng=rng) for _ in range(_REPEATS)]
            scores[f"calibrated on {opinions}"] = [score for score, _ in found]
            both = [calibrated(data, opinions, beside=True, rng=rng) for _ in range(_REPEATS)]
            scores[f"calibrated on {opinions}, second answer"] = [score for score, _ in both]
            if np.isfinite(both[0][0]).any():
                ceiling = [float(np.nanstd(score) / np.sqrt(np.nanvar(score) + np.nanmean(spread))) for score, spread in both]
        for label, runs in scores.items():
            _report(table, figures, data, (name, label), runs)
            one, other = means_of_models(data, runs[0])
            ones, others = model_means.setdefault(label, ([], []))
            ones.extend(one)
            others.extend(other)
        if ceiling:
            table.append((name, "ceiling of a score that is right about chances", f"{np.mean(ceiling):.3f}", "", "", ""))
    print_table(("data", "score", "correlation", "rank correlation", "by task", "of models' means"), table)
    for label, (one, other) in model_means.items():
        figures[f"models_{_key(label)}"] = _rounded(pearson(np.array(one), np.array(other)))
    print(f"\n{given.answers} answers of each collection at most, {time.monotonic() - began:.0f} s")
    print_figures("quality", figures)
    return 0


def _report(
    table: list[tuple[object, ...]], figures: dict[str, Any], data: Measured, key: tuple[str, str], runs: Sequence[Floats]
) -> None:
    name, label = key
    found = [value for run in runs if np.isfinite(value := pearson(run, data.truth))]
    overall = float(np.mean(found)) if found else float("nan")
    seen = np.isfinite(runs[0])
    rank = pearson(ranks(runs[0][seen].tolist()), ranks(data.truth[seen].tolist())) if seen.any() else float("nan")
    tasks = np.array([row.task for row in data.rows])
    by_task = [
        f"{task} {pearson(runs[0][tasks == task], data.truth[tasks == task]):.2f}"
        for task in sorted(set(tasks.tolist()))[:5]
        if len(set(tasks.tolist())) > 1
    ]
    means = pearson(*(np.array(each) for each in means_of_models(data, runs[0]))) if seen.any() else float("nan")
    table.append((name, label, f"{overall:.3f}", f"{rank:.3f}", ", ".join(by_task), f"{means:.3f}"))
    figures[f"{name}_{_key(label)}"] = _rounded(overall)


def _labelled(data: Measured, number: int, features: Floats) -> Labelled:
    row = data.rows[number]
    return Labelled(row.task, row.model, None, float(data.truth[number]), features[number], _NOW)


def _table(path: Path) -> list[dict[str, Any]]:
    return list(pyarrow.parquet.read_table(path).to_pylist())


def _key(label: str) -> str:
    return label.replace("calibrated on ", "calibrated_").replace(", second answer", "_paired").replace(" ", "_")


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
