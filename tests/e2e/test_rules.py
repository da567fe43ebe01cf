"""Routing rules and explanations from the shell, through real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FARTHING = str(Path(sys.executable).parent / "farthing")
SCOPE = ("--scope", "organizations/acme")
RULE = """\
scope: organizations/acme
display_name: captions
match: {tasks: ["caption*"], optimize_for: [cost]}
action: {strategy: cheapest, models: [small, large], calls_max: 2}
"""


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "240", "FARTHING_ADDRESS": served.grpc}
    return subprocess.run([FARTHING, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_a_rule_is_kept_from_a_file_listed_explained_changed_and_deleted(serve: Any, tmp_path: Path) -> None:
    served, path = serve("router"), tmp_path / "rule.yaml"
    path.write_text(RULE)
    kept = farthing(served, "rules", "set", "--file", str(path))
    assert kept.returncode == 0, kept.stderr
    name = kept.stdout.split()[0]
    assert kept.stdout.split()[1:] == ["version", "1"]
    assert re.search(
        rf"{name}.*captions.*tasks caption\*; optimize_for cost.*cheapest; models small, large; calls_max 2.*in use",
        farthing(served, "rules", "list", *SCOPE).stdout,
    )
    asked = ("route", "explain", "A caption for a cat", *SCOPE, "--task", "caption", "--optimize-for", "cost")
    said = farthing(served, *asked).stdout
    assert "rule captions" in said
    assert re.search(r"✓ .* small .* is asked first", said)
    assert "complexity" in said
    path.write_text(RULE.replace("cheapest", "quality"))
    assert farthing(served, "rules", "set", "--file", str(path), "--rule-id", name).stdout.split()[1:] == ["version", "2"]
    stale = farthing(served, "rules", "set", "--file", str(path), "--rule-id", name, "--version", "1")
    assert (stale.returncode, "newest version" in stale.stderr) == (2, True)
    assert re.search(r"✓ .* large .* is asked first", farthing(served, *asked).stdout)
    assert "version 3" in farthing(served, "rules", "delete", name, *SCOPE).stdout
    history = farthing(served, "rules", "show", name, *SCOPE).stdout
    assert history.index("quality;") < history.index("deleted") < history.index("cheapest;")
    assert name not in farthing(served, "rules", "list", *SCOPE).stdout


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("- a list", "is no rule"),
        ("scope: organizations/acme\naction: {strategy: best}", "action.strategy"),
        ("scope: organizations/acme\naction: {strategy: cheapest}\ncolour: red", "colour"),
        ("scope: organizations/acme\naction: {strategy: cheapest, models: [ghost]}", "rule.action.models"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_that_is_no_rule_is_refused_by_what_is_wrong(serve: Any, tmp_path: Path, written: str, named: str) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text(written)
    refused = farthing(serve("router"), "rules", "set", "--file", str(path))
    assert (refused.returncode, named in refused.stderr) == (2, True), refused.stderr
