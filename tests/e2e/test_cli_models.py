"""Models and deployments from the shell, against a real process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FARTHING = str(Path(sys.executable).parent / "farthing")


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "240", "FARTHING_ADDRESS": served.grpc}
    return subprocess.run([FARTHING, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_models_are_listed_and_shown_and_deployments_are_weighed_and_taken_out_of_use(serve: Any) -> None:
    served = serve("router")
    assert re.search(r"small .*replay .* 1 .*0\.15", farthing(served, "models", "list").stdout)
    shown = farthing(served, "models", "show", "small").stdout
    assert re.search(r"replay/small .*127\.0\.0\.1:\d+ .* 1 .* healthy", shown)
    weighed = farthing(served, "models", "deployment", "replay/small", "--weight", "2.5")
    assert re.search(r"replay/small .* 2\.5 .* healthy", weighed.stdout), weighed.stderr
    refused = farthing(served, "models", "deployment", "replay/small", "--disable")
    assert (refused.returncode, "last deployment of small" in refused.stderr) == (2, True), refused.stdout + refused.stderr
    assert farthing(served, "models", "deployment", "replay/small").returncode == 2
    assert "ghost" in farthing(served, "models", "show", "ghost").stderr
