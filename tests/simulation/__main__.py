"""`python -m tests.simulation --seed N --worlds N`: worlds on embedded Postgreses of their own; the last line is JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import uvloop
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres

from tests.simulation.stage import Stage, open_stage
from tests.simulation.world import World

STAGES = 6
"""Worlds that run side by side in a process: while one waits for the database another works."""


async def simulate(seeds: list[int]) -> list[str]:
    """The violations of some worlds."""
    violations: list[str] = []
    left = iter(seeds)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-")))
        url = await stack.enter_async_context(embedded_postgres(folder))
        await _spare_the_disk(url)
        await migrate(url, [CATALOG["budget"]])

        async def work() -> None:
            async with open_stage(url) as stage:
                for seed in left:
                    violations.extend(await _played(seed, stage))

        await asyncio.gather(*(work() for _ in range(STAGES)))
    return violations


async def _played(seed: int, stage: Stage) -> list[str]:
    """The violations of one world; to break down is one."""
    try:
        return await World(seed, stage).run()
    except Exception as error:
        return [f"seed {seed}: {type(error).__name__}: {error}"]


async def _spare_the_disk(url: str) -> None:
    """Nothing here outlives the run, so nothing need reach the disk."""
    connection = await asyncpg.connect(url)
    for setting in ("fsync", "full_page_writes"):
        await connection.execute(f"ALTER SYSTEM SET {setting} = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


def _in_processes(seed: int, worlds: int, processes: int) -> list[str]:
    """The violations of worlds that are shared out over processes."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--worlds", str(worlds)]
    children = [
        subprocess.Popen([*command, "--share", f"{number}/{processes}"], stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    found: list[str] = []
    for child in children:
        output, _ = child.communicate()
        if not output.startswith("["):
            raise RuntimeError("a part of the simulation broke off")
        found += json.loads(output)
    return found


def main() -> None:
    """Runs the worlds and prints what was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=10_000)
    parser.add_argument("--share", help="one process's part, such as 0/2; prints its violations as JSON")
    options = parser.parse_args()
    if options.share:
        number, processes = map(int, options.share.split("/"))
        seeds = list(range(options.seed, options.seed + options.worlds))[number::processes]
        print(json.dumps(uvloop.run(simulate(seeds))))
        return
    violations = _in_processes(options.seed, options.worlds, min(os.cpu_count() or 1, 1 + options.worlds // 50))
    print("\n".join(violations[:20]) or "no violation")
    print(json.dumps({"worlds": options.worlds, "violations": len(violations)}))
    if violations:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
