"""Learning whom to ask, from late and partial feedback, on recorded answers.

    python -m evals.bandit --data DIR [--feedback 0.3] [--points 5] [--orders 5]

Every question is asked once, in a shuffled order; a policy picks one of the recorded models and pays for its answer. On a share of the
answers somebody says later whether they were right. The reward of an answer is its quality minus its cost at the price of quality: the
reference model's mean bill for a request is worth `--points` points (hundredths) of quality. Regret is measured against the best model for
each prompt, known afterwards.

The policies: Farthing's own (the code that serves), and ε-greedy, UCB1 and LinUCB (Li et al., 2010) on the same contexts, the same feedback
and with costs known beforehand, each at the setting of its grid that did best on orders of their own. The floor: in every window of 200
requests at least 90 % of the answers that the reference model gets right in that very window.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evals.report import print_figures, print_table
from evals.routing_players import EpsilonGreedy, Learned, LinUcb, Player, Reference, Ucb1
from evals.routing_stream import Floats, Stream, Trace, follow, read_streams

FLOOR_SHARE, WINDOW = 0.9, 200
_TUNING_ORDERS = 2
Maker = Callable[[Stream, int], Player]
GRIDS: dict[str, tuple[str, Sequence[float]]] = {
    "epsilon_greedy": ("ε", (0.01, 0.03, 0.1, 0.2)),
    "ucb1": ("c", (0.05, 0.15, 0.5, 1.0)),
    "linucb": ("α", (0.1, 0.3, 0.6, 1.0)),
}


def maker(name: str, setting: float) -> Maker:
    """Makes a policy with a setting."""
    makers: dict[str, Maker] = {
        "epsilon_greedy": lambda stream, seed: EpsilonGreedy(stream, setting, seed),
        "ucb1": lambda stream, seed: Ucb1(stream, setting),
        "linucb": lambda stream, seed: LinUcb(stream, setting),
    }
    return makers[name]


@dataclass(frozen=True, slots=True)
class Result:
    """What a policy came to over several orders, as means of an order: regret, windows under the floor, the tightest window (share of its
    requests), cost and accuracy against the reference."""

    regret: float
    violations: int
    margin: float
    cost_pct: float
    accuracy_delta: float


def result(stream: Stream, traces: Sequence[Trace]) -> Result:
    """Sums up what a policy did on several orders."""
    regret, violations, margin, cost, accuracy = 0.0, 0, 1.0, 0.0, 0.0
    for trace in traces:
        reward = stream.reward()[trace.order]
        regret += float((reward.max(axis=1) - reward[np.arange(len(trace.order)), trace.arms]).sum())
        got = stream.correct[trace.order, trace.arms]
        reference = stream.correct[trace.order, stream.reference]
        excess = np.convolve(got - FLOOR_SHARE * reference, np.ones(WINDOW), "valid")
        violations += int((excess < -1e-9).sum())
        margin = min(margin, float(excess.min()) / WINDOW)
        cost += float(stream.cost[trace.order, trace.arms].sum() / stream.cost[:, stream.reference].sum())
        accuracy += float(got.mean() - reference.mean())
    count = len(traces)
    return Result(regret / count, violations, margin, 100 * cost / count, 100 * accuracy / count)


def tuned(stream: Stream, name: str, *, feedback: float) -> tuple[str, Maker]:
    """The setting of a baseline's grid with the least regret on orders that are not judged."""
    best: tuple[float, str, Maker] | None = None
    symbol, settings = GRIDS[name]
    for setting in settings:
        make = maker(name, setting)
        traces = [
            follow(stream, make(stream, 1000 + order), seed=1000 + order, feedback=feedback) for order in range(_TUNING_ORDERS)
        ]
        regret = result(stream, traces).regret
        if best is None or regret < best[0]:
            best = (regret, f"{symbol} = {setting}", make)
    assert best is not None
    return best[1], best[2]


def judged(stream: Stream, given: argparse.Namespace) -> dict[str, tuple[str, Result]]:
    """What every policy came to on the judged orders, with its setting."""
    makers: dict[str, tuple[str, Maker]] = {
        "learned": ("as it serves", lambda stream, seed: Learned(stream, seed)),
        **{name: tuned(stream, name, feedback=given.feedback) for name in GRIDS},
        "reference": (stream.models[stream.reference], lambda stream, seed: Reference(stream)),
    }
    found = {}
    for name, (label, make) in makers.items():
        traces = [follow(stream, make(stream, order), seed=order, feedback=given.feedback) for order in range(given.orders)]
        found[name] = (label, result(stream, traces))
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the eval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--feedback", type=float, default=0.3)
    parser.add_argument("--points", type=float, default=5.0)
    parser.add_argument("--orders", type=int, default=4)
    given = parser.parse_args(arguments)
    began = time.monotonic()
    rows: list[tuple[object, ...]] = []
    total = dict.fromkeys(("learned", *GRIDS), 0.0)
    own: dict[str, Result] = {}
    for stream in read_streams(given.data, points=given.points):
        for name, (label, found) in judged(stream, given).items():
            rows.append((stream.name, name, label, *_cells(found)))
            if name in total:
                total[name] += found.regret
            if name == "learned":
                own[stream.name] = found
        single = int(stream.reward().mean(axis=0).argmax())
        rows.append(
            (stream.name, "best single model", stream.models[single], f"{_regret_of(stream, single):.1f}", "", "", "", "")
        )
    header = ("data", "policy", "setting", "regret", "cost % of reference", "accuracy Δ points")
    print_table((*header, "windows under floor", "tightest window, points"), rows)
    print(f"\n{given.orders} orders, feedback on {given.feedback:.0%} of the answers, {time.monotonic() - began:.0f} s")
    print_figures(
        "bandit",
        {
            "regret": round(total["learned"], 1),
            **{f"regret_{name}": round(total[name], 1) for name in GRIDS},
            "floor_violations": sum(each.violations for each in own.values()),
            "worst_window_margin": round(min(each.margin for each in own.values()), 4),
            "cost_pct": round(float(np.mean([each.cost_pct for each in own.values()])), 1),
            "accuracy_delta": round(float(np.mean([each.accuracy_delta for each in own.values()])), 2),
            **{f"{name}_cost_pct": round(each.cost_pct, 1) for name, each in own.items()},
            **{f"{name}_accuracy_delta": round(each.accuracy_delta, 2) for name, each in own.items()},
        },
    )
    return 0


def _cells(found: Result) -> tuple[object, ...]:
    return (
        f"{found.regret:.1f}",
        f"{found.cost_pct:.1f}",
        f"{found.accuracy_delta:+.2f}",
        found.violations,
        f"{100 * found.margin:+.1f}",
    )


def _regret_of(stream: Stream, model: int) -> float:
    reward: Floats = stream.reward()
    return float((reward.max(axis=1) - reward[:, model]).sum())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
