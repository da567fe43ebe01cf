"""What the gateway adds to a request, with everything on: CPU of the whole process tree, latency, throughput, memory, start.

`python -m evals.overhead [--rounds 3] [--seconds 4] [--data DIR]`. Needs `wrk`. Load: prompts of 90 words, every one different (the miss
path: masking, exact and semantic look-up, shaping, planning, a durable reservation on four levels of budgets, the upstream call,
settlement, remembering) and one fixed prompt (the exact hit); the upstream answers at once (evals/upstream.py). The suite runs in one
process on the embedded Postgres, which is counted in. Rounds of the upstream alone and of the gateway alternate; "added" is the
difference of medians within a round. A third row sends prompts short enough for the semantic look-up, which embeds each of them: that
costs the embedding's own CPU on top, by design.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from evals.report import print_figures, print_table

_TICKS = os.sysconf("SC_CLK_TCK")
_ORGANIZATION = "organizations/bench"
_SCOPE = f"{_ORGANIZATION}/workspaces/load/projects/wrk/users/one"
_CATALOG = """\
version: 1
providers:
  mock: {{base_url: "{upstream}/v1", api_key_optional: true, hosted: true}}
models:
  mock:
    provider: mock
    context_window_tokens: 128000
    output_tokens_max: 4096
    encoding: o200k
    capabilities: [tools, json, streaming]
    price: {{input_usd_per_million_tokens: "0.15", output_usd_per_million_tokens: "0.60"}}
routing:
  baseline_model: mock
"""
_LUA = """\
local words = {}
for w in ([[ring key node shard quorum ledger budget cascade router cache token prompt model reply stream batch queue worker socket
kernel buffer page index tree graph vertex edge path cost price quota limit window bucket leak drain retry backoff jitter timeout
deadline signal metric trace span log event audit region zone host rack disk memory vector matrix tensor weight layer gradient loss
epoch sample label class margin river mountain forest harbour bridge castle market bakery garden orchard violin trumpet piano theatre
novel poem chapter sailor farmer doctor lawyer]]):gmatch("%a+") do words[#words + 1] = w end
local count, same = tonumber(os.getenv("BENCH_WORDS")), os.getenv("BENCH_SAME") == "1"
local head = '{"model":"mock","temperature":0.2,"max_tokens":256,"messages":[{"role":"system","content":"You are a careful ' ..
  'assistant of a support team. Answer in one paragraph, name your assumptions, and say when you are not sure."},' ..
  '{"role":"user","content":"'
local function body()
  local t = {}
  for i = 1, count do t[i] = words[math.random(#words)] end
  return head .. table.concat(t, " ") .. '"}]}'
end
local fixed
function init(args)
  math.randomseed(tonumber(os.getenv("BENCH_SEED")))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["x-farthing-scope"] = os.getenv("BENCH_SCOPE")
  fixed = wrk.format(nil, nil, nil, head .. "what does a quorum of " .. os.getenv("BENCH_SEED") .. " nodes decide" .. '"}]}')
end
function request() if same then return fixed end return wrk.format(nil, nil, nil, body()) end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"failed":%d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), e.status + e.connect + e.read + e.write + e.timeout))
end
"""


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_s(pid: int) -> float:
    """User and system time of a process tree, in seconds."""
    total = 0
    for member in tree(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def rss_mib(pid: int, *, own: bool) -> float:
    """Resident memory of the tree in MiB; `own` leaves out Postgres, whose processes share most of theirs."""
    total_kib = 0
    for member in tree(pid):
        try:
            status = Path(f"/proc/{member}/status").read_text()
        except OSError:
            continue
        if own and status.startswith("Name:\tpostgres"):
            continue
        total_kib += int(status.split("VmRSS:")[1].split()[0]) if "VmRSS:" in status else 0
    return total_kib / 1024


def wrk(url: str, *, connections: int, seconds: int, words: int, same: bool, seed: int) -> dict[str, Any]:
    """One run of wrk."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_LUA)
        script.flush()
        environment = {
            **os.environ,
            "BENCH_WORDS": str(words),
            "BENCH_SAME": "1" if same else "0",
            "BENCH_SEED": str(seed),
            "BENCH_SCOPE": _SCOPE,
        }
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name, url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"wrk failed: {done.stdout}\n{done.stderr}")
    result: dict[str, Any] = json.loads(line[7:])
    return result


class Gateway:
    """The suite in one process of its own, on an embedded Postgres in a folder of its own."""

    def __init__(self, folder: Path, upstream: str) -> None:
        (folder / "farthing.yaml").write_text(_CATALOG.format(upstream=upstream))
        self._folder = folder
        self.start_s = 0.0
        self.url = ""
        self.grpc_address = ""

    def start(self) -> None:
        """Starts it and waits for the first good reply."""
        environment = {
            **os.environ,
            "FARTHING_DATA_DIR": str(self._folder / "data"),
            "FARTHING_CONFIG_FILE": str(self._folder / "farthing.yaml"),
            "FARTHING_GRPC_PORT": "0",
            "FARTHING_GATEWAY_HTTP_PORT": "0",
            "FARTHING_LOG_LEVEL": "warning",
        }
        began_s = time.monotonic()
        command = [str(Path(sys.executable).parent / "farthing"), "serve"]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if " http " not in line:
            raise SystemExit(f"the suite did not start: {line}")
        self.url = line.split(" http ")[1].split()[0] + "/v1/chat/completions"
        self.grpc_address = line.split(" grpc ")[1].split()[0]
        self._ask_once()
        self.start_s = time.monotonic() - began_s
        self.pid = self._process.pid

    def _ask_once(self) -> None:
        body = {"model": "mock", "messages": [{"role": "user", "content": f"check {uuid.uuid4()}"}]}
        headers = {"Content-Type": "application/json", "x-farthing-scope": _SCOPE}
        with urllib.request.urlopen(urllib.request.Request(self.url, json.dumps(body).encode(), headers), timeout=30) as answer:
            assert json.load(answer)["usage"]["total_tokens"] == 260

    def stop(self) -> None:
        """Stops it."""
        self._process.terminate()
        self._process.wait(timeout=60)


async def create_budgets(address: str) -> None:
    """An ample budget on each of the four levels, so that every reservation locks and writes four balances."""
    from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
    from farthing_runtime.mesh import network_channel

    parts = _SCOPE.split("/")
    async with network_channel(address) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        for depth in range(1, 5):
            await stub.CreateBudget(
                budget_pb2.CreateBudgetRequest(
                    request_id=str(uuid.uuid4()),
                    scope="/".join(parts[: 2 * depth]),
                    period=budget_pb2.PERIOD_MONTH,
                    limit_usd_nanos=1_000_000_000_000_000,
                )
            )


_ROWS = (("miss", 90, False, 16), ("miss", 90, False, 1), ("exact hit", 90, True, 16), ("miss, embedded", 12, False, 16))


def measure(gateway: Gateway, upstream: str, *, rounds: int, seconds: int) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Runs of every row, each beside the upstream alone."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    direct = f"{upstream}/v1/chat/completions"
    for name, words, same, connections in _ROWS:
        wrk(gateway.url, connections=connections, seconds=1, words=words, same=same, seed=77)
        for number in range(rounds):
            load = {"connections": connections, "words": words, "same": same, "seed": 1000 * number + connections + words}
            alone = wrk(direct, seconds=max(1, seconds // 2), **load)  # type: ignore[arg-type]
            before_s = cpu_s(gateway.pid)
            run = wrk(gateway.url, seconds=seconds, **load)  # type: ignore[arg-type]
            cpu_ms = 1000 * (cpu_s(gateway.pid) - before_s) / max(1, run["requests"])
            found.setdefault((name, connections), []).append(
                {
                    "cpu_ms": cpu_ms,
                    "rps": run["requests"] / (run["duration_us"] / 1e6),
                    "added_p50_ms": (run["p50_us"] - alone["p50_us"]) / 1000,
                    "p99_ms": run["p99_us"] / 1000,
                    "failed": run["failed"],
                    "rss_mib": rss_mib(gateway.pid, own=True),
                }
            )
    return found


def main() -> None:
    """Prints the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--data", help="unused: this eval makes its own load")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("evals.overhead needs wrk (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="farthing-") as folder:
        provider = subprocess.Popen([sys.executable, "-m", "evals.upstream", "0"], stdout=subprocess.PIPE, text=True)
        assert provider.stdout is not None
        upstream = f"http://127.0.0.1:{provider.stdout.readline().strip()}"
        gateway = Gateway(Path(folder), upstream)
        try:
            gateway.start()
            gateway.stop()
            gateway.start()  # the second start is the warm one: the database and the model exist
            asyncio.run(create_budgets(gateway.grpc_address))
            found = measure(gateway, upstream, rounds=options.rounds, seconds=options.seconds)
        finally:
            gateway.stop()
            provider.terminate()
    _report(found, gateway.start_s)


def _report(found: dict[tuple[str, int], list[dict[str, float]]], start_s: float) -> None:
    median = {key: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for key, runs in found.items()}
    header = ("path", "connections", "CPU ms/request", "requests/s", "added p50 ms", "p99 ms", "RSS MiB", "failed")
    rows = [
        (
            name,
            connections,
            *(f"{m[key]:.2f}" for key in ("cpu_ms", "rps", "added_p50_ms", "p99_ms", "rss_mib")),
            int(m["failed"]),
        )
        for (name, connections), m in median.items()
    ]
    print_table(header, rows)
    print(f"warm start to first good reply: {start_s:.2f} s")
    miss, alone, hit = median["miss", 16], median["miss", 1], median["exact hit", 16]
    figures = {
        "miss_cpu_ms": round(miss["cpu_ms"], 3),
        "hit_cpu_ms": round(hit["cpu_ms"], 3),
        "added_p50_ms": round(alone["added_p50_ms"], 2),
        "rps": round(miss["rps"], 1),
        "rss_mib": round(max(m["rss_mib"] for m in median.values()), 1),
        "start_s": round(start_s, 2),
        "embedded_miss_cpu_ms": round(median["miss, embedded", 16]["cpu_ms"], 3),
    }
    print_figures("overhead", figures)


if __name__ == "__main__":
    main()
