"""What came of an arm's requests, as sums of whole numbers: those of several replicas add up exactly, in whatever order they come."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from farthing_router.experiments.statistics import Bounded, Moments

_ONE = 1_000_000
"""Qualities are counted in millionths, logarithms in millionths of a factor e."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended: what its attempts cost, and how long its providers were waited for; None where nobody answered."""

    failed: bool
    cost_usd_nanos: int
    latency_us: int | None

    @property
    def log_latency(self) -> int:
        """The logarithm of its latency; of a microsecond where there is none."""
        return round(_ONE * math.log(max(1, self.latency_us or 1)))


@dataclass(slots=True)
class Tally:
    """Sums over the requests of an arm. A spread is the sum of squared distances from what was guessed before each value came.

    `pair_…` are sums over requests that both this arm and the first answered: `served` is the first's, `half` is (1 + this − first) / 2 of
    their qualities.
    """

    requests: int = 0
    failures: int = 0
    failure_spread: int = 0
    cost_usd_nanos: int = 0
    cost_squares: int = 0
    answers: int = 0
    latency_us: int = 0
    log_latency: int = 0
    log_latency_squares: int = 0
    scores: int = 0
    score: int = 0
    score_spread: int = 0
    pairs: int = 0
    pair_served_usd_nanos: int = 0
    pair_served_squares: int = 0
    pair_usd_nanos: int = 0
    pair_squares: int = 0
    pair_products: int = 0
    pair_log_latency: int = 0
    pair_log_latency_squares: int = 0
    pair_scores: int = 0
    pair_half: int = 0
    pair_half_spread: int = 0

    def take(self, outcome: Outcome) -> None:
        """Counts a request."""
        failed = _ONE if outcome.failed else 0
        self.failure_spread += (failed - _guess(self.failures * _ONE, self.requests)) ** 2
        self.requests += 1
        self.failures += outcome.failed
        self.cost_usd_nanos += outcome.cost_usd_nanos
        self.cost_squares += outcome.cost_usd_nanos**2
        if outcome.latency_us is not None:
            self.answers += 1
            self.latency_us += outcome.latency_us
            self.log_latency += outcome.log_latency
            self.log_latency_squares += outcome.log_latency**2

    def take_score(self, quality: float) -> int:
        """Counts a quality; what was guessed before, to correct it by."""
        guess, score = _guess(self.score, self.scores), _millionths(quality)
        self.scores += 1
        self.score += score
        self.score_spread += (score - guess) ** 2
        return guess

    def correct_score(self, before: float, quality: float, *, guess: int) -> None:
        """Takes another quality of an answer in the place of one that was counted."""
        old, new = _millionths(before), _millionths(quality)
        self.score += new - old
        self.score_spread += (new - guess) ** 2 - (old - guess) ** 2

    def take_pair(self, served: Outcome, other: Outcome) -> None:
        """Counts what both arms came to for the same request."""
        self.pairs += 1
        self.pair_served_usd_nanos += served.cost_usd_nanos
        self.pair_served_squares += served.cost_usd_nanos**2
        self.pair_usd_nanos += other.cost_usd_nanos
        self.pair_squares += other.cost_usd_nanos**2
        self.pair_products += served.cost_usd_nanos * other.cost_usd_nanos
        longer = other.log_latency - served.log_latency
        self.pair_log_latency += longer
        self.pair_log_latency_squares += longer**2

    def take_pair_score(self, served: float, other: float) -> None:
        """Counts the qualities of both arms' answers to the same request."""
        half = (_ONE + _millionths(other) - _millionths(served)) // 2
        self.pair_half_spread += (half - _guess(self.pair_half, self.pair_scores)) ** 2
        self.pair_scores += 1
        self.pair_half += half

    @property
    def failed(self) -> Bounded:
        """Failures, for statistics."""
        return Bounded(self.requests, float(self.failures), self.failure_spread / _ONE**2)

    @property
    def quality(self) -> Bounded:
        """Qualities."""
        return Bounded(self.scores, self.score / _ONE, self.score_spread / _ONE**2)

    @property
    def cost(self) -> Moments:
        """Costs, in nanodollars."""
        return _moments(self.requests, self.cost_usd_nanos, self.cost_squares)

    @property
    def latency(self) -> Moments:
        """Logarithms of latencies."""
        return _moments(self.answers, self.log_latency, self.log_latency_squares, unit=_ONE)

    @property
    def pair_quality(self) -> Bounded:
        """Halves of the differences of qualities."""
        return Bounded(self.pair_scores, self.pair_half / _ONE, self.pair_half_spread / _ONE**2)

    @property
    def pair_costs(self) -> tuple[Moments, Moments, float]:
        """Costs of the first and of this arm for the same requests, and their covariance."""
        first = _moments(self.pairs, self.pair_served_usd_nanos, self.pair_served_squares)
        other = _moments(self.pairs, self.pair_usd_nanos, self.pair_squares)
        together = self.pairs * self.pair_products - self.pair_served_usd_nanos * self.pair_usd_nanos
        return first, other, together / max(1, self.pairs) ** 2

    @property
    def pair_latency(self) -> Moments:
        """Differences of the logarithms of latencies for the same requests."""
        return _moments(self.pairs, self.pair_log_latency, self.pair_log_latency_squares, unit=_ONE)


SUMS = tuple(each.name for each in fields(Tally))


def added(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    total = Tally()
    for tally in tallies:
        for name in SUMS:
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    return total


def _moments(count: int, total: int, squares: int, *, unit: int = 1) -> Moments:
    """Exact as long as it can be: squares of nanodollars are too large for the difference of two floats."""
    if not count:
        return Moments(0, 0.0, 0.0)
    return Moments(count, total / count / unit, max(0, count * squares - total**2) / count**2 / unit**2)


def _millionths(quality: float) -> int:
    return round(_ONE * min(1.0, max(0.0, quality)))


def _guess(total: int, count: int) -> int:
    """What the next value will likely be, from those so far and a half."""
    return (_ONE // 2 + total) // (1 + count)
