"""Calibrations from the shell, through real processes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FARTHING = str(Path(sys.executable).parent / "farthing")
SCOPE = ("--scope", "organizations/acme")


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "240", "FARTHING_ADDRESS": served.grpc}
    command = [FARTHING, "calibrate", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def write_examples(path: Path, count: int) -> None:
    """Sums that the small model gets wrong where they are long, and hedges about."""
    chance, lines = random.Random(5), []
    for number in range(count):
        hard = chance.random() < 0.4
        prompt = f"Sum {number}: {' + '.join(str(chance.randrange(1, 9)) for _ in range(12 if hard else 2))}"
        right = not hard or chance.random() < 0.2
        small = {"text": "The answer is 7" if right else "I'm not sure. The answer is 8", "score": right}
        large = {"text": "The answer is 7", "score": True, "cost_usd": 0.001}
        lines.append(json.dumps({"prompt": prompt, "answers": {"small": {**small, "cost_usd_nanos": 20_000}, "large": large}}))
    path.write_text("\n".join(lines) + "\n\n")


def test_a_cascade_is_fitted_shown_put_in_force_and_taken_out_from_the_shell(serve: Any, tmp_path: Path) -> None:
    served, path = serve("router"), tmp_path / "labelled.jsonl"
    write_examples(path, 120)
    fit = ("--data", str(path), "--strong", "large", "--opening", "small", *SCOPE)
    dry = farthing(served, *fit, "--save", "0.2", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "(not kept)" in dry.stdout
    assert "at least 20 % of large's bill saved" in dry.stdout
    made = farthing(served, *fit, "--save", "0.3", "--task", "sums")
    assert made.returncode == 0, made.stderr
    (calibration_id,) = set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", made.stdout))
    assert f"farthing calibrate activate {calibration_id}" in made.stderr
    assert "what other thresholds would give" in made.stdout
    active = farthing(served, "activate", calibration_id, *SCOPE)
    assert active.stdout.strip() == f"{calibration_id} is in force for organizations/acme, task sums"
    listed = farthing(served, "list", *SCOPE)
    assert calibration_id in listed.stdout
    assert "active" in listed.stdout
    shown = farthing(served, "show", calibration_id, *SCOPE)
    assert "asks" in shown.stdout
    assert "small; then large" in shown.stdout
    out = farthing(served, "deactivate", "--task", "sums", *SCOPE)
    assert out.stdout.strip() == "none is in force for organizations/acme, task sums"
    assert calibration_id in out.stderr


def test_recorded_answers_that_were_marked_are_labels(serve: Any, tmp_path: Path) -> None:
    served, path, rows = serve("router"), tmp_path / "recorded.jsonl", []
    for number in range(90):
        for model, right in (("small", number % 3 > 0), ("large", True)):
            answer = "The answer is 7" if right else "I'm not sure"
            row = {"model": model, "prompt": f"Sum {number}", "answer": answer, "input_tokens": 9, "output_tokens": 5}
            rows.append(json.dumps({**row, "correct": right}))
    path.write_text("\n".join(rows))
    made = farthing(served, "--data", str(path), "--strong", "large", "--opening", "small", "--save", "0.2", "--dry-run")
    assert made.returncode == 0, made.stderr
    assert "the cost of 180 answers was reckoned from tokens at today's prices" in made.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "labelled.jsonl:1: is not JSON"),
        ('{"prompt": "x", "answers": {"small": {"text": "y"}}}', "labelled.jsonl:1: answers.small.score: must be true, false"),
        (
            '{"prompt": "x", "answers": {"small": {"text": "y", "score": 1, "colour": 2}}}',
            "answers.small.colour: is not a known field",
        ),
        ('{"prompt": 7, "answers": {"small": {"text": "y", "score": 1}}}', "labelled.jsonl:1: prompt: must be text"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text(line)
    served = type("Nowhere", (), {"grpc": "127.0.0.1:1"})
    failed = farthing(served, "--data", str(path), "--strong", "large", "--save", "0.2")
    assert failed.returncode == 2
    assert said in failed.stderr


def test_what_a_fit_refuses_is_one_line_that_says_why(serve: Any, tmp_path: Path) -> None:
    served, path = serve("router"), tmp_path / "labelled.jsonl"
    write_examples(path, 70)
    fit = ("--data", str(path), "--strong", "large", "--opening", "small", *SCOPE)
    small = farthing(served, *fit, "--keep", "0.995")
    assert small.returncode == 2
    said = re.search(r"70 labelled examples cannot support this promise; about (\d+) would", small.stderr)
    assert said is not None
    assert int(said[1]) >= 105
    unreachable = farthing(served, *fit, "--save", "0.999")
    assert unreachable.returncode == 2
    assert "no threshold reaches this target; the best is" in unreachable.stderr
    both = farthing(served, *fit, "--save", "0.2", "--keep", "0.9")
    assert "give --keep, --save or --usd-per-point: one of them" in both.stderr


def test_a_refusal_that_comes_while_examples_are_still_being_sent_says_why(serve: Any, tmp_path: Path) -> None:
    served, path = serve("router"), tmp_path / "labelled.jsonl"
    write_examples(path, 3_000)
    failed = farthing(served, "--data", str(path), "--strong", "ghost", "--save", "0.2", *SCOPE)
    assert failed.returncode == 2
    assert "'ghost' is not in the catalog" in failed.stderr
    write_examples(path, 40)
    few = farthing(served, "--data", str(path), "--strong", "large", "--save", "0.2", *SCOPE)
    assert "large: 40 examples have its answer and one of a cheaper model, 60 are the least" in few.stderr
