"""Feedback, quality and recommendations from the shell, over real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

FARTHING = str(Path(sys.executable).parent / "farthing")
QUESTION = "How do I reset my password?"
SCOPE = ("--scope", "organizations/default")


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "240", "FARTHING_ADDRESS": served.grpc}
    return subprocess.run([FARTHING, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False)


def answered(served: Any, *, model: str) -> str:
    """The id of a request that a model answered."""
    request_id = str(uuid.uuid4())
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
    request = urllib.request.Request(
        f"{served.http}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "x-farthing-cache": "off", "x-farthing-request-id": request_id},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    return request_id


def test_what_a_person_thinks_of_answers_is_taken_in_reported_and_turned_into_advice(serve: Any) -> None:
    served = serve()
    for _ in range(21):
        request_id = answered(served, model="large")
    said = farthing(served, "feedback", request_id, *SCOPE, "--thumb", "up")
    assert said.returncode == 0, said.stderr
    assert re.match(r"quality 1\.00; large at this task 0\.\d\d", said.stdout)
    assert "quality 0.00" in farthing(served, "feedback", request_id, *SCOPE, "--score", "0", "--source", "truth").stdout
    quality = farthing(served, "quality", *SCOPE).stdout
    assert re.search(r"large .* 21 .* 1 .* no change", quality)
    advice = farthing(served, "recommendations", *SCOPE, "--quality-loss-max", "0.5")
    assert re.search(r"large .* small .* 21 .*try it in an experiment first", advice.stdout), advice.stdout + advice.stderr


def test_feedback_that_cannot_be_ends_with_one_line_that_says_why(serve: Any) -> None:
    served = serve("router")
    for arguments, named in (
        (("--thumb", "sideways"), "--thumb"),
        ((), "one of them"),
        (("--score", "1", "--thumb", "up"), "one of them"),
        (("--score", "1"), "no answer is known"),
    ):
        done = farthing(served, "feedback", "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1", *SCOPE, *arguments)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
        assert named in done.stderr
