"""How many durable reservations a second the ledger takes, on four levels with one hot organisation and 64 callers.

`python -m evals.ledger [--seconds 4] [--rounds 3] [--data DIR]`. In process, unary over TCP, over a stream in batches of 100, on two
replicas of one Postgres; beside them, in the same run, one transaction per call on the same Postgres, and calls that are answered at once
(`echo`: what gRPC itself takes on this machine). Ways take turns, so that noise of the machine falls on all; medians are printed.
Afterwards the books are proved, and a budget with room for 20 is raced for on both replicas.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import uvloop
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_budget.lane import Lane
from farthing_budget.operations import Reserve
from farthing_budget.settings import Settings
from farthing_budget.store.postgres import open_ledger
from farthing_budget.watch import Watch
from farthing_core.clock import SystemClock
from farthing_core.scopes import parse_scope
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres, open_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc

from evals.report import print_figures, print_table
from evals.serving import served

CALLERS = 64
BATCH = 100
STREAMS = 4
STREAM_DEPTH = 6
_SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"
_LIMIT = 9_000_000_000_000_000
_HASH = b"x" * 32
Way = Callable[[float], Awaitable[tuple[int, list[float]]]]
"""Works until a moment of `time.perf_counter()`; returns how many reservations were granted and how long each call took in seconds."""


def _request() -> Any:
    return budget_pb2.ReserveBudgetRequest(request_id=str(uuid.uuid4()), scope=_SCOPE, amount_usd_nanos=1_000, tokens=10)


async def _callers(call: Callable[[], Awaitable[Any]], until: float, *, count: int = CALLERS) -> tuple[int, list[float]]:
    took_s: list[float] = []

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            await call()
            took_s.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(count)))
    return len(took_s), took_s


def in_process(lane: Lane) -> Way:
    """The ledger itself, without a contract around it."""
    scope = parse_scope(_SCOPE)
    return lambda until: _callers(lambda: lane.submit(Reserve(scope, str(uuid.uuid4()), 1_000, 10, 600, _HASH)), until)


def unary(stubs: list[Any]) -> Way:
    """A call each, shared out over servers."""
    turns = iter(range(10**12))
    return lambda until: _callers(lambda: stubs[next(turns) % len(stubs)].ReserveBudget(_request(), timeout=30.0), until)


def echo(channel: grpc.aio.Channel) -> Way:
    """Calls that cost nothing but gRPC."""
    stub = health_pb2_grpc.HealthStub(channel)
    return lambda until: _callers(lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=30.0), until)


def streamed(stubs: list[Any]) -> Way:
    """Batches over streams, some under way on each."""

    async def way(until: float) -> tuple[int, list[float]]:
        found = await asyncio.gather(*(_stream(stubs[number % len(stubs)], until) for number in range(STREAMS)))
        return sum(count for count, _ in found), [took for _, sample in found for took in sample]

    return way


async def _stream(stub: Any, until: float) -> tuple[int, list[float]]:
    room, granted = asyncio.Semaphore(STREAM_DEPTH), 0
    sent: list[float] = []
    took_s: list[float] = []

    async def requests() -> AsyncIterator[Any]:
        while time.perf_counter() < until:
            await room.acquire()
            operations = [budget_pb2.ReservationOperation(reserve=_request()) for _ in range(BATCH)]
            sent.append(time.perf_counter())
            yield budget_pb2.StreamReservationsRequest(operations=operations)

    async for answer in stub.StreamReservations(requests()):
        room.release()
        took_s.append(time.perf_counter() - sent[len(took_s)])
        granted += sum(not result.code for result in answer.results)
    return granted, took_s


_REFERENCE_TABLES = """
    CREATE SCHEMA reference;
    CREATE TABLE reference.balances (name text PRIMARY KEY, used bigint NOT NULL, most bigint NOT NULL);
    CREATE TABLE reference.requests (request_id uuid PRIMARY KEY, amount bigint NOT NULL)
"""
_TAKE = "UPDATE reference.balances SET used = used + $2 WHERE name = $1 AND used + $2 <= most RETURNING used"


async def reference(pool: asyncpg.Pool) -> Way:
    """One transaction per call: what one writes first."""
    names = parse_scope(_SCOPE).ancestors
    await pool.execute(_REFERENCE_TABLES)
    await pool.executemany("INSERT INTO reference.balances VALUES ($1, 0, $2)", [(name, _LIMIT) for name in names])

    async def call() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO reference.requests VALUES ($1, 1000)", uuid.uuid4())
            for name in names:
                assert await connection.fetchval(_TAKE, name, 1_000) is not None

    return lambda until: _callers(call, until)


async def _budgets(stub: Any, organization: str, limit: int) -> None:
    scope = _SCOPE.replace("acme", organization)
    for path in parse_scope(scope).ancestors:
        await stub.CreateBudget(
            budget_pb2.CreateBudgetRequest(
                request_id=str(uuid.uuid4()), scope=path, period=budget_pb2.PERIOD_MONTH, limit_usd_nanos=limit
            )
        )


async def _race(stubs: list[Any]) -> int:
    """How many of 64 racing callers two replicas admit where 20 fit."""
    await _budgets(stubs[0], "race", 20_000)
    scope = _SCOPE.replace("acme", "race")

    async def admitted(number: int) -> bool:
        request = budget_pb2.ReserveBudgetRequest(request_id=str(uuid.uuid4()), scope=scope, amount_usd_nanos=1_000)
        try:
            await stubs[number % len(stubs)].ReserveBudget(request)
        except grpc.aio.AioRpcError:
            return False
        return True

    return sum(await asyncio.gather(*(admitted(number) for number in range(64))))


async def measure(rounds: int, seconds: float) -> tuple[dict[str, list[tuple[int, list[float]]]], int, list[str]]:
    """Samples by way, admitted in the race, and what was wrong with the books."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-")))
        url = await stack.enter_async_context(embedded_postgres(folder))
        await migrate(url, [CATALOG["budget"]])
        addresses = [await stack.enter_async_context(served(url, folder, targets=("budget",))) for _ in range(2)]
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for address in addresses
        ]
        stubs = [budget_pb2_grpc.BudgetServiceStub(channel) for channel in channels]
        await _budgets(stubs[0], "acme", _LIMIT)
        pool = await stack.enter_async_context(open_pool(url, schema="budget", size_max=4))
        crowd = await stack.enter_async_context(asyncpg.create_pool(url, min_size=16, max_size=16))
        ledger = await stack.enter_async_context(open_ledger(pool, SystemClock(), watch=Watch()))
        linger_s = Settings.model_fields["linger_s"].default
        lane = Lane(ledger.commit, batch_size_max=512, queue_size_max=20_000, linger_s=linger_s)
        await stack.enter_async_context(lane.running())
        ways = {
            "local": in_process(lane),
            "unary": unary(stubs[:1]),
            "stream": streamed(stubs[:1]),
            "replicas": unary(stubs),
            "stream_replicas": streamed(stubs),
            "reference": await reference(crowd),
            "echo": echo(channels[0]),
        }
        found: dict[str, list[tuple[int, list[float]]]] = {name: [] for name in ways}
        for turn in range(-1, rounds):
            for name, way in ways.items():
                sample = await way(time.perf_counter() + (seconds if turn >= 0 else 0.7))
                if turn >= 0:  # the first turn warms up
                    found[name].append(sample)
        admitted = await _race(stubs)
        proof = await stubs[0].VerifyLedger(budget_pb2.VerifyLedgerRequest(scope="organizations/acme"), timeout=600.0)
        return found, admitted, list(proof.differences)


def main() -> None:
    """Prints the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each way works in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", help="unused: this eval makes its own calls")
    options = parser.parse_args()
    found, admitted, differences = uvloop.run(measure(options.rounds, options.seconds))
    per_s = {name: round(statistics.median(count / options.seconds for count, _ in runs)) for name, runs in found.items()}
    p99_ms = {
        name: round(statistics.median(statistics.quantiles(sample, n=100)[98] for _, sample in runs) * 1e3, 2)
        for name, runs in found.items()
    }
    print_table(
        ("way", "reservations/s", "p99 ms of a call", "rounds"),
        [(name, per_s[name], p99_ms[name], len(runs)) for name, runs in found.items()],
    )
    print(f"admitted in the race for 20: {admitted}; differences between balances and journal: {len(differences)}")
    figures: dict[str, float | int | None] = {f"{name}_per_s": value for name, value in per_s.items()}
    figures |= {"local_p99_ms": p99_ms["local"], "unary_p99_ms": p99_ms["unary"], "raced_for_20": admitted}
    print_figures("ledger", figures | {"differences": len(differences)})


if __name__ == "__main__":
    main()
