"""Kills the ledger while it works: after each kill it must know everything that anybody was told, once, and nothing by halves.

`python -m evals.kills [--kills 200] [--seed 1] [--data DIR]`. Callers reserve, dispatch, top up, settle, release and record, one by one
and in batches, against the budget service in a process of its own on a Postgres of its own. At random moments the process is killed
(SIGKILL), or Postgres is (an immediate shutdown, or SIGKILL of the backend that commits), or both. Then nobody asks anything until every
request in doubt was looked up, the balances, the usage and the journal were added up, and all was compared with what callers were
told. Whoever got no answer asks again with the same request id and must be told what the books say.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import uvloop
from farthing.budget.v1 import budget_pb2
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import Cluster

from evals.killable import Killable
from evals.killed_callers import ORGANIZATION, USER, Callers, Figures, new_id
from evals.report import print_figures, print_table

CALLERS = 12
_LIMIT = 9_000_000_000_000_000
_TOLD = (10, 150)
"""How many operations are acknowledged between two kills, at least and at most."""
_MOMENT_S = 0.015
"""Within this time after the last of them; a batch takes less, so that any two of its steps may be the ones."""
_PATIENCE_S = 30.0
_KINDS = ("process",) * 6 + ("postgres", "backend", "backend and process", "postgres and process")


async def answered(call: Any) -> Any:
    """What a call is answered once the ledger has come back."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.02)


async def books(host: Killable, budget_ids: list[tuple[str, str]]) -> tuple[list[Figures], int, list[str]]:
    """What each budget says, what usage says was spent, and where the journal says otherwise."""
    found = []
    for scope, budget_id in budget_ids:
        request = budget_pb2.GetBudgetRequest(scope=scope, budget_id=budget_id)
        budget = (await answered(lambda request=request: host.stub.GetBudget(request))).budget
        found.append(Figures(budget.held_usd_nanos, budget.spent_usd_nanos, budget.held_requests, budget.spent_requests))
    usage = await answered(lambda: host.stub.QueryUsage(budget_pb2.QueryUsageRequest(scope=ORGANIZATION)))
    proof = await answered(lambda: host.stub.VerifyLedger(budget_pb2.VerifyLedgerRequest(scope=ORGANIZATION), timeout=60.0))
    return found, sum(row.cost_usd_nanos for row in usage.rows), list(proof.differences)


async def _budgets(host: Killable) -> list[tuple[str, str]]:
    made = []
    for scope in (ORGANIZATION, USER):
        request = budget_pb2.CreateBudgetRequest(
            request_id=new_id(), scope=scope, period=budget_pb2.PERIOD_YEAR, limit_usd_nanos=_LIMIT
        )
        made.append((scope, (await host.stub.CreateBudget(request)).budget.budget_id))
    return made


async def compare(
    host: Killable, callers: Callers, budget_ids: list[tuple[str, str]], *, everything: bool = False
) -> Counter[str]:
    """Looks up what is in doubt, adds everything up, and counts what was lost and what was doubled."""
    wrong: Counter[str] = Counter()
    for request in callers.everything() if everything else callers.in_doubt():
        wrong += request.settle_doubt(await request.looked_up(answered, host.stub))
    expected, used = callers.expected()
    found, usage, differences = await books(host, budget_ids)
    for figures in found:
        wrong["lost"] += any(mine < its for mine, its in zip(figures, expected, strict=True))
        wrong["doubled"] += any(mine > its for mine, its in zip(figures, expected, strict=True))
    wrong["lost"] += usage < used
    wrong["doubled"] += usage > used
    wrong["differences"] += len(differences)
    return wrong


async def measure(kills: int, seed: int) -> tuple[Counter[str], Counter[str], Callers]:
    """What went wrong, how often what was killed, and the callers."""
    rng = random.Random(seed)
    wrong: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-")))
        cluster = Cluster(folder / "postgres")
        stack.enter_context(cluster.in_use())
        await asyncio.to_thread(cluster.start)
        stack.push_async_callback(asyncio.to_thread, cluster.stop_if_last)
        await migrate(cluster.url("farthing"), [CATALOG["budget"]])
        host = Killable(cluster, folder)
        stack.push_async_callback(host.close)
        await host.serve()
        budget_ids = await _budgets(host)
        callers = Callers(rng, lambda: host.stub)
        await stack.enter_async_context(callers.working(CALLERS))
        for number in range(kills):
            await callers.told(rng.randrange(*_TOLD))
            await asyncio.sleep(rng.uniform(0.0, _MOMENT_S))
            kind = _KINDS[number % len(_KINDS)] if number else "process"
            kinds[kind] += 1
            async with callers.halted() as standing_still:
                await host.kill(kind)
                await standing_still()
                wrong += await compare(host, callers, budget_ids)
        await callers.told(_TOLD[1])
        async with callers.halted() as standing_still:
            await standing_still()
            wrong += await compare(host, callers, budget_ids, everything=True)
        wrong += callers.contradictions
    return wrong, kinds, callers


def main() -> None:
    """Prints the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", help="unused: this eval makes its own calls")
    options = parser.parse_args()
    wrong, kinds, callers = uvloop.run(measure(options.kills, options.seed))
    print_table(("killed", "times"), sorted(kinds.items()))
    print_table(("operation", "acknowledged", "without an answer at first"), callers.table())
    figures: dict[str, float | int | None] = {
        "kills": options.kills,
        "acknowledged": callers.acknowledged.total(),
        "unanswered": callers.unanswered.total(),
    }
    names = ("lost", "doubled", "halves", "contradictions", "differences")
    print_figures("kills", figures | {name: wrong[name] for name in names})
    if any(wrong[name] for name in names):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
