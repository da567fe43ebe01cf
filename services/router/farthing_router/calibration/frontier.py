"""Cost against quality: what a policy would have served and paid on labelled examples, at each threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from farthing_router.calibration.forest import Floats
from farthing_router.calibration.labelled import Indices

POINTS_MAX = 41
_RESAMPLES = 400
RATIO_MIN, RATIO_MAX = 1e-3, 1e3


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
    """What is known of each example (rows). For each strong model (columns): the predicted gain and price (in proportion to the
    usual one of the first, to the power of the price weight), the quality served if it is bought, and what it really costs. Beside
    them the quality served without, what was paid for it, and quality and cost of always asking the first strong model."""

    gain: Floats
    likely: Floats
    escalated: Floats
    price: Floats
    kept: Floats
    paid: Floats
    strong: Floats
    strong_price: Floats

    @property
    def value(self) -> Floats:
        """The threshold above which nothing is bought for an example."""
        return np.asarray((self.gain / self.likely).max(axis=1))

    def part(self, rows: Indices) -> Outcomes:
        """Of these examples."""
        names = ("gain", "likely", "escalated", "price", "kept", "paid", "strong", "strong_price")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def thresholds(self, points: int = POINTS_MAX) -> Floats:
        """A grid that starts where everything is escalated and ends where nothing is."""
        value = self.value
        inner = np.quantile(value, np.linspace(0, 1, points - 1)[1:])
        return np.concatenate([[min(float(value.min()), 0.0) - 1.0], inner])

    def bought(self, threshold: float) -> tuple[Indices, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """The strong model that suits each example best at a threshold, and whether it is bought."""
        best = (self.gain - max(threshold, 0.0) * self.likely).argmax(axis=1)
        return best, self.value > threshold

    def served(self, threshold: float) -> Floats:
        """The quality served at a threshold."""
        best, buys = self.bought(threshold)
        return np.where(buys, self.escalated[np.arange(len(best)), best], self.kept)

    def cost(self, threshold: float) -> Floats:
        """The price paid at a threshold."""
        best, buys = self.bought(threshold)
        return self.paid + np.where(buys, self.price[np.arange(len(best)), best], 0.0)

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

    def curve(self, points: int = POINTS_MAX) -> list[CurvePoint]:
        """So many points, from escalating everything to nothing."""
        return [self.point(threshold) for threshold in self.thresholds(points)]

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


def likely_price(typical: float, factor: Floats, *, usual: float, price_weight: float) -> Floats:
    """The likely price of a model in proportion to the usual one of the first strong model, bounded, to the power of its weight."""
    return np.asarray(np.clip(typical * factor / max(usual, 1.0), RATIO_MIN, RATIO_MAX) ** price_weight)


def _interval(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high))
