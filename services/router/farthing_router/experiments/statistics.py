"""Statistics that may be looked at whenever one likes: their intervals and p-values hold at every moment at once, so that stopping when one
likes what one sees costs nothing of their confidence. All of them need sums only, whatever the order in which values came.

Values from 0 to 1 (quality, failures) are judged without any assumption about their shape, by the empirical Bernstein supermartingale of
Howard, Ramdas, McAuliffe and Sekhon (Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49, 2021,
theorem 4; the inequality is Fan, Grama and Liu's), mixed over a grid of bets. Its spread is taken around guesses made before each value
came, so replicas may each guess by what they know and their sums still add up. Two arms are compared by the product of their
supermartingales, minimised over the mean that is not asked for, as Turner, Ly and Gruenwald do (Generic E-variables for exact sequential
k-sample tests, 2024).

Values without a limit (cost, latency) are judged by the asymptotic confidence sequences of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
(Time-uniform central limit theory and asymptotic confidence sequences, Annals of Statistics 52, 2024, theorem 2.2). They hold from enough
values on (`VALUES_MIN`), and take one value far out as given, so that a few equal values make nobody sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

VALUES_MIN = 50
"""With fewer values of either arm, nothing is said of what has no limit."""
_BETS = (0.9, 0.75, *(2.0**-power for power in range(1, 12)))
_PRICES = tuple(-math.log1p(-bet) - bet for bet in _BETS)
_RHO_SQUARED = 0.008
"""Makes asymptotic intervals narrowest at about a thousand values."""
_FAR_OUT = 5.0
_STEPS = 18
_GOLDEN_STEPS = 14
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Bounded:
    """Sums over values from 0 to 1: how many, their sum, and the sum of their squared distances from what was guessed before each."""

    count: int
    total: float
    spread: float

    @property
    def mean(self) -> float:
        """Their mean; a half without any."""
        return self.total / self.count if self.count else 0.5


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over values without a limit: how many, their mean and their variance."""

    count: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Compared:
    """An estimate, an interval that holds at every moment, and an anytime-valid p-value for there being no difference."""

    value: float
    lower: float
    upper: float
    p_value: float


def interval(values: Bounded, *, alpha: float) -> tuple[float, float]:
    """Where the mean of values from 0 to 1 is, but for a chance of alpha, at every moment."""
    if not values.count:
        return 0.0, 1.0
    mean, enough = min(1.0, max(0.0, values.mean)), math.log(1 / alpha)

    def possible(at: float) -> bool:
        return evidence_against(values, at) < enough

    return _edge(possible, mean, 0.0), _edge(possible, mean, 1.0)


def difference(first: Bounded, other: Bounded, *, alpha: float) -> Compared | None:
    """How much larger the other's mean is. None where one of them has no values."""
    if not first.count or not other.count:
        return None
    value, enough = other.mean - first.mean, math.log(1 / alpha)

    def possible(at: float) -> bool:
        return evidence_of_difference(first, other, at) < enough

    p_value = min(1.0, math.exp(-evidence_of_difference(first, other, 0.0)))
    return Compared(value, _edge(possible, value, -1.0), _edge(possible, value, 1.0), p_value)


def paired_difference(halves: Bounded, *, alpha: float) -> Compared | None:
    """How much larger the other's values are, from pairs: `halves` are (1 + other − first) / 2. None without any."""
    if not halves.count:
        return None
    lower, upper = interval(halves, alpha=alpha)
    p_value = min(1.0, math.exp(-evidence_against(halves, 0.5)))
    return Compared(2 * halves.mean - 1, 2 * lower - 1, 2 * upper - 1, p_value)


def ratio_of_means(first: Moments, other: Moments, *, alpha: float, covariance: float | None = None) -> Compared | None:
    """The share by which the other's mean is larger than the first's (0.1: a tenth more).

    `covariance` is that of paired values; None where each arm has its own. By Fieller's method: a ratio is possible where the means could
    have it. None with too few values, or where the first's mean may be nothing.
    """
    if min(first.count, other.count) < VALUES_MIN or first.mean <= 0:
        return None
    count = first.count if covariance is not None else _as_if_even(first.count, other.count)
    wide = max(each.variance / each.mean**2 for each in (first, other) if each.mean)
    one, two = (_variance_of_mean(each, wide * each.mean**2, (_FAR_OUT * first.mean) ** 2) for each in (first, other))
    both = (covariance or 0.0) / first.count
    factor = _factor(count, alpha)
    square = first.mean**2 - factor * one
    if square <= 0:
        return None
    middle, rest = first.mean * other.mean - factor * both, other.mean**2 - factor * two
    root = math.sqrt(max(0.0, middle * middle - square * rest))
    shift, variance = other.mean - first.mean, one + two - 2 * both
    return Compared(
        other.mean / first.mean - 1,
        max(-1.0, (middle - root) / square - 1),
        (middle + root) / square - 1,
        _p_value(count, shift, variance),
    )


def ratio_of_typical(first: Moments, other: Moments, *, alpha: float) -> Compared | None:
    """The share by which the other's geometric mean is larger, from logarithms of values. None with too few values."""
    if min(first.count, other.count) < VALUES_MIN:
        return None
    wide = max(first.variance, other.variance)
    variance = _variance_of_mean(first, wide, 1.0) + _variance_of_mean(other, wide, 1.0)
    return _typical(_as_if_even(first.count, other.count), other.mean - first.mean, variance, alpha)


def paired_ratio_of_typical(differences: Moments, *, alpha: float) -> Compared | None:
    """The same from pairs: `differences` are those of the logarithms. None with too few pairs."""
    if differences.count < VALUES_MIN:
        return None
    return _typical(differences.count, differences.mean, _variance_of_mean(differences, differences.variance, 1.0), alpha)


def evidence_against(values: Bounded, mean: float) -> float:
    """The logarithm of the e-value against a mean: half the bets are that values are larger, half that they are smaller."""
    ahead = values.total - values.count * mean
    logs = [bet * ahead - price * values.spread for bet, price in zip(_BETS, _PRICES, strict=True)]
    logs += [-bet * ahead - price * values.spread for bet, price in zip(_BETS, _PRICES, strict=True)]
    most = max(logs)
    return most + math.log(sum(math.exp(each - most) for each in logs) / len(logs))


def evidence_of_difference(first: Bounded, other: Bounded, shift: float) -> float:
    """The logarithm of the e-value against a difference: the least over the first's mean, in which it is convex."""
    low, high = max(0.0, -shift), min(1.0, 1.0 - shift)
    ends = [min(high, max(low, each)) for each in (first.mean, other.mean - shift)]
    low, high = min(ends), max(ends)

    def at(mean: float) -> float:
        return evidence_against(first, mean) + evidence_against(other, mean + shift)

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = at(left), at(right)
    for _ in range(_GOLDEN_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = at(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = at(right)
    return min(at_left, at_right)


def _typical(count: float, shift: float, variance: float, alpha: float) -> Compared:
    reach = math.sqrt(variance * _factor(count, alpha))
    return Compared(
        math.expm1(min(700.0, shift)),
        math.expm1(min(700.0, shift - reach)),
        math.expm1(min(700.0, shift + reach)),
        _p_value(count, shift, variance),
    )


def _edge(possible: Callable[[float], bool], inside: float, end: float) -> float:
    """How far towards the end things are possible."""
    if possible(end):
        return end
    outside = end
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if possible(middle):
            inside = middle
        else:
            outside = middle
    return outside


def _variance_of_mean(values: Moments, variance: float, far_out: float) -> float:
    """With one value far out that has not come yet: a rare large one may be missing."""
    return (variance + far_out / values.count) / values.count


def _as_if_even(first: int, other: int) -> float:
    """How many values tell as much when both arms have half of them: the clock that a small arm sets."""
    return 4 * first * other / (first + other)


def _factor(count: float, alpha: float) -> float:
    """The square of how many standard deviations an estimate may be off at any moment."""
    scaled = count * _RHO_SQUARED
    return 2 * (scaled + 1) / scaled * math.log(math.sqrt(scaled + 1) / alpha)


def _p_value(count: float, shift: float, variance: float) -> float:
    scaled = count * _RHO_SQUARED
    log_e = scaled / (2 * (scaled + 1)) * shift * shift / variance - math.log(scaled + 1) / 2 if variance else 0.0
    return min(1.0, math.exp(-min(700.0, log_e)))
