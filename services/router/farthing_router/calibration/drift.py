"""Whether a calibration still keeps what it promised: what is seen of it while it is in force, and what follows from that.

The ratio of the served quality to the strong model's is bounded by a betting confidence sequence: for every ratio r somebody bets on
(served − r · strong) being above zero, and somebody on its being below; a ratio at which their fortune has grown by 1/α is out, for good
(Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2023). So one may look at any moment, and act.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import orjson

from farthing_router.calibration.forest import Floats
from farthing_router.calibration.kept import Report, Span
from farthing_router.calibration.policy import Drift as Usual

CHECKED_MIN = 30
_DECISIONS_MIN = 200
_ALPHA = 0.05
_RATIOS = np.linspace(0.0, 1.5, 301)
_BOLDNESS = 0.75
"""No bet may lose more than this share of a fortune."""
_DISTANCE_MAX = 1.0
_NOTED_MIN = 30
_CHANCE = NormalDist().inv_cdf(0.9999)
_ESCALATED_SLACK = 0.1


@dataclass(slots=True)
class Seen:
    """What was seen of a calibration in a while: decisions and escalations, sums of the judge's predictions and of features, and checks
    (the quality served, and the strong model's). Sums of features are by name, each with a count of its own, since some may be missing.
    """

    decisions: int = 0
    escalated: int = 0
    judged: int = 0
    gain: float = 0.0
    confidence: float = 0.0
    features: dict[str, tuple[int, float]] = field(default_factory=dict)
    checks: list[tuple[float, float]] = field(default_factory=list)

    def note(self, names: Sequence[str], row: Floats) -> None:
        """Takes in the features of one request."""
        for name, value in zip(names, row.tolist(), strict=True):
            if not math.isnan(value):
                count, total = self.features.get(name, (0, 0.0))
                self.features[name] = (count + 1, total + value)


@dataclass(slots=True)
class Evidence:
    """All that was seen since a calibration is in force."""

    decisions: int = 0
    escalated: int = 0
    judged: int = 0
    gain: float = 0.0
    confidence: float = 0.0
    features: dict[str, tuple[int, float]] = field(default_factory=dict)
    checked: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)
    above: Floats = field(default_factory=lambda: np.zeros(len(_RATIOS)))
    below: Floats = field(default_factory=lambda: np.zeros(len(_RATIOS)))
    out: Floats = field(default_factory=lambda: np.zeros(len(_RATIOS)))

    def add(self, seen: Seen) -> None:
        """Takes in what was seen, the checks in their order."""
        self.decisions += seen.decisions
        self.escalated += seen.escalated
        self.judged += seen.judged
        self.gain += seen.gain
        self.confidence += seen.confidence
        for name, (count, total) in seen.features.items():
            known, before = self.features.get(name, (0, 0.0))
            self.features[name] = (known + count, before + total)
        for served, strong in seen.checks:
            self._check(served, strong)

    def _check(self, served: float, strong: float) -> None:
        """One more bet for and against every ratio, at stakes that depend on earlier checks only."""
        excess = served - _RATIOS * strong
        n, (s, t, ss, st, tt) = self.checked, self.sums
        means = (s - _RATIOS * t) / max(1, n)
        squares = (ss - 2 * _RATIOS * st + _RATIOS**2 * tt) / max(1, n)
        variance = (0.25 + n * np.maximum(0.0, squares - means**2)) / (n + 1)
        stake = np.sqrt(2 * math.log(2 / _ALPHA) / ((n + 1) * math.log(n + 2) * variance))
        self.above += np.log1p(np.minimum(stake, _BOLDNESS / np.maximum(_RATIOS, 1e-9)) * excess)
        self.below += np.log1p(-np.minimum(stake, _BOLDNESS) * excess)
        fortune = np.logaddexp(self.above, self.below) - math.log(2)
        self.out = np.maximum(self.out, (fortune >= math.log(1 / _ALPHA)).astype(float))
        self.checked += 1
        self.sums = [s + served, t + strong, ss + served**2, st + served * strong, tt + strong**2]

    def ratio(self) -> Span:
        """The quality as a share of the strong model's, with bounds that hold at every moment."""
        left = _RATIOS[self.out == 0]
        value = self.sums[0] / self.sums[1] if self.sums[1] else 1.0
        if not len(left):
            return (value, value, value)
        return (value, min(value, float(left[0])), max(value, float(left[-1])))

    def escalated_share(self) -> Span:
        """The share of requests that bought the strong model, with bounds that hold at every moment."""
        return bounds_of_share(self.escalated, self.decisions)

    def distance(self, usual: Usual) -> float:
        """How far the mean prompt, answer and prediction are from the usual ones, in their deviations: the largest distance of any, less
        what is chance among so few."""
        found = [0.0]
        for name, (count, total) in self.features.items():
            deviation = usual.feature_deviations.get(name, 0.0)
            found.append(_distance(count, total, usual.feature_means.get(name, 0.0), deviation))
        found.append(_distance(self.judged, self.gain, usual.gain_mean, usual.gain_deviation))
        found.append(_distance(self.judged, self.confidence, usual.confidence_mean, usual.confidence_deviation))
        return max(found)

    def to_bytes(self) -> bytes:
        """As it is kept."""
        fields = ("decisions", "escalated", "judged", "gain", "confidence", "features", "checked", "sums")
        arrays = {name: getattr(self, name).tolist() for name in ("above", "below", "out")}
        return orjson.dumps({**{name: getattr(self, name) for name in fields}, **arrays})

    @classmethod
    def from_bytes(cls, kept: bytes) -> Evidence:
        """As it was kept; none for what another version keeps differently."""
        if not kept:
            return cls()
        data = orjson.loads(kept)
        above, below, out = (np.asarray(data.pop(name), dtype=np.float64) for name in ("above", "below", "out"))
        if any(array.shape != _RATIOS.shape for array in (above, below, out)):
            return cls()
        features = {name: (int(count), float(total)) for name, (count, total) in data.pop("features").items()}
        return cls(**data, features=features, above=above, below=below, out=out)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows: "ok", "watching" or "drifting", and what to do."""

    state: str
    advice: str


def verdict(evidence: Evidence, report: Report, usual: Usual) -> Verdict:
    """Whether what was fitted is still what is seen."""
    floor = report.quality_ratio_min if report.guaranteed and report.quality_ratio_min is not None else report.quality_ratio[1]
    ratio = evidence.ratio()
    if ratio[2] < floor:
        what = "promised" if report.guaranteed else "expected"
        return Verdict(
            "drifting", f"quality is surely below the {100 * floor:.1f} % that was {what}: calibrate again on what is asked now"
        )
    distance = evidence.distance(usual)
    if distance > _DISTANCE_MAX:
        return Verdict(
            "drifting", f"prompts and answers are {distance:.1f} deviations from those it was fitted on: calibrate again"
        )
    share = evidence.escalated_share()
    if evidence.decisions >= _DECISIONS_MIN:
        for end, sign in ((share[1], 1), (-share[2], -1)):
            if end > sign * report.escalated_share + _ESCALATED_SLACK:
                text = f"{100 * share[0]:.0f} % of requests buy the strong model, {100 * report.escalated_share:.0f} % were expected"
                return Verdict("drifting", f"{text}: the saving is not what was fitted; calibrate again")
    if evidence.checked < CHECKED_MIN:
        return Verdict("watching", f"{evidence.checked} answers were checked so far; {CHECKED_MIN} are too few to say more")
    return Verdict("ok", "nothing to do")


def bounds_of_share(count: int, of: int) -> Span:
    """A share with 95 % bounds that hold at every moment (a mixture of beta priors: Robbins, 1970)."""
    if not of:
        return (0.0, 0.0, 1.0)
    value, rest = count / of, of - count
    mixture = _log_beta(count + 0.5, rest + 0.5) - _log_beta(0.5, 0.5)

    def out(share: float) -> bool:
        likelihood = count * math.log(max(share, 1e-300)) + rest * math.log(max(1 - share, 1e-300))
        return mixture - likelihood >= math.log(1 / _ALPHA)

    return (value, _edge(out, 0.0, value), _edge(out, 1.0, value))


def _edge(out: Callable[[float], bool], far: float, near: float) -> float:
    """Where a share begins to be out, between one that may be and one that is not."""
    if not out(far):
        return far
    for _ in range(50):
        middle = (far + near) / 2
        far, near = (middle, near) if out(middle) else (far, middle)
    return near


def _log_beta(one: float, other: float) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)


def _distance(count: int, total: float, mean: float, deviation: float) -> float:
    if count < _NOTED_MIN or deviation <= 1e-9:
        return 0.0
    return max(0.0, abs(total / count - mean) / deviation - _CHANCE / math.sqrt(count))


def cautious_threshold(report: Report, threshold: float) -> float:
    """A threshold that escalates half of what is not escalated now, by the curve of the fit: for a promise in doubt."""
    wanted = (1 + report.escalated_share) / 2
    enough = [point.threshold for point in report.curve if point.escalated_share >= wanted and point.threshold <= threshold]
    return max(enough, default=min((point.threshold for point in report.curve), default=threshold))


def merged(kept: bytes, seen: Seen) -> bytes:
    """What is kept, and what was seen since."""
    evidence = Evidence.from_bytes(kept)
    evidence.add(seen)
    return evidence.to_bytes()
