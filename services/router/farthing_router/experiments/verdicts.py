"""What the sums of an experiment say: how its arms do, and whether it goes on, grows, is decided, or has to stop.

All intervals of an experiment hold together, at every moment, with its confidence: the chance of being wrong is shared out evenly among its
arms, what is looked at (the metric, quality and failures: an arm that is cheap because it fails is no good arm) and a canary's steps. A
canary's arms are compared by what came since its share last changed; otherwise a time of day at which everything is worse would look like
harm, because the arms have different shares of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from farthing_router.experiments.statistics import (
    Compared,
    difference,
    interval,
    paired_difference,
    paired_ratio_of_typical,
    ratio_of_means,
    ratio_of_typical,
)
from farthing_router.experiments.tallies import Tally, added
from farthing_router.experiments.terms import Arm, Experiment, Kind, Metric, Standing, State

Tallies = Mapping[tuple[int, str], Tally]
"""Sums by step and arm."""
_STEP_REQUESTS_MAX = 100
_STEP_REQUESTS_MIN = 10
_NAMES = {Metric.QUALITY: "quality", Metric.COST: "cost", Metric.LATENCY: "latency", Metric.ERROR_RATE: "error rate"}
_HIGHER_IS_BETTER = frozenset({Metric.QUALITY})


@dataclass(frozen=True, slots=True)
class ArmStanding:
    """How an arm does. `difference` is that of the metric to the first arm; None on the first, and while nothing can be said."""

    arm: Arm
    tally: Tally
    quality: tuple[float, float]
    difference: Compared | None
    share: float


@dataclass(frozen=True, slots=True)
class _Against:
    """An arm against the first, by metric."""

    arm: Arm
    seen: Mapping[Metric, Compared]

    def harm(self, experiment: Experiment) -> Metric | None:
        """In what it is surely worse by more than it may."""
        return next((metric for metric, found in self.seen.items() if worst_case(metric, found)[1] > experiment.harm_max), None)

    def harmless(self, experiment: Experiment) -> bool:
        """Whether it is surely not worse by more than it may, in anything that is known."""
        return all(worst_case(metric, found)[2] <= experiment.harm_max for metric, found in self.seen.items())

    def looks_harmless(self, experiment: Experiment) -> bool:
        """Whether nothing looks worse by more than it may."""
        return all(worst_case(metric, found)[0] <= experiment.harm_max for metric, found in self.seen.items())


def worst_case(metric: Metric, found: Compared) -> tuple[float, float, float]:
    """By how much an arm is worse than the first: as it looks, at least, and at most."""
    if metric in _HIGHER_IS_BETTER:
        return -found.value, -found.upper, -found.lower
    return found.value, found.lower, found.upper


def standings(experiment: Experiment, tallies: Tallies) -> list[ArmStanding]:
    """How the arms do, over all steps; differences as they decide."""
    alpha, against = _alpha(experiment), {each.arm.name: each for each in _compared(experiment, tallies)}
    found = []
    for arm, share in zip(experiment.arms, experiment.shares(), strict=True):
        total = added(tally for (_, name), tally in tallies.items() if name == arm.name)
        compared = against[arm.name].seen.get(experiment.metric) if arm.name in against else None
        if compared is not None:
            compared = replace(compared, p_value=min(1.0, compared.p_value * _tests(experiment)))
        found.append(ArmStanding(arm, total, interval(total.quality, alpha=alpha), compared, share))
    return found


def verdict(experiment: Experiment, tallies: Tallies, *, now: datetime) -> Standing | None:
    """Where the experiment stands now; None where it goes on as it does."""
    standing, compared = experiment.standing, _compared(experiment, tallies)
    for each in compared:
        harm = each.harm(experiment)
        if harm is not None:
            reason = f"{each.arm.name} does harm: {_in_words(harm, each.seen[harm], experiment)}"
            return replace(standing, state=State.STOPPED_FOR_HARM, reason=reason, stopped_at=now)
    winner = _winner(experiment, compared)
    if experiment.end_at is not None and now >= experiment.end_at:
        return replace(standing, state=State.STOPPED, reason="its time is over", winner=winner, stopped_at=now)
    if experiment.kind is Kind.CANARY:
        return _grown(experiment, compared, tallies) or _used_up(experiment, tallies, winner, now)
    if winner:
        reason = f"{winner} is better: {_why(experiment, compared, winner)}"
        return replace(standing, state=State.CONCLUDED, reason=reason, winner=winner, stopped_at=now)
    return _used_up(experiment, tallies, winner, now)


def requests_of(experiment: Experiment, tallies: Tallies) -> int:
    """The requests that took part; a shadow's are those of the first arm."""
    first = experiment.arms[0].name
    return sum(tally.requests for (_, name), tally in tallies.items() if experiment.kind is not Kind.SHADOW or name == first)


def _used_up(experiment: Experiment, tallies: Tallies, winner: str, now: datetime) -> Standing | None:
    """A canary that serves everybody is not ended by that: nothing would be back where it was without anybody's having asked for it."""
    serves_all = experiment.kind is Kind.CANARY and experiment.canary_share >= 1.0
    if serves_all or requests_of(experiment, tallies) < experiment.requests_max:
        return None
    reason = f"its {experiment.requests_max} requests are used up"
    return replace(experiment.standing, state=State.CONCLUDED, reason=reason, winner=winner, stopped_at=now)


def _grown(experiment: Experiment, compared: list[_Against], tallies: Tallies) -> Standing | None:
    """A canary's next step: once harm is excluded, or enough requests have passed and nothing looks like it."""
    standing, other = experiment.standing, experiment.arms[1]
    if experiment.at_last_step or not compared:
        return None
    seen = tallies.get((standing.step, other.name), Tally()).requests
    enough = min(_STEP_REQUESTS_MAX, experiment.requests_max // (4 * len(experiment.canary_shares)))
    surely = experiment.metric in compared[0].seen and compared[0].harmless(experiment)
    if not surely and not (seen >= max(_STEP_REQUESTS_MIN, enough) and compared[0].looks_harmless(experiment)):
        return None
    share, last = experiment.canary_shares[standing.step + 1], standing.step + 2 == len(experiment.canary_shares)
    because = "harm is excluded" if surely else f"no sign of harm in {seen} requests"
    reason = f"{other.name} has {share:.0%} of the requests: {because} at {experiment.canary_share:.0%}"
    return replace(standing, step=standing.step + 1, reason=reason, winner=other.name if last and share >= 1.0 else "")


def _winner(experiment: Experiment, compared: list[_Against]) -> str:
    """The arm that is surely better than every other in the metric, and surely does no harm; empty while there is none."""
    ends = {each.arm.name: _ends(experiment.metric, each) for each in compared}
    if not compared or any(each is None for each in ends.values()):
        return ""
    known = {name: each for name, each in ends.items() if each is not None}
    if all(upper < 0 for _, upper in known.values()):
        return experiment.arms[0].name
    for each in compared:
        lower, name = known[each.arm.name][0], each.arm.name
        if lower > 0 and all(lower > upper for other, (_, upper) in known.items() if other != name):
            others = {metric: found for metric, found in each.seen.items() if metric is not experiment.metric}
            return name if _Against(each.arm, others).harmless(experiment) else ""
    return ""


def _ends(metric: Metric, against: _Against) -> tuple[float, float] | None:
    """By how much an arm is better than the first, at least and at most."""
    found = against.seen.get(metric)
    if found is None:
        return None
    _, least, most = worst_case(metric, found)
    return -most, -least


def _compared(experiment: Experiment, tallies: Tallies) -> list[_Against]:
    """Every other arm against the first, as far as anything can be said."""
    step, alpha = experiment.standing.step, _alpha(experiment)
    first = tallies.get((step, experiment.arms[0].name), Tally())
    found = []
    for arm in experiment.arms[1:]:
        other = tallies.get((step, arm.name), Tally())
        paired = experiment.kind is Kind.SHADOW
        seen = {metric: _metric(metric, first, other, paired=paired, alpha=alpha) for metric in _looked_at(experiment)}
        found.append(_Against(arm, {metric: each for metric, each in seen.items() if each is not None}))
    return found


def _metric(metric: Metric, first: Tally, other: Tally, *, paired: bool, alpha: float) -> Compared | None:
    match metric:
        case Metric.QUALITY if paired:
            return paired_difference(other.pair_quality, alpha=alpha)
        case Metric.QUALITY:
            return difference(first.quality, other.quality, alpha=alpha)
        case Metric.COST if paired:
            served, beside, covariance = other.pair_costs
            return ratio_of_means(served, beside, alpha=alpha, covariance=covariance)
        case Metric.COST:
            return ratio_of_means(first.cost, other.cost, alpha=alpha)
        case Metric.LATENCY if paired:
            return paired_ratio_of_typical(other.pair_latency, alpha=alpha)
        case Metric.LATENCY:
            return ratio_of_typical(first.latency, other.latency, alpha=alpha)
        case _:
            # What the first failed at has no shadow, so that failures are no pairs.
            return difference(first.failed, other.failed, alpha=alpha)


def _looked_at(experiment: Experiment) -> tuple[Metric, ...]:
    return tuple(dict.fromkeys((experiment.metric, Metric.QUALITY, Metric.ERROR_RATE)))


def _tests(experiment: Experiment) -> int:
    steps = len(experiment.canary_shares) if experiment.kind is Kind.CANARY else 1
    return (len(experiment.arms) - 1) * len(_looked_at(experiment)) * steps


def _alpha(experiment: Experiment) -> float:
    return (1 - experiment.confidence) / _tests(experiment)


def _in_words(metric: Metric, found: Compared, experiment: Experiment) -> str:
    looks, least, _ = worst_case(metric, found)
    return f"its {_NAMES[metric]} looks worse by {looks:.3g}, and is by at least {least:.3g} with {experiment.confidence:.1%} confidence"


def _why(experiment: Experiment, compared: list[_Against], winner: str) -> str:
    first = experiment.arms[0].name
    words = []
    for each in compared:
        if winner in (first, each.arm.name):
            _, least, most = worst_case(experiment.metric, each.seen[experiment.metric])
            worse, by = (each.arm.name, least) if winner == first else (first, -most)
            words.append(f"{_NAMES[experiment.metric]} of {worse} is worse by at least {by:.3g}")
    return "; ".join(words)
