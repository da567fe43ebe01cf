"""Experiments from the shell, through real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FARTHING = str(Path(sys.executable).parent / "farthing")
CANARY = """\
scope: organizations/acme
task: chat
display_name: cheaper chat
kind: canary
metric: quality
arms:
  - {name: usual, as_usual: true}
  - {name: rule, action: {strategy: cheapest, models: [small, large]}}
harm_max: 0.05
end_time: 2099-01-01
"""
SCOPE = ("--scope", "organizations/acme")


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "240", "FARTHING_ADDRESS": served.grpc}
    return subprocess.run(
        [FARTHING, "experiments", *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_an_experiment_is_begun_from_a_file_listed_shown_and_stopped(serve: Any, tmp_path: Path) -> None:
    served, path = serve("router"), tmp_path / "canary.yaml"
    path.write_text(CANARY)
    begun = farthing(served, "create", "--file", str(path))
    assert begun.returncode == 0, begun.stderr
    name = begun.stdout.strip()
    assert re.search(
        rf"{name}.*cheaper chat.*chat.*canary.*quality.*usual, rule.*running", farthing(served, "list", *SCOPE).stdout
    )
    shown = farthing(served, "show", name, *SCOPE).stdout
    assert re.search(r"usual .* 99% .* 0 ", shown)
    assert re.search(r"rule .* 1% .* 0 ", shown)
    assert "0.000000" not in shown
    stopped = farthing(served, "stop", name, *SCOPE, "--reason", "the launch").stdout
    assert "stopped by hand: the launch" in stopped
    assert name not in farthing(served, "list", *SCOPE, "--state", "running").stdout


@pytest.mark.parametrize(
    ("line", "other", "named"),
    [
        ("kind: canary", "kind: parrot", "'parrot' is none of ab, shadow, canary"),
        ("task: chat", "tusk: chat", "tusk"),
        ("models: [small, large]", "models: [gone]", "experiment.arms[1].action.models[0]"),
        ("end_time: 2099-01-01", "end_time: someday", "someday"),
        (CANARY, "- just a list", "is no experiment"),
    ],
)
def test_what_cannot_be_an_experiment_ends_with_one_line_that_names_it(
    serve: Any, tmp_path: Path, line: str, other: str, named: str
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(CANARY.replace(line, other))
    done = farthing(serve("router"), "create", "--file", str(path))
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
