"""Real processes: `farthing serve` on this run's Postgres, in front of a replay server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from farthing_runtime.replay.answers import Recorded

GOOD = "Open Settings, choose Security, and press Reset password; a link arrives by mail."
HEDGED = "I'm not sure, please contact support."
EASY = "How do I reset my password?"
HARD = "Why does clause 7 of the contract not apply to resellers?"
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lyon"}'}}
CATALOG = """\
version: 1
providers:
  replay: {{base_url: "{url}", api_key_optional: true, retries: 1}}
models:
  small: {{provider: replay, tier: free, price: {{input_usd_per_million_tokens: "0.15", output_usd_per_million_tokens: "0.60"}}}}
  large:
    provider: replay
    tier: premium
    capabilities: [tools, json, streaming]
    price: {{input_usd_per_million_tokens: "5", output_usd_per_million_tokens: "15"}}
routing:
  baseline_model: large
  cascades: [{{steps: [small, large]}}]
"""
RECORDED = (
    *(Recorded(model, EASY, GOOD, 100, 20) for model in ("small", "large")),
    Recorded("small", HARD, HEDGED, 100, 20),
    Recorded("large", HARD, "Because clause 9 names resellers and takes precedence.", 100, 20),
    Recorded("large", "What is the weather in Lyon?", "", 50, 10, finish_reason="tool_calls", tool_calls=[TOOL_CALL]),
)


class Served:
    """One `farthing serve` process."""

    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process = process
        self.line = line
        self.grpc = line.split(" grpc ")[1].split(maxsplit=1)[0]
        self.http = line.split(" http ")[1].split(maxsplit=1)[0] if " http " in line else ""

    def stop(self, *, kill: bool = False) -> int:
        """Ends it; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def farthing_serve(*targets: str, **environment: str) -> Iterator[Served]:
    """Starts `farthing serve` and waits until it serves."""
    command = [str(Path(sys.executable).parent / "farthing"), "serve", *targets]
    given = {"FARTHING_GRPC_PORT": "0", "FARTHING_GATEWAY_HTTP_PORT": "0", "FARTHING_LOG_LEVEL": "warning", **environment}
    process = subprocess.Popen(command, env={**os.environ, **given}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " grpc " in line, f"farthing serve {' '.join(targets)} did not start: {line}"
    served = Served(process, line)
    try:
        yield served
    finally:
        served.stop()
        process.stdout.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def config_file(tmp_path: Path) -> Iterator[Path]:
    """A farthing.yaml in front of `farthing replay`, in a process of its own."""
    answers, path = tmp_path / "answers.jsonl", tmp_path / "farthing.yaml"
    answers.write_text("\n".join(json.dumps(asdict(each)) for each in RECORDED))
    command = [str(Path(sys.executable).parent / "farthing"), "replay", "--answers", str(answers), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    path.write_text(CATALOG.format(url=url))
    yield path
    process.terminate()
    process.wait(timeout=30)
    process.stdout.close()


@pytest.fixture
def serve(database_url: str, config_file: Path, session_dir: Path) -> Iterator[Callable[..., Served]]:
    """Starts hosts on this test's database; they end with the test."""
    with ExitStack() as stack:

        def start(*targets: str, **environment: Any) -> Served:
            given = {
                "FARTHING_DATABASE_URL": database_url,
                "FARTHING_CONFIG_FILE": str(config_file),
                "FARTHING_DATA_DIR": str(session_dir),
            }
            return stack.enter_context(farthing_serve(*targets, **{**given, **environment}))

        yield start
