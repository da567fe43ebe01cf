"""Cost against quality: what a policy would have served and paid on labelled examples, at each threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farthing_router.calibration.forest import Floats

POINTS_MAX = 41
_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One threshold: cost as a share of always asking the strong model, quality 0 to 1 served, and how many prompts were escalated."""

    threshold: float
    cost_share: float
    quality: float
    quality_ratio: float
    escalated_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What is known of each example: the value of escalating it as predicted by models that did not see it, the quality of the
    answer served without and with it, what was paid without it and more with it, and quality and cost of always asking the strong
    model."""

    value: Floats
    kept: Floats
    escalated: Floats
    paid: Floats
    price: Floats
    strong: Floats
    strong_price: Floats

    def thresholds(self, points: int = POINTS_MAX) -> Floats:
        """A grid that starts where everything is escalated and ends where nothing is."""
        inner = np.quantile(self.value, np.linspace(0, 1, points - 1)[1:])
        return np.concatenate([[min(float(self.value.min()), 0.0) - 1.0], inner])

    def served(self, threshold: float) -> Floats:
        """The quality served at a threshold."""
        return np.where(self.value > threshold, self.escalated, self.kept)

    def cost(self, threshold: float) -> Floats:
        """The price paid at a threshold."""
        return self.paid + np.where(self.value > threshold, self.price, 0.0)

    def point(self, threshold: float) -> CurvePoint:
        """The curve's point at a threshold."""
        served, strong = float(self.served(threshold).mean()), float(self.strong.mean())
        return CurvePoint(
            threshold=float(threshold),
            cost_share=float(self.cost(threshold).sum() / max(self.strong_price.sum(), 1e-12)),
            quality=served,
            quality_ratio=served / strong if strong > 0 else 1.0,
            escalated_share=float((self.value > threshold).mean()),
        )

    def curve(self) -> list[CurvePoint]:
        """At most POINTS_MAX points."""
        return [self.point(threshold) for threshold in self.thresholds()]

    def intervals(self, threshold: float, *, rng: np.random.Generator) -> tuple[Interval, Interval]:
        """The saving against always asking the strong model and the ratio of the two qualities, each with a bootstrap interval."""
        parts = np.stack([self.cost(threshold), self.strong_price, self.served(threshold), self.strong])
        draws = rng.integers(0, parts.shape[1], (_RESAMPLES, parts.shape[1]))
        cost, full, served, strong = (parts[row][draws].mean(axis=1) for row in range(4))
        whole = self.point(threshold)
        return (
            _interval(1 - whole.cost_share, 1 - cost / np.maximum(full, 1e-12)),
            _interval(whole.quality_ratio, served / np.maximum(strong, 1e-12)),
        )


def _interval(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high))
