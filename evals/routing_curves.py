"""Curves of routing: how much of the gap between two models is closed by how many strong calls, or at which share of the bill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from farthing_router.calibration.forest import Floats

_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Recovered:
    """RouteLLM's measures (Ong et al., 2024): the average performance gap recovered over all shares of strong calls, and the least
    shares of strong calls, in per cent, that recover half and four fifths of the gap."""

    apgr: float
    cpt50: float
    cpt80: float


def recovered(value: Floats, weak: Floats, strong: Floats) -> Recovered:
    """Of prompts that go to the strong model in the order of their value, the largest first."""
    order = np.argsort(-value, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    gap = gained[-1]
    share = np.linspace(0, 1, len(gained))
    closed = gained / gap if gap else np.zeros(len(gained))
    return Recovered(float(np.trapezoid(closed, share)), _first(share, closed, 0.5), _first(share, closed, 0.8))


def _first(share: Floats, closed: Floats, level: float) -> float:
    return float(share[np.flatnonzero(closed >= level)[0]] * 100)


def recovered_interval(value: Floats, weak: Floats, strong: Floats, *, seed: int) -> tuple[Recovered, Recovered]:
    """The ends of the 95 % bootstrap intervals of each measure."""
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(_RESAMPLES):
        rows = rng.integers(0, len(value), len(value))
        if (strong - weak)[rows].sum() > 0:
            found = recovered(value[rows], weak[rows], strong[rows])
            draws.append((found.apgr, found.cpt50, found.cpt80))
    low, high = np.quantile(np.array(draws), [0.025, 0.975], axis=0)
    return Recovered(*map(float, low)), Recovered(*map(float, high))


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What was served and paid for each prompt, beside the strong model's quality and bill."""

    served: Floats
    paid: Floats
    strong: Floats
    bill: Floats

    @property
    def cost_pct(self) -> float:
        """The bill, in per cent of the strong model's."""
        return float(100 * self.paid.sum() / self.bill.sum())

    @property
    def delta(self) -> float:
        """Served minus strong quality, in points."""
        return float(100 * (self.served.mean() - self.strong.mean()))

    def interval(self, *, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """The 95 % bootstrap intervals of cost and difference."""
        rng = np.random.default_rng(seed)
        parts = np.stack([self.served, self.paid, self.strong, self.bill])
        rows = rng.integers(0, parts.shape[1], (_RESAMPLES, parts.shape[1]))
        served, paid, strong, bill = (part[rows].mean(axis=1) for part in parts)
        cost, delta = np.quantile(100 * paid / bill, [0.025, 0.975]), np.quantile(100 * (served - strong), [0.025, 0.975])
        return (float(cost[0]), float(cost[1])), (float(delta[0]), float(delta[1]))


def together(parts: list[Judged]) -> Judged:
    """Several parts of one data set."""
    names = ("served", "paid", "strong", "bill")
    return Judged(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
