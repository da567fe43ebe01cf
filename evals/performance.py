"""How fast questions about performance and decisions are answered when there are ten million calls behind them.

`python -m evals.performance [--attempts 10000000] [--decisions 2000000] [--rounds 5] [--data DIR]`. Calls of 30 days (6 providers, 12
models, 36 deployments, 16 tasks: 576 cells an hour) are counted into cells and flushed by the router's own store, hour by hour; decisions
are made inside Postgres. Then the dashboards' questions are asked over TCP, and what observing a route costs is measured on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import numpy as np
import uvloop
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.clock import SystemClock
from farthing_core.ids import random_uuid
from farthing_router.performance.cells import Cell, CellKey, Flush, Minutes
from farthing_router.performance.decision_log import DecisionLog, DecisionLogTerms
from farthing_router.performance.histograms import BUCKETS, RATIO
from farthing_router.performance.meter import Meter, MeterTerms
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.errands import Attempt, AttemptOutcome, Errand, Finished
from farthing_router.routing.routes import Candidate, Role, Route
from farthing_router.store.decisions import PostgresDecisions
from farthing_router.store.performance import PostgresPerformance
from farthing_router.upstreams import UpstreamAnswer
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres, open_pool
from google.protobuf.timestamp_pb2 import Timestamp

from evals.report import print_figures, print_table
from evals.serving import served

_DAYS = 30
_HOUR = timedelta(hours=1)
_END = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
_START = _END - timedelta(days=_DAYS)
_SCOPE = "organizations/acme"
_LABELS = [
    (f"provider-{model % 6}", f"model-{model:02}", f"provider-{model % 6}/{model:02}-{place}", f"task-{task:02}")
    for model in range(12)
    for place in range(3)
    for task in range(16)
]
_CATALOG = "version: 1\nproviders:\n" + "".join(
    f'  provider-{number}: {{base_url: "http://127.0.0.1:9/v1", api_key_optional: true}}\n' for number in range(6)
)
_MODELS = "models:\n" + "".join(
    f'  model-{number:02}: {{provider: provider-{number % 6}, price: {{input_usd_per_million_tokens: "{number + 1}",'
    f' output_usd_per_million_tokens: "{4 * (number + 1)}"}}}}\n'
    for number in range(12)
)
_DECISIONS = """
    INSERT INTO decisions
    SELECT 'acme', $1::timestamptz + n * $2::interval, gen_random_uuid(), gen_random_uuid(), '', scope, scope || '/projects/p' || n % 40
            || '/users/u' || n % 4000, task, 'farthing/auto', CASE WHEN n % 9 = 0 THEN 'fixed' ELSE 'cascade' END, 'cascade of 2', '', 0,
        '', CASE WHEN n % 5000 = 0 THEN 'e1' ELSE '' END, '', 0.5, E'model-00\\nmodel-11', model, 'answered', n % 4 = 0, false, 0.8, 1000,
        900, 1, NULL, '\\x00'
    FROM (
        SELECT n, 'organizations/acme/workspaces/w' || n % 20 AS scope,
            CASE WHEN n < 200 THEN 'rare' ELSE 'task-' || n % 16 END AS task, 'model-' || lpad((n % 12)::text, 2, '0') AS model
        FROM generate_series($3::bigint, $4::bigint) AS n
    ) AS made
"""
_DECISION_SUMS = """
    INSERT INTO decision_sums
    SELECT organization, date_trunc('hour', decided_at, 'UTC'), decode(md5(task || strategy || experiment_id || served_model), 'hex'),
        false, task, strategy, 'cascade of 2', '', '', experiment_id, '', served_model, candidates, count(*),
        count(*) FILTER (WHERE escalated), 0, sum(attempts), sum(cost_usd_nanos), sum(latency_ms), sum(confidence), count(*), 0, 0, 0
    FROM decisions GROUP BY organization, 2, task, strategy, experiment_id, served_model, candidates
"""


def _stamp(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()))


def _now(window_h: int, *group_by: str, scope: str = _SCOPE) -> tuple[str, Any]:
    groups = [getattr(router_pb2, f"PERFORMANCE_DIMENSION_{name}") for name in group_by]
    return "GetPerformance", router_pb2.GetPerformanceRequest(scope=scope, group_by=groups, window_h=window_h)


def _report(step_h: int, *group_by: str, **only: str) -> tuple[str, Any]:
    groups = [getattr(router_pb2, f"PERFORMANCE_DIMENSION_{name}") for name in group_by]
    start, end = _stamp(_START), _stamp(_END)
    given: dict[str, Any] = {"scope": _SCOPE, "group_by": groups, "step_h": step_h, **only}
    return "GetPerformanceReport", router_pb2.GetPerformanceReportRequest(start_time=start, end_time=end, **given)


def _list(**filters: Any) -> tuple[str, Any]:
    return "ListDecisions", router_pb2.ListDecisionsRequest(**{"scope": _SCOPE, **filters})


QUESTIONS = {
    "now_24h": _now(24, "PROVIDER", "MODEL"),
    "now_24h_everybody": _now(24, "PROVIDER", "MODEL", scope=""),
    "last_30d_all_dimensions": _now(720, "PROVIDER", "MODEL", "DEPLOYMENT", "TASK"),
    "report_30d_by_model": _report(0, "MODEL"),
    "report_daily_by_model": _report(24, "MODEL"),
    "report_6_hourly_by_provider": _report(6, "PROVIDER"),
    "report_hourly_by_model": _report(1, "MODEL"),
    "report_hourly_of_a_task": _report(1, "MODEL", task="task-03"),
    "diversification_30d": ("AnalyzeDiversification", router_pb2.AnalyzeDiversificationRequest(scope=_SCOPE)),
    "decisions_newest": _list(),
    "decisions_of_a_rare_task": _list(task="rare"),
    "decisions_of_a_model": _list(model="model-07"),
    "decisions_of_a_model_and_task": _list(model="model-07", task="task-3"),
    "decisions_of_a_workspace": _list(scope=f"{_SCOPE}/workspaces/w3"),
    "decisions_of_a_project": _list(scope=f"{_SCOPE}/workspaces/w3/projects/p3"),
    "decisions_of_a_user": _list(scope=f"{_SCOPE}/workspaces/w3/projects/p3/users/u3"),
    "decisions_of_an_experiment": _list(experiment_id="e1"),
    "decisions_fixed_long_ago": _list(strategy="fixed", end_time=_stamp(_START + timedelta(days=1))),
    "decisions_of_nothing": _list(model="nobody", strategy="cascade"),
    "summary_30d": ("SummarizeDecisions", router_pb2.SummarizeDecisionsRequest(scope=_SCOPE)),
}


def _cell(rng: np.random.Generator, count: int) -> Cell:
    tokens = rng.integers(20, 800, count)
    latencies = (300 + 15 * tokens) * rng.lognormal(0, 0.4, count)
    failures = int(rng.binomial(count, 0.01))

    def counted(values: Any, smallest: float) -> dict[int, int]:
        numbers = np.clip(np.ceil(np.log(np.maximum(values / smallest, 1)) / np.log(RATIO)), 0, BUCKETS - 1).astype(int)
        return {int(number): int(times) for number, times in zip(*np.unique(numbers, return_counts=True), strict=True)}

    return Cell(
        attempts=count + failures,
        failures=failures,
        down=failures,
        answers=count,
        cost_usd_nanos=int(tokens.sum()) * 10_000,
        input_tokens=900 * count,
        output_tokens=int(tokens.sum()),
        input_tokens_max=3_000,
        paced=count,
        line_tokens=float(tokens.sum()),
        line_squares=float((tokens**2).sum()),
        line_ms=float(latencies.sum()),
        line_products=float((tokens * latencies).sum()),
        latency=counted(latencies, 1.0),
        first_token=counted(latencies * 0.2, 1.0),
        pace=counted(tokens * 1000 / latencies, 0.05),
        kinds={0: failures} if failures else {},
    )


async def _fill(url: str, attempts: int, decisions: int) -> tuple[int, list[float]]:
    """Calls counted, and how long each flush of an hour took in ms."""
    rng, replica, made, took = np.random.default_rng(7), str(uuid.uuid4()), 0, []
    count = max(1, round(attempts / (_DAYS * 24 * len(_LABELS))))
    async with open_pool(url, schema="router", size_max=2) as pool:
        store = PostgresPerformance(pool)
        for hour in range(_DAYS * 24):
            at = _START + hour * _HOUR
            cells = [(CellKey("acme", at, *labels), _cell(rng, count)) for labels in _LABELS]
            minutes = [(("acme", at, f"provider-{n}"), Minutes(dict.fromkeys(range(60), 40), {7: 30})) for n in range(6)]
            flush = Flush(replica, hour + 1, at, list(cells), minutes)
            began = time.perf_counter()
            await store.add(flush)
            took.append((time.perf_counter() - began) * 1e3)
            made += sum(cell.attempts for _, cell in cells)
        part = 200_000
        for first in range(0, decisions, part):
            last = min(decisions, first + part) - 1
            await pool.execute(_DECISIONS, _START, timedelta(days=_DAYS) / max(1, decisions), first, last, timeout=600)
        await pool.execute(_DECISION_SUMS, timeout=600)
        await _vacuum(pool)
    return made, took


async def _vacuum(pool: asyncpg.Pool) -> None:
    for table in ("performance_hours", "performance_days", "decisions", "decision_sums"):
        await pool.execute(f"VACUUM ANALYZE {table}", timeout=600)


def observing_us() -> float:
    """What the observers cost a route of two calls, in µs of CPU."""
    candidates = tuple(Candidate(name, Role.FIRST, "p", "d", 10, 100, 50, 1, 1) for name in ("small", "large"))
    route = Route(candidates, "cascade", "cascade of 2", 9, 5, 99, 4, 0.7)
    given: Any = {
        "prices": None,
        "conversation": None,
        "parameters": None,
        "wants_json": False,
        "service_tier": "",
        "ends_at_s": 9.0,
    }
    scope = f"{_SCOPE}/workspaces/w"
    errand = Errand(route=route, task="chat", request_id=str(uuid.uuid4()), calls_left=4, scope=scope, **given)
    made = [
        Attempt(name, "p", "d", outcome, "", 0.9, Tokens(input_tokens=10, output_tokens=90), 7, 2_500_000)
        for name, outcome in (("small", AttemptOutcome.REJECTED), ("large", AttemptOutcome.ACCEPTED))
    ]
    finished = Finished(UpstreamAnswer("", "", "stop", "", None), "large", tuple(made), True, 1)
    clock, samples = SystemClock(), []
    for _ in range(20):
        terms = DecisionLogTerms(waiting_max=10_000)
        log = DecisionLog(PostgresDecisions(None), clock=clock, new_id=random_uuid, terms=terms)
        meter = Meter(PostgresPerformance(None), clock=clock, new_id=random_uuid, terms=MeterTerms())
        began = time.process_time()
        for _ in range(2_000):
            log.ended(errand, finished, None)
            meter.ended(errand, finished, None)
        samples.append((time.process_time() - began) / 2_000 * 1e6)
    return statistics.median(samples)


async def measure(attempts: int, decisions: int, rounds: int) -> tuple[dict[str, tuple[float, float, int]], dict[str, float]]:
    """By question the first and the median ms over TCP, and lines; and other figures."""
    found: dict[str, tuple[float, float, int]] = {}
    with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
        folder = Path(temporary)
        path = folder / "farthing.yaml"
        path.write_text(_CATALOG + _MODELS)
        async with embedded_postgres(folder) as url:
            await migrate(url, [CATALOG["router"]])
            made, took = await _fill(url, attempts, decisions)
            async with open_pool(url, schema="router", size_max=1) as pool:
                sizes = {
                    f"{table}_mib": await pool.fetchval(f"SELECT pg_total_relation_size('{table}') / 1048576")
                    for table in ("performance_hours", "performance_days", "decisions")
                }
                rows = await pool.fetchval("SELECT count(*) FROM performance_hours")
            environment = {"FARTHING_CONFIG_FILE": str(path)}
            async with (
                served(url, folder, targets=("router",), environment=environment) as address,
                grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel,
            ):
                stub = router_pb2_grpc.RouterServiceStub(channel)
                for name, (method, request) in QUESTIONS.items():
                    samples = [await _ask(stub, method, request) for _ in range(rounds + 1)]
                    found[name] = (samples[0][0], statistics.median(took for took, _ in samples[1:]), samples[0][1])
    figures = {"attempts": made, "decisions": decisions, "hour_rows": rows, **sizes}
    figures |= {"flush_ms_p50": round(statistics.median(took), 1), "flush_rows": 2 * len(_LABELS)}
    return found, figures | {"observing_us": round(observing_us(), 1)}


async def _ask(stub: Any, method: str, request: Any) -> tuple[float, int]:
    began = time.perf_counter()
    answer = await getattr(stub, method)(request, timeout=60)
    took_ms = (time.perf_counter() - began) * 1e3
    if method == "GetPerformanceReport":
        return took_ms, sum(len(step.performances) for step in answer.steps) + len(answer.total)
    lists = ("performances", "decisions", "summaries", "advice")
    return took_ms, next(len(getattr(answer, name)) for name in lists if hasattr(answer, name))


def main() -> None:
    """Prints the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=10_000_000)
    parser.add_argument("--decisions", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", help="unused: this eval makes its own calls")
    options = parser.parse_args()
    found, figures = uvloop.run(measure(options.attempts, options.decisions, options.rounds))
    print_table(
        ("question", "first ms", "median ms", "lines"),
        [(name, f"{first:.0f}", f"{median:.0f}", lines) for name, (first, median, lines) in found.items()],
    )
    print_table(("what", "figure"), list(figures.items()))
    print_figures("performance", {f"{name}_ms": round(median, 1) for name, (_, median, _) in found.items()} | figures)


if __name__ == "__main__":
    main()
