"""How fast questions about usage are answered when there are ten million rows of it.

`python -m evals.usage [--rows 10000000] [--rounds 5] [--data DIR]`. Rows of 90 days are made inside Postgres (40 workspaces, 200 projects,
2,000 users, 12 models) and summed into the roll-ups; that such sums equal what the ledger's own batches make is checked first, on a
sample. Then the dashboards' questions are asked: cold (Postgres just started) and warm, through the service's code and over TCP.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import uvloop
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_budget.edge.reports import ReportRpcs
from farthing_budget.edge.usage import UsageRpcs
from farthing_budget.operations import Operation, Record
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.exports import PostgresExports
from farthing_budget.store.postgres import open_ledger
from farthing_budget.store.usage import PostgresUsage
from farthing_budget.usage import FIGURES, Saving, Source, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres, open_pool
from google.protobuf.timestamp_pb2 import Timestamp

from evals.bulk_usage import DAYS, make_rows, seats, sum_rows
from evals.report import print_figures, print_table
from evals.serving import served

_START = datetime(2026, 1, 1, tzinfo=UTC)
_NOW = _START + timedelta(days=DAYS)
_SCOPE = "organizations/acme"
_WORKSPACE = f"{_SCOPE}/workspaces/ws-07"
_PROJECT = f"{_WORKSPACE}/projects/project-036"


def _moment(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()))


def _query(*groups: str, days: int = 30, scope: str = _SCOPE, **values: Any) -> tuple[str, Any]:
    numbers = [getattr(budget_pb2, f"USAGE_GROUP_{name}") for name in groups]
    start, end = _moment(_NOW - timedelta(days=days, hours=5)), _moment(_NOW - timedelta(hours=5))
    asked = budget_pb2.QueryUsageRequest(
        scope=scope, group_by=numbers, start_time=start, end_time=end, page_size=10_000, **values
    )
    return "QueryUsage", asked


def _chargeback(group: str, lines_max: int = 1_000) -> tuple[str, Any]:
    month = _START.replace(month=3), _START.replace(month=4) - timedelta(hours=24)
    return "GetAllocationReport", budget_pb2.GetAllocationReportRequest(
        scope=_SCOPE,
        group=getattr(budget_pb2, f"USAGE_GROUP_{group}"),
        start_time=_moment(month[0]),
        end_time=_moment(month[1]),
        lines_max=lines_max,
    )


QUESTIONS = {
    "by_model_30d": _query("MODEL"),
    "hourly_chart": _query("HOUR", "MODEL", days=7),
    "chargeback": _chargeback("WORKSPACE"),
    "chargeback_users": _chargeback("USER", 10_000),
    "hourly_chart_30d": _query("HOUR", days=30),
    "hourly_chart_workspace": _query("HOUR", days=30, scope=_WORKSPACE),
    "hourly_chart_project": _query("HOUR", days=30, scope=_PROJECT),
    "by_key_30d": _query("KEY"),
    "by_task_30d": _query("TASK", "SERVICE", "DOMAIN"),
    "by_tag_30d": _query("TAG"),
    "by_day_90d": _query("DAY", "PROVIDER", days=89),
    "one_service_by_model": _query("MODEL", filter=budget_pb2.UsageFilter(service="svc-07")),
    "top_users": _query("WORKSPACE", "PROJECT", "USER", by_cost=True),
}


def _sample_line(rng: random.Random, model: str) -> UsageLine:
    return UsageLine(
        model=rng.choice((model, "gpt-4o")),
        provider="p",
        deployment="d",
        input_tokens=rng.randrange(500),
        cached_input_tokens=rng.randrange(50),
        output_tokens=rng.randrange(90),
        cost_usd_nanos=rng.randrange(10**6),
        outcome=rng.choice(("rejected", "failed", "accepted", "cache_exact", "refund")),
        estimated=rng.random() < 0.1,
        tokens_source=rng.choice(list(Source)),
        price_unknown=rng.random() < 0.1,
    )


async def sample_differences(url: str) -> int:
    """In how many figures the sums that the ledger's batches made differ from those that SQL makes of their rows."""
    rng, clock = random.Random(7), ManualClock(_START)
    async with open_pool(url, schema="budget", size_max=4) as pool, open_ledger(pool, clock) as ledger:
        chosen = seats()[:200]
        for _ in range(60):
            operations: list[Operation] = []
            for _ in range(50):
                seat = rng.choice(chosen)
                lines = tuple(_sample_line(rng, seat.model) for _ in range(rng.choice((1, 1, 2))))
                of = {"service": seat.service, "domain": seat.domain, "key_id": seat.key_id, "tags": seat.tags}
                usage = UsageRecord(seat.task, lines, rng.randrange(10**6), Saving(1, 2, rng.randrange(9)), **of)  # type: ignore[arg-type]
                operations.append(Record(parse_scope(seat.scope), str(uuid.UUID(int=rng.getrandbits(128))), usage, b""))
            await ledger.commit(operations)
            clock.advance(rng.randrange(7_200))
        every = f"SELECT rollup, at, place_number, {', '.join(FIGURES)} FROM usage_sums ORDER BY 1, 2, 3"
        places = "SELECT * FROM usage_places ORDER BY rollup, place_number"
        kept = await pool.fetch(every), await pool.fetch(places)
        await pool.execute("TRUNCATE usage_sums, usage_places")
        await sum_rows(pool)
        made = await pool.fetch(every), await pool.fetch(places)
        await pool.execute("TRUNCATE usage_sums, usage_places, usage")
        assert len(kept[0]) > 5_000
        return sum(one != other for one, other in zip([*kept[0], *kept[1]], [*made[0], *made[1]], strict=True))


async def _fill(url: str, rows: int) -> None:
    async with open_pool(url, schema="budget", size_max=2) as pool:
        await make_rows(pool, count=rows, start=_START)
        await sum_rows(pool)
        for table in ("usage", "usage_places", "usage_sums"):
            await pool.execute(f"VACUUM ANALYZE {table}", timeout=3_600)


async def _ask(stub: Any, name: str) -> tuple[float, Any]:
    method, request = QUESTIONS[name]
    began = time.perf_counter()
    answer = await getattr(stub, method)(request, timeout=60)
    return (time.perf_counter() - began) * 1e3, answer


async def _export(stub: Any, days: int) -> tuple[int, float]:
    request = budget_pb2.ExportUsageRequest(
        scope=_SCOPE,
        format=budget_pb2.EXPORT_FORMAT_FOCUS,
        start_time=_moment(_NOW - timedelta(days=days)),
        end_time=_moment(_NOW),
    )
    began, rows = time.perf_counter(), 0
    async for part in stub.ExportUsage(request, timeout=600):
        rows = part.rows
    return rows, time.perf_counter() - began


async def measure(rows: int, rounds: int) -> tuple[dict[str, tuple[float, float, float, int]], dict[str, int], float, int]:
    """Cold, warm and in-process ms and lines of each question; rows of tables; exported rows/s; differences in the sample."""
    with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
        folder = Path(temporary)
        async with embedded_postgres(folder) as url:
            await migrate(url, [CATALOG["budget"]])
            differences = await sample_differences(url)
            await _fill(url, rows)
            counts = await _counts(url)
        found: dict[str, tuple[float, float, float, int]] = {}
        cold = {name: await _cold(folder, name) for name in ("by_model_30d", "hourly_chart", "chargeback")}
        async with _stub(folder) as stub, _in_process(folder) as rpcs:
            for name in QUESTIONS:
                samples = [await _ask(stub, name) for _ in range(rounds + 1)]
                inside = [await _ask(rpcs, name) for _ in range(rounds + 1)]
                answer = samples[0][1]
                lines = len(answer.rows if hasattr(answer, "rows") else answer.lines)
                over_tcp, within = (statistics.median(took for took, _ in each[1:]) for each in (samples, inside))
                found[name] = (cold.get(name, samples[0][0]), over_tcp, within, lines)
            exported, took_s = await _export(stub, 3)
        return found, counts, exported / took_s, differences


async def _cold(folder: Path, name: str) -> float:
    """The first question after Postgres and the service started."""
    async with _stub(folder) as stub:
        return (await _ask(stub, name))[0]


class _Rpcs:
    """The service's own code, called as a stub is."""

    def __init__(self, *groups: Any) -> None:
        self._groups = groups

    def __getattr__(self, method: str) -> Any:
        (call,) = (getattr(group, method) for group in self._groups if hasattr(group, method))
        return lambda request, timeout: call(request, None)


@asynccontextmanager
async def _in_process(folder: Path) -> AsyncIterator[Any]:
    clock = ManualClock(_NOW)
    async with embedded_postgres(folder) as url, open_pool(url, schema="budget", size_max=2) as pool:
        usage, budgets = PostgresUsage(pool), PostgresBudgets(pool, clock)
        reports = ReportRpcs(usage=usage, exports=PostgresExports(pool), budgets=budgets, clock=clock)
        yield _Rpcs(UsageRpcs(usage=usage, clock=clock), reports)


@asynccontextmanager
async def _stub(folder: Path) -> AsyncIterator[Any]:
    async with (
        embedded_postgres(folder) as url,
        served(url, folder, targets=("budget",)) as address,
        grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel,
    ):
        yield budget_pb2_grpc.BudgetServiceStub(channel)


async def _counts(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url, server_settings={"search_path": "budget"})
    found = {
        f"roll-up {row[0]}": row[1]
        for row in await connection.fetch("SELECT rollup, count(*) FROM usage_sums GROUP BY 1 ORDER BY 1")
    }
    found["rows"] = await connection.fetchval("SELECT count(*) FROM usage")
    found["places"] = await connection.fetchval("SELECT count(*) FROM usage_places")
    found["MiB of roll-ups"] = await connection.fetchval("SELECT pg_total_relation_size('usage_sums') / 1048576")
    await connection.close()
    return found


def main() -> None:
    """Prints the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", help="unused: this eval makes its own usage")
    options = parser.parse_args()
    found, counts, export_rows_per_s, differences = uvloop.run(measure(options.rows, options.rounds))
    print_table(
        ("question", "cold ms", "warm ms", "in process ms", "lines"),
        [(name, f"{cold:.0f}", f"{warm:.0f}", f"{inside:.0f}", lines) for name, (cold, warm, inside, lines) in found.items()],
    )
    print_table(("what", "count"), list(counts.items()))
    print(f"sums made in bulk that differ from the ledger's own: {differences}")
    figures: dict[str, float | int | None] = {f"{name}_ms": round(warm, 1) for name, (_, warm, _, _) in found.items()}
    figures |= {f"{name}_cold_ms": round(found[name][0], 1) for name in ("by_model_30d", "hourly_chart", "chargeback")}
    print_figures(
        "usage",
        figures | {"rows": counts["rows"], "export_rows_per_s": round(export_rows_per_s), "sample_differences": differences},
    )


if __name__ == "__main__":
    main()
