"""A Node client from the protos does a Complete."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_a_node_client_completes(serve: Any, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        reason = "node and npm are not installed"
        assert os.environ.get("FARTHING_TEST_SKIPS_FAIL") != "1", reason
        pytest.skip(reason)
    folder = tmp_path / "node"
    shutil.copytree(ROOT / "tests" / "e2e" / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True, timeout=100)
    command = ["node", "complete.js", serve().grpc, str(ROOT / "protos"), str(ROOT / "third_party" / "protos")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"] == "small"
    assert answer["answer"]["content"].startswith("Open Settings")
