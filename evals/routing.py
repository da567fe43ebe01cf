"""Routing: how much of a strong model's bill a fitted policy saves at no less quality, on recorded answers of real models.

python -m evals.routing --data DIR [--judge DIR]: policies are fitted on DIR and their thresholds frozen by cross-fitting. Without --judge
they are fitted on all folds but one and judged on that one; with it they are fitted on all of DIR and judged on the other folder, which has
files of the same names. Every bought answer is charged. One core; seeded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from farthing_router.calibration.crossfit import QUICK
from farthing_router.calibration.examples import Example
from farthing_router.calibration.fitting import FitSpec, cross_fit, fit_labelled
from farthing_router.calibration.labelled import Labelled, labelled

from evals.report import print_figures, print_table
from evals.routing_curves import Judged, recovered, recovered_interval
from evals.routing_data import GPT4, MIXTRAL, embeddings_of, read_gsm8k, read_mmlu, read_mmlupro, read_zeroeval
from evals.routing_tracks import (
    MMLUPRO,
    SPLITS,
    ZEROEVAL,
    at_random,
    frozen,
    held_out,
    learned_from,
    order_of,
    parity_cost_pct,
    promised,
    query_only,
    shuffled,
)

_SEED = 7
_LABELS = (100, 300, 1000)
_LEARNING = 0.99
"""The target of policies that are fitted on few labels, in the strong model's quality: one that all of them can meet."""
_SHUFFLES = 40
Figures = dict[str, float | int | None]
_NAMES = (
    "zeroeval_cost_pct zeroeval_accuracy_delta mmlupro_cost_pct mmlupro_accuracy_delta gsm8k_apgr gsm8k_cpt50 gsm8k_cpt80 mmlu_apgr "
    "mmlu_cpt50 mmlu_cpt80 shuffled_apgr guarantee_hold_pct guarantee_cost_pct guarantee_hold_pct_mmlupro guarantee_cost_pct_mmlupro "
    "decision_ms"
).split()


def main() -> None:
    """Runs every track that the folder has data for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--models", type=Path, default=Path(gettempdir()) / "farthing-models", help="where the encoder is kept")
    arguments = parser.parse_args()
    figures: Figures = dict.fromkeys(_NAMES)
    for name, read, spec, parts in (("zeroeval", read_zeroeval, ZEROEVAL, 5), ("mmlupro", read_mmlupro, MMLUPRO, 3)):
        data, other = _both(read(arguments.data), read(arguments.judge) if arguments.judge else None, spec)
        if data is not None and (other is not None or not arguments.judge):
            _cascade(name, data, other, spec, parts, figures)
    pair = FitSpec(opening=(MIXTRAL,), strong=(GPT4,), saving_min=0.5)
    data, other = _both(read_gsm8k(arguments.data), read_gsm8k(arguments.judge) if arguments.judge else None, pair)
    if data is not None and (other is not None or not arguments.judge):
        _ordered("gsm8k", data, other, pair, figures)
        _control(data, pair, figures)
    alone = replace(pair, query_only=True)
    data, other = _both(
        read_mmlu(arguments.data), read_mmlu(arguments.judge) if arguments.judge else None, alone, models=arguments.models
    )
    if data is not None and (other is not None or not arguments.judge):
        _ordered("mmlu", data, other, alone, figures)
    holds = [figures[name] for name in ("guarantee_hold_pct", "guarantee_hold_pct_mmlupro")]
    known = [hold for hold in holds if hold is not None]
    figures["guarantee_hold_pct"] = min(known) if known else None
    print_figures("routing", {name: None if value is None else round(value, 3) for name, value in figures.items()})


def _both(
    data: Sequence[Example] | None, other: Sequence[Example] | None, spec: FitSpec, *, models: Path | None = None
) -> tuple[Labelled | None, Labelled | None]:
    measured = [
        None
        if each is None
        else labelled(
            each,
            spec.opening + spec.strong,
            embeddings=None if models is None else embeddings_of([one.prompt for one in each], models),
        )
        for each in (data, other)
    ]
    return measured[0], measured[1]


def _cascade(name: str, data: Labelled, other: Labelled | None, spec: FitSpec, parts: int, figures: Figures) -> None:
    whole = fit_labelled(data, spec, seed=_SEED)
    done = held_out(data, spec, parts=parts, seed=_SEED) if other is None else frozen(whole, other)
    judged, rest = done.judged, data if other is None else other
    by_prompt = parity_cost_pct(query_only(rest, spec, seed=_SEED))
    measure = spec.strong[0]
    print(f"\n{name}: {len(judged.served)} judged, {measure} {100 * judged.strong.mean():.2f} % right")
    strong = Judged(judged.strong, judged.bill, judged.strong, judged.bill)
    print_table(
        ("way", "% of the bill", "accuracy, points"),
        [
            _row("cascade, frozen", judged),
            _row(f"always {measure}", strong),
            ("at random, same bill", f"{judged.cost_pct:.1f}", f"{at_random(judged, rest, spec):+.2f}"),
            ("by the prompt alone, at parity", "never" if by_prompt is None else f"{by_prompt:.1f}", "+0.00"),
            *(
                _row(f"99 % from {size} labels", each) if each is not None else (f"99 % from {size} labels", "refused", "")
                for size, each in (
                    learned_from(data, other, replace(spec, quality_ratio_min=_LEARNING), _LABELS, seed=_SEED)
                    if name == "zeroeval"
                    else []
                )
            ),
        ],
    )
    alone = whole.outcomes if len(spec.strong) == 1 else cross_fit(data, replace(spec, strong=spec.strong[:1]), seed=_SEED)[0]
    kept = promised(alone, seed=_SEED)
    print(
        f"98 % of its quality with 95 % confidence: held in {kept.hold_pct:.1f} % of {SPLITS} splits at {kept.cost_pct:.1f} % of the bill"
    )
    print(f"a decision takes {done.decision_ms:.2f} ms")
    figures[f"{name}_cost_pct"], figures[f"{name}_accuracy_delta"] = judged.cost_pct, judged.delta
    suffix = "" if name == "zeroeval" else f"_{name}"
    figures[f"guarantee_hold_pct{suffix}"], figures[f"guarantee_cost_pct{suffix}"] = kept.hold_pct, kept.cost_pct
    figures["decision_ms"] = max(done.decision_ms, figures["decision_ms"] or 0.0)


def _row(name: str, judged: Judged) -> tuple[str, str, str]:
    cost, delta = judged.interval(seed=_SEED)
    return (
        name,
        f"{judged.cost_pct:.1f} ({cost[0]:.1f} to {cost[1]:.1f})",
        f"{judged.delta:+.2f} ({delta[0]:+.2f} to {delta[1]:+.2f})",
    )


def _ordered(name: str, data: Labelled, other: Labelled | None, spec: FitSpec, figures: Figures) -> None:
    values, judged = order_of(data, other, spec, seed=_SEED)
    weak, strong = judged.score[MIXTRAL], judged.score[GPT4]
    found = recovered(values, weak, strong)
    low, high = recovered_interval(values, weak, strong, seed=_SEED)
    chance = recovered(np.random.default_rng(_SEED).random(len(weak)), weak, strong)
    rows = [("fitted", found), ("at random", chance)]
    if not spec.query_only:
        alone, _ = order_of(data, other, replace(spec, query_only=True), seed=_SEED)
        rows.insert(1, ("by the prompt alone", recovered(alone, weak, strong)))
    print(f"\n{name}: {len(weak)} judged, {MIXTRAL} {100 * weak.mean():.2f} %, {GPT4} {100 * strong.mean():.2f} % right")
    print_table(
        ("way", "APGR", "CPT50", "CPT80"),
        [(way, f"{one.apgr:.3f}", f"{one.cpt50:.1f}", f"{one.cpt80:.1f}") for way, one in rows],
    )
    print(
        f"95 % intervals: {low.apgr:.3f} to {high.apgr:.3f}, {low.cpt50:.1f} to {high.cpt50:.1f}, {low.cpt80:.1f} to {high.cpt80:.1f}"
    )
    figures |= {f"{name}_apgr": found.apgr, f"{name}_cpt50": found.cpt50, f"{name}_cpt80": found.cpt80}


def _control(data: Labelled, spec: FitSpec, figures: Figures) -> None:
    found = []
    for number in range(_SHUFFLES):
        outcomes, _ = cross_fit(shuffled(data, seed=_SEED + number), spec, seed=_SEED + number, effort=QUICK)
        found.append(recovered(outcomes.value, data.score[MIXTRAL], data.score[GPT4]).apgr)
    figures["shuffled_apgr"] = float(np.mean(found))
    print(f"learned from shuffled labels ({_SHUFFLES} times): APGR {np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")


if __name__ == "__main__":
    main()
