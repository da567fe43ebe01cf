"""From what was asked for to a policy and what to expect of it, as people read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist

from farthing_router.calibration.examples import Example
from farthing_router.calibration.fitting import FitReport, FitSpec, Fitted, fit
from farthing_router.calibration.frontier import Interval
from farthing_router.calibration.kept import Point, Report, Span

CHARACTERS_PER_TOKEN = 4
CostOf = Callable[[str, int, int], int]
"""What a call of a model with so many prompt and answer tokens costs, in nanodollars. Raises PriceUnknown."""


def priced(examples: Sequence[Example], models: Sequence[str], cost_of: CostOf) -> tuple[list[Example], int]:
    """The examples with the cost of every answer of these models, and of how many answers it had to be reckoned from tokens: those that
    are told or, where none are, as many as their texts likely have."""
    reckoned = 0
    made = []
    for each in examples:
        answers = dict(each.answers)
        for model in models:
            answer = answers.get(model)
            if answer is None or answer.cost_usd_nanos is not None:
                continue
            inputs = answer.input_tokens or -(-len(each.prompt) // CHARACTERS_PER_TOKEN)
            outputs = answer.output_tokens or -(-len(answer.text) // CHARACTERS_PER_TOKEN)
            answers[model] = replace(answer, cost_usd_nanos=cost_of(model, inputs, outputs))
            reckoned += 1
        made.append(replace(each, answers=answers))
    return made, reckoned


def run(examples: Sequence[Example], spec: FitSpec, *, seed: int, notes: Sequence[str] = ()) -> tuple[Report, bytes]:
    """The report and the artefact of a fit. Raises what `fit` raises."""
    fitted = fit(examples, spec, seed=seed)
    return report_of(fitted, spec, notes=(*notes, *_left_out(examples, fitted.report))), fitted.policy.to_json()


def report_of(fitted: Fitted, spec: FitSpec, *, notes: Sequence[str] = ()) -> Report:
    """What a fit says, to be kept."""
    report, policy = fitted.report, fitted.policy
    strong = max(report.strong_quality, 1e-12)
    return Report(
        opening_models=policy.opening,
        strong_model=policy.strong[0],
        target=target_of(spec),
        quality_ratio_min=spec.quality_ratio_min,
        guaranteed=policy.guarantee is not None,
        confidence=spec.confidence,
        threshold=policy.threshold,
        saving=_span(report.saving),
        quality_ratio=_span(report.quality_ratio),
        risk=_risk(report.quality_ratio, spec.quality_ratio_min),
        escalated_share=report.escalated_share,
        examples=report.examples,
        query_only=policy.query_only,
        alternative_models=policy.strong[1:],
        curve=tuple(
            Point(each.threshold, each.cost_share, each.quality / strong, each.escalated_share) for each in report.curve
        ),
        notes=tuple(notes),
    )


def target_of(spec: FitSpec) -> str:
    """A target in words."""
    strong = spec.strong[0]
    if spec.quality_ratio_min is not None:
        return f"at least {100 * spec.quality_ratio_min:g} % of {strong}'s quality with {100 * spec.confidence:g} % confidence"
    if spec.saving_min is not None:
        return f"at least {100 * spec.saving_min:g} % of {strong}'s bill saved"
    return f"a point of quality for at most {spec.usd_per_quality_point:g} USD"


def _risk(ratio: Interval, floor: float | None) -> float:
    """How likely the ratio is below the floor, from how it varied when the examples were drawn again; 0 without a floor."""
    deviation = (ratio.high - ratio.low) / (2 * NormalDist().inv_cdf(0.975))
    if floor is None or not math.isfinite(deviation):
        return 0.0
    return float(ratio.value < floor) if deviation <= 0 else NormalDist().cdf((floor - ratio.value) / deviation)


def _span(given: Interval) -> Span:
    return (given.value, given.low, given.high)


def _left_out(examples: Sequence[Example], report: FitReport) -> list[str]:
    missing = len(examples) - report.examples
    return [f"{missing} of {len(examples)} examples lack an answer of a model and were left out"] if missing else []
