"""Fits a policy to labelled answers. No threshold is chosen, and nothing reported, on predictions of a scorer that saw the example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from farthing_core.errors import FarthingError, FieldInvalid

from farthing_router.calibration.crossfit import HALVES, CrossFitted, Effort, cross_fitted, effort_for
from farthing_router.calibration.examples import Example
from farthing_router.calibration.features import names_of
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.frontier import POINTS_MAX, CurvePoint, Interval, Outcomes
from farthing_router.calibration.growing import moments
from farthing_router.calibration.guarantees import examples_needed, fixed_sequence
from farthing_router.calibration.labelled import DataTooSmall, Labelled, labelled
from farthing_router.calibration.policy import Drift, FittedPolicy, Guarantee
from farthing_router.calibration.scorer import Chooser, Scorer
from farthing_router.calibration.training import Stage, train

_THRESHOLDS = 161
_BAGS = 3


class TargetUnreachable(FarthingError):
    """No threshold reaches the target; `best` is the nearest to it."""

    def __init__(self, *, best: float) -> None:
        super().__init__(f"no threshold reaches this target; the best is {best:.4g}", best=f"{best:.6g}")
        self.best = best


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSpec:
    """What to fit: one or two opening models, asked before anything else, and the strong ones, the first of which is the measure
    of quality.

    Exactly one target: at least `quality_ratio_min` of the strong model's quality with `confidence`; at least `saving_min` (a
    share) of its bill saved, at the best quality; or what a point of quality (one of 100) may cost, `usd_per_quality_point`.
    `query_only`: decide by the prompt alone between the one opening model and the strong one.
    """

    opening: tuple[str, ...]
    strong: tuple[str, ...]
    quality_ratio_min: float | None = None
    confidence: float = 0.95
    saving_min: float | None = None
    usd_per_quality_point: float | None = None
    price_weight: float = 1.0
    query_only: bool = False

    def reads(self) -> tuple[str, ...]:
        """The models whose answers the decision reads."""
        return () if self.query_only else self.opening

    def check(self) -> None:
        """Raises FieldInvalid for what cannot be."""
        targets = {"quality_ratio_min": (0, 1.5), "saving_min": (0, 1), "usd_per_quality_point": (0, 1e6)}
        given = [name for name in targets if getattr(self, name) is not None]
        if len(given) != 1:
            raise FieldInvalid(field="target", problem="exactly one of quality_ratio_min, saving_min and usd_per_quality_point")
        low, high = targets[given[0]]
        if not low < getattr(self, given[0]) < high:
            raise FieldInvalid(field=given[0], problem=f"must be above {low} and below {high}")
        if not 0.5 <= self.confidence < 1:
            raise FieldInvalid(field="confidence", problem="must be at least 0.5 and below 1")
        models = self.opening + self.strong
        if (
            not 1 <= len(self.opening) <= (1 if self.query_only else 2)
            or not 1 <= len(self.strong) <= 3
            or len(set(models)) != len(models)
        ):
            raise FieldInvalid(
                field="opening",
                problem="one or two opening models (one without reading), one to three strong ones, all different",
            )


@dataclass(frozen=True, slots=True)
class FitReport:
    """What the policy is expected to do on prompts like these, from predictions for examples that the scorer had not seen."""

    examples: int
    saving: Interval
    quality_ratio: Interval
    quality: float
    strong_quality: float
    escalated_share: float
    curve: Sequence[CurvePoint]
    drift: Drift


@dataclass(frozen=True, slots=True)
class Fitted:
    """A policy, what to expect of it, and the out-of-fold outcomes that this was read from."""

    policy: FittedPolicy
    report: FitReport
    outcomes: Outcomes


def fit(examples: Sequence[Example], spec: FitSpec, *, seed: int, embeddings: Floats | None = None) -> Fitted:
    """The policy that reaches the target of `spec` at the least cost, and its report. `embeddings` has the unit vectors of the examples'
    prompts, in their order; a policy that was fitted with them decides without, too.

    Raises FieldInvalid, ModelMissing, DataTooSmall and TargetUnreachable.
    """
    spec.check()
    return fit_labelled(labelled(examples, spec.opening + spec.strong, embeddings=embeddings), spec, seed=seed)


def fit_labelled(data: Labelled, spec: FitSpec, *, seed: int) -> Fitted:
    """The same of examples that were measured before."""
    spec.check()
    spec, fitted, outcomes, (threshold, guarantee) = _reached(data, spec, seed=seed)
    stages, choosers = _final(data, spec, fitted, seed=seed)
    policy = FittedPolicy(
        opening=spec.opening,
        strong=spec.strong,
        stages=stages,
        choosers=choosers,
        threshold=threshold,
        price_weight=spec.price_weight,
        typical_cost_usd_nanos={model: round(data.cost[model].mean()) for model in spec.opening + spec.strong},
        examples=len(data.examples),
        drift=_drift(data, spec, fitted, outcomes, threshold),
        guarantee=guarantee,
        query_only=spec.query_only,
    )
    return Fitted(policy, _report(outcomes, policy, seed=seed), outcomes)


def _reached(
    data: Labelled, spec: FitSpec, *, seed: int
) -> tuple[FitSpec, CrossFitted, Outcomes, tuple[float, Guarantee | None]]:
    """The threshold that reaches the target. A promise is about the first strong model, and others differ from it in ways that have to be
    insured: with a confidence it is tried with the first alone, too, and the cheaper policy taken."""
    best = None
    refused: FarthingError | None = None
    insured = spec.quality_ratio_min is not None and spec.confidence > 0.5
    for each in [spec, replace(spec, strong=spec.strong[:1])] if insured and len(spec.strong) > 1 else [spec]:
        outcomes, fitted = cross_fit(data, each, seed=seed)
        try:
            found = choose(outcomes, each)
        except (DataTooSmall, TargetUnreachable) as error:
            refused = refused or error
            continue
        cost = outcomes.point(found[0]).cost_share
        if best is None or cost < best[0]:
            best = (cost, each, fitted, outcomes, found)
    if best is None:
        raise refused or TargetUnreachable(best=0.0)
    return best[1:]


def cross_fit(data: Labelled, spec: FitSpec, *, seed: int, effort: Effort | None = None) -> tuple[Outcomes, CrossFitted]:
    """What the policy would do to each example as decided by scorers that did not see it."""
    effort = effort or effort_for(len(data.examples))
    fitted = cross_fitted(data, stage_of(data, spec, spec.reads(), thorough=effort.thorough), effort=effort, seed=seed)
    return fitted.outcomes(data, spec.opening, price_weight=spec.price_weight), fitted


def stage_of(data: Labelled, spec: FitSpec, reads: Sequence[str], *, thorough: bool = True) -> Stage:
    """The stage where these answers are at hand. The model that is best on the whole is served."""
    serves = max(reads or spec.opening, key=lambda model: float(data.score[model].mean()))
    return Stage(tuple(reads), serves, spec.strong, chooses=bool(reads) and thorough, thorough=thorough)


def _final(data: Labelled, spec: FitSpec, fitted: CrossFitted, *, seed: int) -> tuple[dict[str, Scorer], dict[str, Chooser]]:
    """A scorer for each set of opening answers that may be at hand, and the choosers, trained on all examples."""
    whole = train(data, fitted.stage, np.arange(len(data.examples)), seed=seed, bags=_BAGS)
    stages = {"+".join(spec.reads()): whole.scorer(fitted.blend)}
    for reads in [(model,) for model in spec.reads()] if len(spec.reads()) > 1 else []:
        alone = stage_of(data, spec, reads, thorough=False)
        stages["+".join(reads)] = train(data, alone, np.arange(len(data.examples)), seed=seed).scorer(HALVES)
    return stages, dict(whole.choosers)


def _report(outcomes: Outcomes, policy: FittedPolicy, *, seed: int) -> FitReport:
    saving, ratio = outcomes.intervals(policy.threshold, rng=np.random.default_rng(seed))
    point = outcomes.point(policy.threshold)
    return FitReport(
        examples=policy.examples,
        saving=saving,
        quality_ratio=ratio,
        quality=point.quality,
        strong_quality=float(outcomes.strong.mean()),
        escalated_share=point.escalated_share,
        curve=outcomes.curve(),
        drift=policy.drift,
    )


def choose(outcomes: Outcomes, spec: FitSpec) -> tuple[float, Guarantee | None]:
    """The threshold that reaches the target at the least cost. Raises DataTooSmall and TargetUnreachable."""
    thresholds = outcomes.thresholds(_THRESHOLDS if spec.confidence <= 0.5 else POINTS_MAX)
    points = [outcomes.point(threshold) for threshold in thresholds]
    if spec.usd_per_quality_point is not None:
        usual_usd = outcomes.strong_price.mean() / 1e9
        return float(usual_usd / (100 * spec.usd_per_quality_point)), None
    if spec.saving_min is not None:
        enough = [point for point in points if 1 - point.cost_share >= spec.saving_min]
        if not enough:
            raise TargetUnreachable(best=max(1 - point.cost_share for point in points))
        return max(enough, key=lambda point: point.quality).threshold, None
    floor = float(spec.quality_ratio_min or 0)
    excess = np.stack([outcomes.served(threshold) - floor * outcomes.strong for threshold in thresholds])
    if spec.confidence <= 0.5:
        # An even chance promises nothing: the cheapest threshold whose estimate meets the target is the least biased one.
        met = [point for point, row in zip(points, excess, strict=True) if row.mean() >= 0 and point.cost_share < 1]
        if not met:
            raise TargetUnreachable(best=max(point.quality_ratio for point in points))
        return min(met, key=lambda point: point.cost_share).threshold, None
    tested = fixed_sequence(excess, confidence=spec.confidence)
    if tested.passed is None or points[tested.passed].cost_share >= 1:
        needs = [
            needed
            for row, point in zip(excess, points, strict=True)
            if point.cost_share < 1 and (needed := examples_needed(row, confidence=spec.confidence)) is not None
        ]
        if not needs:
            raise TargetUnreachable(best=max((point.quality_ratio for point in points if point.cost_share < 1), default=0.0))
        # The estimate is the luckiest threshold's: where it says there are enough, it is too low, and half as many again are named.
        raise DataTooSmall(examples=len(outcomes.value), examples_needed=max(min(needs), -(-3 * len(outcomes.value) // 2)))
    bound = floor + tested.bound / float(outcomes.strong.mean())
    return float(thresholds[tested.passed]), Guarantee(floor, spec.confidence, bound)


def _drift(data: Labelled, spec: FitSpec, fitted: CrossFitted, outcomes: Outcomes, threshold: float) -> Drift:
    names = names_of(len(spec.reads()))
    means, deviations = moments(data.rows(spec.reads()))
    gain = fitted.gains.max(axis=1)
    confidence = np.zeros(len(gain))
    if spec.reads():
        confidence = fitted.asked.quality[:, spec.reads().index(fitted.stage.serves)]
    return Drift(
        feature_means=dict(zip(names, means.tolist(), strict=True)),
        feature_deviations=dict(zip(names, deviations.tolist(), strict=True)),
        gain_mean=float(gain.mean()),
        gain_deviation=float(gain.std()),
        confidence_mean=float(confidence.mean()),
        confidence_deviation=float(confidence.std()),
        escalated_share=float((outcomes.value > threshold).mean()),
    )
