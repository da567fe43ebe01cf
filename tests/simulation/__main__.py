"""`python -m tests.simulation --seed N --worlds N`: worlds on an embedded Postgres of their own; the last line is JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.postgres import open_ledger
from farthing_core.clock import ManualClock
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres, open_pool

from tests.simulation.world import run_world


async def simulate(seed: int, worlds: int) -> list[str]:
    """The violations of some worlds."""
    violations: list[str] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-")))
        url = await stack.enter_async_context(embedded_postgres(folder))
        await migrate(url, [CATALOG["budget"]])
        clock, replicas = ManualClock(), []
        for _ in range(2):
            pool = await stack.enter_async_context(open_pool(url, schema="budget", size_max=3))
            replicas.append(await stack.enter_async_context(open_ledger(pool, clock)))
        for number in range(seed, seed + worlds):
            violations += await run_world(number, replicas, PostgresBudgets(pool, clock), clock)
    return violations


def main() -> None:
    """Runs the worlds and prints what was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=20)
    options = parser.parse_args()
    violations = asyncio.run(simulate(options.seed, options.worlds))
    print("\n".join(violations[:20]) or "no violation")
    print(json.dumps({"worlds": options.worlds, "violations": len(violations)}))
    if violations:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
