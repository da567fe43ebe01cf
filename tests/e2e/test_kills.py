"""A ledger that is killed in the middle of its work knows afterwards what everybody was told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_case_13_nothing_acknowledged_is_lost_or_doubled_by_kills_of_the_ledger_and_of_its_postgres() -> None:
    command = [sys.executable, "-m", "evals.kills", "--kills", "10", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["kills"] == 10
    assert figures["acknowledged"] > 100
    assert figures["unanswered"] > 0
    assert [figures[name] for name in ("lost", "doubled", "halves", "contradictions", "differences")] == [0] * 5
