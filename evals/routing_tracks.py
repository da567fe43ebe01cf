"""What `evals.routing` fits and judges: cascades with a frozen threshold, and orders in which prompts go to a strong model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from farthing_router.calibration.crossfit import effort_for
from farthing_router.calibration.fitting import FitSpec, Fitted, TargetUnreachable, cross_fit, fit_labelled
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.frontier import Outcomes
from farthing_router.calibration.guarantees import fixed_sequence
from farthing_router.calibration.labelled import DataTooSmall, Labelled, folds
from farthing_router.calibration.policy import FittedPolicy

from evals.routing_curves import Judged, together

FLOOR, CONFIDENCE = 0.98, 0.95
SPLITS = 200
_PARITY_CONFIDENCE = 0.5
"""The threshold is the cheapest where the out-of-fold estimate meets the target: neither hoped for nor insured. On few thousand
prompts an accuracy varies by half a point, so ZeroEval's target is a quarter of a point above gpt-4o; MMLU-Pro's is a fifth below,
of 0.7 that may be lost."""

ZEROEVAL = FitSpec(
    opening=("gemini-1.5-flash", "gpt-4o-mini-2024-07-18"),
    strong=("gpt-4o-2024-08-06", "claude-3-5-sonnet-20241022"),
    quality_ratio_min=1.003,
    confidence=_PARITY_CONFIDENCE,
)
MMLUPRO = FitSpec(
    opening=("gemini-1.5-flash-002",), strong=("gemini-1.5-pro-002",), quality_ratio_min=0.997, confidence=_PARITY_CONFIDENCE
)


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """A policy that was fitted and frozen, what it did to each judged example, and how long a decision took (median, milliseconds)."""

    policy: FittedPolicy
    judged: Judged
    decision_ms: float


def frozen(fitted: Fitted, data: Labelled) -> Frozen:
    """Lets a policy decide about examples that it never saw, one by one, as the router does."""
    policy, took = fitted.policy, []
    served, paid = np.zeros(len(data.examples)), np.zeros(len(data.examples))
    for place, each in enumerate(data.examples):
        answers = {model: each.answers[model] for model in policy.opening}
        began = time.process_time_ns()
        decision = policy.decide(each.prompt, answers)
        took.append(time.process_time_ns() - began)
        for model in decision.buy:
            answers[model] = each.answers[model]
        if decision.buy:
            decision = policy.decide(each.prompt, answers)
        served[place] = each.answers[decision.chosen or policy.strong[0]].score
        paid[place] = sum(answer.cost_usd_nanos or 0 for answer in answers.values())
    measure = policy.strong[0]
    judged = Judged(served, paid, data.score[measure], data.cost[measure])
    return Frozen(policy, judged, float(np.median(took)) / 1e6)


def held_out(data: Labelled, spec: FitSpec, *, parts: int, seed: int) -> Frozen:
    """Fits and freezes on all parts but one, and judges on that one, in turn."""
    fold = folds(data.examples, parts, seed=seed)
    done = [
        frozen(fit_labelled(data.part(np.flatnonzero(fold != part)), spec, seed=seed), data.part(np.flatnonzero(fold == part)))
        for part in range(parts)
    ]
    return Frozen(
        done[0].policy, together([each.judged for each in done]), float(np.median([each.decision_ms for each in done]))
    )


def query_only(data: Labelled, spec: FitSpec, *, seed: int) -> Outcomes:
    """The same models, decided by the prompt alone: the dearer opening model or the strong one."""
    cheap = max(spec.opening, key=lambda model: float(data.score[model].mean()))
    alone = replace(spec, opening=(cheap,), strong=spec.strong[:1], query_only=True)
    return cross_fit(data, alone, seed=seed, effort=replace(effort_for(len(data.examples)), folds=5))[0]


def parity_cost_pct(outcomes: Outcomes) -> float | None:
    """The least share of the bill, in per cent, at which a curve meets the strong model's quality; None where it never does below it."""
    points = [point for point in outcomes.curve(161) if point.quality_ratio >= 1 and point.cost_share < 1]
    return min((100 * point.cost_share for point in points), default=None)


def at_random(judged: Judged, data: Labelled, spec: FitSpec) -> float:
    """The difference in points of escalating at random at the same bill."""
    cheap = max(spec.opening, key=lambda model: float(data.score[model].mean()))
    opened = sum(data.cost[model].sum() for model in spec.opening)
    share = max(0.0, min(1.0, (judged.cost_pct / 100 * judged.bill.sum() - opened) / judged.bill.sum()))
    return float(100 * (1 - share) * (data.score[cheap].mean() - judged.strong.mean()))


@dataclass(frozen=True, slots=True)
class Promise:
    """Of many random halves: in how many the promise held on the other half, and what it cost there, both in per cent."""

    hold_pct: float
    cost_pct: float


def promised(outcomes: Outcomes, *, seed: int) -> Promise:
    """Chooses the threshold of the promise on one half of out-of-fold outcomes, and looks at the other half, many times."""
    rng = np.random.default_rng(seed)
    count = len(outcomes.kept)
    held, costs = [], []
    for _ in range(SPLITS):
        order = rng.permutation(count)
        calibration, other = outcomes.part(order[: count // 2]), outcomes.part(order[count // 2 :])
        thresholds = calibration.thresholds()
        excess = np.stack([calibration.served(each) - FLOOR * calibration.strong for each in thresholds])
        tested = fixed_sequence(excess, confidence=CONFIDENCE, horizon=len(other.kept))
        point = other.point(float(thresholds[tested.passed or 0]))
        held.append(point.quality_ratio >= FLOOR)
        costs.append(100 * point.cost_share)
    return Promise(100 * float(np.mean(held)), float(np.mean(costs)))


def learned_from(
    data: Labelled, other: Labelled | None, spec: FitSpec, sizes: Sequence[int], *, seed: int
) -> list[tuple[int, Judged | None]]:
    """What policies fitted on so many labels do to all other examples; None where no policy could be fitted."""
    order = np.random.default_rng(seed).permutation(len(data.examples))
    made: list[tuple[int, Judged | None]] = []
    for size in sizes:
        if size >= len(order):
            continue
        rest = other if other is not None else data.part(order[size:])
        try:
            made.append((size, frozen(fit_labelled(data.part(order[:size]), spec, seed=seed), rest).judged))
        except (DataTooSmall, TargetUnreachable):
            made.append((size, None))
    return made


def order_of(data: Labelled, other: Labelled | None, spec: FitSpec, *, seed: int) -> tuple[Floats, Labelled]:
    """The value of escalating each prompt, as said by what did not see it, and the examples that are judged."""
    if other is None:
        return cross_fit(data, spec, seed=seed)[0].value, data
    policy = fit_labelled(data, spec, seed=seed).policy
    values = []
    for place, each in enumerate(other.examples):
        embedding = None if other.embeddings is None else other.embeddings[place]
        if spec.query_only:
            values.append(policy.before(each.prompt, embedding=embedding).value)
        else:
            answers = {model: each.answers[model] for model in policy.opening}
            values.append(policy.decide(each.prompt, answers, embedding=embedding).value)
    return np.array(values), other


def shuffled(data: Labelled, *, seed: int) -> Labelled:
    """The same prompts and answers with the scores of other ones."""
    order = np.random.default_rng(seed).permutation(len(data.examples))
    return replace(data, score={model: scores[order] for model, scores in data.score.items()})
