"""Performance, decisions and dependence on providers from the shell, in front of real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

FARTHING = str(Path(sys.executable).parent / "farthing")
EASY = "How do I reset my password?"
HARD = "Why does clause 7 of the contract not apply to resellers?"


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "260", "FARTHING_ADDRESS": served.grpc}
    return subprocess.run([FARTHING, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False)


def printed(served: Any, pattern: str, *arguments: str) -> str:
    """What a command prints, once that has what is waited for."""
    deadline = time.monotonic() + 60
    while True:
        done = farthing(served, *arguments)
        assert done.returncode == 0, done.stderr
        if re.search(pattern, done.stdout):
            return done.stdout
        assert time.monotonic() < deadline, done.stdout


def ask(served: Any, prompt: str) -> None:
    body = json.dumps({"model": "farthing/auto", "messages": [{"role": "user", "content": prompt}]}).encode()
    url = f"http://{served.http.removeprefix('http://').rstrip('/')}/v1/chat/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def test_what_was_asked_is_seen_in_performance_decisions_and_dependence(serve: Any) -> None:
    served = serve(FARTHING_ROUTER_PERFORMANCE_FLUSH_S="0.1", FARTHING_ROUTER_DECISIONS_FLUSH_S="0.1")
    ask(served, EASY)
    ask(served, HARD)
    assert re.search(r"replay .* large .* 1 ", printed(served, r"small .* 2 .* 0\.0%", "performance"))
    by_task = printed(served, "tokens/s", "performance", "--by", "model,task", "--from", _yesterday(), "--step", "24")
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:00 .* small", by_task)
    listed = printed(served, r"large .* escalated", "decisions", "list")
    assert listed.index("escalated") < listed.index("answered")
    assert re.search(r"cascade .* large .* 1 .* 50\.0%", printed(served, "large", "decisions", "summary"))
    assert re.search(r"replay .* 100\.00% .* 100\.00%", printed(served, "replay", "diversification"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("performance", "--by", "colour"), "colour"),
        (("performance", "--from", "yesterday"), "yesterday"),
        (("decisions", "summary", "--by", "colour"), "colour"),
        (("decisions", "summary", "--scope", "acme"), "scope"),
    ],
)
def test_what_cannot_be_asked_ends_with_one_line_that_names_it(serve: Any, arguments: tuple[str, ...], named: str) -> None:
    done = farthing(serve("router"), *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def _yesterday() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
