"""Fits a policy to labelled answers. No threshold is chosen, and nothing reported, on predictions of a scorer that saw the example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from farthing_core.errors import FarthingError, FieldInvalid

from farthing_router.calibration.examples import Example
from farthing_router.calibration.features import features_of, names_of
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.frontier import CurvePoint, Interval, Outcomes
from farthing_router.calibration.growing import moments, scorer_of
from farthing_router.calibration.guarantees import examples_needed, fixed_sequence
from farthing_router.calibration.policy import Drift, FittedPolicy, Guarantee
from farthing_router.calibration.scorer import Scorer

EXAMPLES_MIN = 60
_FOLDS, _REPEATS = 8, 2


class DataTooSmall(FarthingError):
    """The data cannot support what is asked of them; `examples_needed` as estimated from how much they vary."""

    def __init__(self, *, examples: int, examples_needed: int) -> None:
        super().__init__(
            f"{examples} labelled examples cannot support this promise; about {examples_needed} would",
            examples=examples,
            examples_needed=examples_needed,
        )
        self.examples, self.examples_needed = examples, examples_needed


class ModelMissing(FarthingError):
    """A model that is to be fitted has no labelled answers, or none with a price."""

    def __init__(self, *, model: str, problem: str) -> None:
        super().__init__(f"{model}: {problem}", model=model)


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
    """A policy and what to expect of it."""

    policy: FittedPolicy
    report: FitReport


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Examples that have an answer of every model of a spec; scores and costs by model."""

    examples: Sequence[Example]
    score: Mapping[str, Floats]
    cost: Mapping[str, Floats]


def fit(examples: Sequence[Example], spec: FitSpec, *, seed: int) -> Fitted:
    """The policy that reaches the target of `spec` at the least cost, and its report.

    Raises FieldInvalid, ModelMissing, DataTooSmall and TargetUnreachable.
    """
    spec.check()
    data = labelled(examples, spec.opening + spec.strong)
    outcomes, heads = cross_fit(data, spec, seed=seed)
    threshold, guarantee = choose(outcomes, spec)
    policy = FittedPolicy(
        opening=spec.opening,
        strong=spec.strong,
        stages=stages_of(data, spec, seed=seed),
        threshold=threshold,
        price_weight=spec.price_weight,
        typical_cost_usd_nanos={model: round(cost.mean()) for model, cost in data.cost.items()},
        examples=len(data.examples),
        drift=_drift(data, spec, outcomes, heads, threshold),
        guarantee=guarantee,
        query_only=spec.query_only,
    )
    saving, ratio = outcomes.intervals(threshold, rng=np.random.default_rng(seed))
    point = outcomes.point(threshold)
    report = FitReport(
        examples=len(data.examples),
        saving=saving,
        quality_ratio=ratio,
        quality=point.quality,
        strong_quality=float(outcomes.strong.mean()),
        escalated_share=point.escalated_share,
        curve=outcomes.curve(),
        drift=policy.drift,
    )
    return Fitted(policy, report)


def labelled(examples: Sequence[Example], models: Sequence[str]) -> Labelled:
    """The examples that have priced answers of all models. Raises ModelMissing and DataTooSmall."""
    for model in models:
        answers = [each.answers[model] for each in examples if model in each.answers]
        if not answers:
            raise ModelMissing(model=model, problem="has no labelled answer")
        if any(answer.cost_usd_nanos is None for answer in answers):
            raise ModelMissing(model=model, problem="has answers without a cost")
    chosen = [each for each in examples if all(model in each.answers for model in models)]
    if len(chosen) < EXAMPLES_MIN:
        raise DataTooSmall(examples=len(chosen), examples_needed=EXAMPLES_MIN)
    return Labelled(
        chosen,
        {model: np.array([each.answers[model].score for each in chosen]) for model in models},
        {model: np.array([float(each.answers[model].cost_usd_nanos or 0) for each in chosen]) for model in models},
    )


def cross_fit(data: Labelled, spec: FitSpec, *, seed: int) -> tuple[Outcomes, Floats]:
    """What the policy would do to each example as decided by scorers that did not see it, and the scorers' heads."""
    rows = _rows(data, spec.reads())
    targets, serves = _targets(data, spec, spec.reads())
    heads = np.zeros(targets.shape)
    for repeat in range(_REPEATS):
        fold = folds(data.examples, _FOLDS, seed=seed + repeat)
        for number in range(_FOLDS):
            held, rest = fold == number, fold != number
            scorer = scorer_of(
                rows[rest], targets[rest], reads=spec.reads(), serves=serves, prospects=spec.strong, seed=seed + number
            )
            heads[held] += scorer.of_rows(rows[held]) / _REPEATS
    return outcomes_of(data, spec, heads, serves), heads


def outcomes_of(data: Labelled, spec: FitSpec, heads: Floats, serves: str) -> Outcomes:
    """Quality and cost of each example under predicted heads."""
    measure = spec.strong[0]
    usual = data.cost[measure].mean()
    gains = heads[:, len(spec.reads()) :]
    prices = np.stack([np.full(len(heads), data.cost[model].mean()) for model in spec.strong], axis=1)
    values = gains / np.clip(prices / usual, 1e-3, 1e3) ** spec.price_weight
    best = values.argmax(axis=1)
    index = np.arange(len(heads))
    return Outcomes(
        value=values[index, best],
        kept=data.score[serves],
        escalated=np.stack([data.score[model] for model in spec.strong], axis=1)[index, best],
        paid=np.sum([data.cost[model] for model in spec.opening], axis=0),
        price=np.stack([data.cost[model] for model in spec.strong], axis=1)[index, best],
        strong=data.score[measure],
        strong_price=data.cost[measure],
    )


def choose(outcomes: Outcomes, spec: FitSpec) -> tuple[float, Guarantee | None]:
    """The threshold that reaches the target at the least cost. Raises DataTooSmall and TargetUnreachable."""
    thresholds = outcomes.thresholds()
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
    tested = fixed_sequence(excess, confidence=spec.confidence)
    if tested.passed is None or points[tested.passed].cost_share >= 1:
        needs = [
            needed
            for row, point in zip(excess, points, strict=True)
            if point.cost_share < 1 and (needed := examples_needed(row, confidence=spec.confidence)) is not None
        ]
        if not needs:
            raise TargetUnreachable(best=max((point.quality_ratio for point in points if point.cost_share < 1), default=0.0))
        raise DataTooSmall(examples=len(outcomes.value), examples_needed=max(min(needs), len(outcomes.value) + 1))
    bound = floor + tested.bound / float(outcomes.strong.mean())
    return float(thresholds[tested.passed]), Guarantee(floor, spec.confidence, bound)


def stages_of(data: Labelled, spec: FitSpec, *, seed: int) -> dict[str, Scorer]:
    """A scorer for each set of opening answers that may be at hand, fitted on all examples."""
    read = spec.reads()
    sets = [reads for size in range(1, len(read) + 1) for reads in combinations(read, size)] or [()]
    stages = {}
    for reads in sets:
        targets, serves = _targets(data, spec, reads)
        stages["+".join(reads)] = scorer_of(
            _rows(data, reads), targets, reads=reads, serves=serves, prospects=spec.strong, seed=seed
        )
    return stages


def folds(examples: Sequence[Example], count: int, *, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The fold of each example; all that have the same prompt are in the same one."""
    keys = sorted({each.key for each in examples})
    order = np.random.default_rng(seed).permutation(len(keys))
    fold = dict(zip(keys, (order % count).tolist(), strict=True))
    return np.array([fold[each.key] for each in examples])


def _rows(data: Labelled, reads: Sequence[str]) -> Floats:
    return np.stack([features_of(each.prompt, [each.answers[model] for model in reads]) for each in data.examples])


def _targets(data: Labelled, spec: FitSpec, reads: Sequence[str]) -> tuple[Floats, str]:
    """One column a head, and the model whose answer is served: the one that is best on the whole."""
    serves = max(reads or spec.opening, key=lambda model: float(data.score[model].mean()))
    quality = [data.score[model] for model in reads]
    return np.stack(quality + [data.score[model] - data.score[serves] for model in spec.strong], axis=1), serves


def _drift(data: Labelled, spec: FitSpec, outcomes: Outcomes, heads: Floats, threshold: float) -> Drift:
    rows = _rows(data, spec.reads())
    names = names_of(len(spec.reads()))
    means, deviations = moments(rows)
    gain = heads[:, len(spec.reads())]
    confidence = heads[:, 0] if spec.reads() else np.zeros(len(heads))
    return Drift(
        feature_means=dict(zip(names, means.tolist(), strict=True)),
        feature_deviations=dict(zip(names, deviations.tolist(), strict=True)),
        gain_mean=float(gain.mean()),
        gain_deviation=float(gain.std()),
        confidence_mean=float(confidence.mean()),
        confidence_deviation=float(confidence.std()),
        escalated_share=float((outcomes.value > threshold).mean()),
    )
