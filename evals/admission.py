"""Who is let in, and who is cut, when holds are sized by what was learned: a real trace of arrivals, replayed faster than it came.

`python -m evals.admission --data DIR [--judge FILE] [--quick]`. Budgets are ample (2 to 20 % above what all requests cost: every denial
is false) or scarce (2, 10 or 50 % of it: what answers in full cost, against a clairvoyant who admits, first come first served, all that
still fits). Answers stream at 50 tokens a second, at 2.50 dollars a million tokens of input and 10 of output; callers send max_tokens
4,096, or four times that as often as the longest answer takes. Beside it the usual ways: a rolling 97 % quantile with top-ups, 4,096 or
16,384 tokens held. Then what is harder: 2 and 16 replicas that each learn from their own share, answers three times as long from the
middle of the trace on, its first 500 requests alone and five minutes of it alone, nothing learned before. At last one stretch goes
through the real Postgres ledger, to see that it decides the same.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from farthing_budget.budgets import Draft
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.postgres import open_ledger
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrate
from farthing_runtime.postgres import embedded_postgres, open_pool

from evals.memory_ledger import ORGANIZATION, START, MemoryLedger, budgets_of
from evals.report import print_figures, print_table
from evals.streams import Caller, Request, Tally, clairvoyant, cost_of, read_trace, replay, scope_of

AMPLE = (1.02, 1.05, 1.10, 1.20)
SCARCE = (0.02, 0.10, 0.50)
SPEEDS = (10, 50)
_TRACE = "budget/azure2023_requests.csv.gz"
_LEARNED = "learned"
_BASELINES: tuple[str | int, ...] = ("q97", 4_096, 16_384)
_DATABASE_REQUESTS = 1_500
_PROCESSES = 2
_REQUESTS_MAX = 40_000
"""Of a longer trace only the cases that the main figures are taken from are replayed."""


class Case(NamedTuple):
    """One replay: which part of the trace, how fast, the budget as a share of what all of it costs, and who decides how."""

    part: str
    speed: int
    share: float
    policy: str | int = _LEARNED
    replicas: int = 1


class Result(NamedTuple):
    """What came of a case, in per cent: of all requests, of what the clairvoyant spends, of those admitted; and nanodollars."""

    case: Case
    denied_pct: float
    completed_pct: float
    cut_pct: float
    over_usd_nanos: int


def part_of(trace: Sequence[Request], part: str) -> list[Request]:
    """A part of the trace, or what was made of it."""
    if part == "first 500":
        return list(trace[:500])
    if part == "5 minutes":
        begin_s = trace[-1].at_s / 2
        return [each._replace(at_s=each.at_s - begin_s) for each in trace if begin_s <= each.at_s < begin_s + 300]
    if part == "x3 from half":
        middle = len(trace) // 2
        return [*trace[:middle], *(each._replace(output_tokens=3 * each.output_tokens) for each in trace[middle:])]
    return list(trace)


def cases(*, quick: bool) -> list[Case]:
    """All that is replayed."""
    found = [Case("all", speed, share) for speed in SPEEDS for share in (*AMPLE, *SCARCE)]
    if quick:
        return found
    found += [Case("all", speed, share, replicas=16) for speed in SPEEDS for share in (1.02, 0.02, 0.10)]
    found += [Case("all", 50, share, replicas=2) for share in (0.02, 0.10)]
    found += [Case("x3 from half", speed, share) for speed in SPEEDS for share in (0.10, 0.50)] + [
        Case("x3 from half", 50, 1.02)
    ]
    found += [Case(part, speed, share) for part in ("first 500", "5 minutes") for speed in SPEEDS for share in (1.02, *SCARCE)]
    return found + [Case("all", 50, share, policy) for policy in _BASELINES for share in (1.02, 0.10)]


def tokens_max_of(requests: Sequence[Request]) -> int:
    """The max_tokens that callers send."""
    tokens = 4_096
    while tokens < max(each.output_tokens for each in requests):
        tokens *= 4
    return tokens


def run(path: Path, case: Case) -> Result:
    """Replays one case in memory."""
    requests = part_of(read_trace(path), case.part)
    limit = int(sum(map(cost_of, requests)) * case.share)
    ledger = MemoryLedger(budgets_of(_paths(requests), limit), limit, replicas=case.replicas)
    steps = replay(requests, speed=case.speed, caller=Caller(case.policy, tokens_max_of(requests)))
    try:
        at_s, operations = next(steps)
        while True:
            at_s, operations = steps.send(ledger.commit(at_s, operations))
    except StopIteration as ended:
        tally: Tally = ended.value
    left = [each for each in ledger.balances.values() if each.held_usd_nanos or each.held_requests or each.risk]
    if left:
        raise AssertionError(f"{case}: something is still held though every stream ended")
    return Result(
        case,
        100.0 * tally.denied / len(requests),
        100.0 * tally.completed_usd_nanos / clairvoyant(requests, limit),
        100.0 * tally.cut / max(1, tally.admitted),
        ledger.over_usd_nanos,
    )


async def decided_in_postgres(requests: Sequence[Request], *, speed: int, share: float) -> tuple[int, int, int]:
    """Replays through the real ledger and in memory: how many decisions, how many of them differ, and nanodollars above the limit."""
    limit = int(sum(map(cost_of, requests)) * share)
    budgets = budgets_of(_paths(requests), limit)
    caller = Caller(_LEARNED, tokens_max_of(requests))
    memory, clock = MemoryLedger(budgets, limit), ManualClock(START)
    decisions = differing = over = 0
    with tempfile.TemporaryDirectory(prefix="farthing-") as folder:
        async with embedded_postgres(Path(folder)) as url:
            await migrate(url, [CATALOG["budget"]])
            async with open_pool(url, schema="budget", size_max=4) as pool, open_ledger(pool, clock) as ledger:
                kept = PostgresBudgets(pool, clock)
                for number, terms in enumerate(budgets):
                    await kept.create(Draft(terms, f"00000000-0000-4000-9000-{number:012x}", b"", clock.now()))
                steps = replay(requests, speed=speed, caller=caller)
                try:
                    at_s, operations = next(steps)
                    while True:
                        clock.jump(START + timedelta(seconds=at_s))
                        verdicts = await ledger.commit(operations)
                        expected = memory.commit(at_s, operations)
                        decisions += len(verdicts)
                        differing += sum(
                            _outcome(one) != _outcome(other) for one, other in zip(verdicts, expected, strict=True)
                        )
                        at_s, operations = steps.send(verdicts)
                except StopIteration:
                    pass
                for terms in budgets:
                    balance = (await kept.get(ORGANIZATION, terms.budget_id)).balance
                    over = max(over, balance.spent_usd_nanos + balance.held_usd_nanos - limit)
    return decisions, differing, over


def _outcome(verdict: object) -> tuple[str, int]:
    hold = getattr(verdict, "hold", None)
    return type(verdict).__name__, hold.amount_usd_nanos if hold else 0


def _paths(requests: Sequence[Request]) -> list[str]:
    services = sorted({each.service for each in requests})
    return [f"organizations/{ORGANIZATION}", *(parse_scope(scope_of(service)).path for service in services)]


def figures_of(results: Sequence[Result], in_postgres: tuple[int, int, int]) -> dict[str, float | int | None]:
    """The worst of each kind."""
    learned = [each for each in results if each.case.policy == _LEARNED]
    plain = [each for each in learned if each.case.part == "all" and each.case.replicas == 1]
    crowd = [each for each in learned if each.case.replicas == 16]
    figures: dict[str, float | int | None] = {
        f"false_denials_pct_{speed}x": max(
            round(each.denied_pct, 4) for each in plain if each.case.share > 1 and each.case.speed == speed
        )
        for speed in SPEEDS
    }
    figures |= {
        "overshoot_nanos": max(in_postgres[2], *(each.over_usd_nanos for each in learned)),
        "scarce_vs_clairvoyant_pct": min(round(each.completed_pct, 3) for each in plain if each.case.share < 1),
        "cut_pct": max(round(each.cut_pct, 4) for each in plain),
        "postgres_decisions": in_postgres[0],
        "postgres_decided_otherwise": in_postgres[1],
    }
    if crowd:
        figures |= {
            "replicas16_false_denials_pct": max(round(each.denied_pct, 4) for each in crowd if each.case.share > 1),
            "replicas16_scarce_vs_clairvoyant_pct": min(round(each.completed_pct, 3) for each in crowd if each.case.share < 1),
            "replicas16_cut_pct": max(round(each.cut_pct, 4) for each in crowd),
        }
    return figures


def main() -> None:
    """Prints the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(), help="the folder of the data sets")
    parser.add_argument("--judge", type=Path, help="another trace of the same columns instead")
    parser.add_argument("--quick", action="store_true", help="only the cases that the main figures are taken from")
    options = parser.parse_args()
    path = options.judge or options.data / _TRACE
    trace = read_trace(path)
    with ProcessPoolExecutor(_PROCESSES) as processes:
        asked = [each for each in cases(quick=options.quick or len(trace) > _REQUESTS_MAX) if part_of(trace, each.part)]
        longest_first = sorted(range(len(asked)), key=lambda number: -asked[number].share)
        found = processes.map(run, [path] * len(asked), [asked[number] for number in longest_first])
        results = [result for _, result in sorted(zip(longest_first, found, strict=True))]
    print_table(
        ("requests", "speed", "budget", "holds", "replicas", "denied %", "of clairvoyant %", "cut %", "above limit $"),
        [
            (
                each.case.part,
                f"{each.case.speed}x",
                f"{100 * each.case.share:g} %",
                each.case.policy,
                each.case.replicas,
                f"{each.denied_pct:.3f}" if each.case.share > 1 else "",
                f"{each.completed_pct:.3f}" if each.case.share < 1 else "",
                f"{each.cut_pct:.3f}",
                each.over_usd_nanos / 1e9,
            )
            for each in results
        ],
    )
    in_postgres = asyncio.run(decided_in_postgres(trace[:_DATABASE_REQUESTS], speed=50, share=0.5))
    print(f"through Postgres: {in_postgres[0]} decisions, {in_postgres[1]} of them not as in memory")
    print_figures("admission", figures_of(results, in_postgres))


if __name__ == "__main__":
    main()
