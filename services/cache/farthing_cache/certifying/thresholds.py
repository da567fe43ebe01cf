"""Which probability a candidate must reach so that wrong answers stay within the budget, at any moment that anybody looks.

For a threshold t, a look-up's loss is 1 where its best candidate reaches t and would be a wrong answer. It is seen only now and then: a
hit that was checked (with a known chance), a miss whose fresh answer was compared with what would have been served (nearly always). Losses
that were seen are weighted by the inverse of their chance, so their mean is that of all look-ups, whatever threshold was in force. Bets
against "the mean is m" make a martingale whose wealth reaches 1/δ with probability δ at most, ever, if that is so (Waudby-Smith & Ramdas,
Estimating means of bounded random variables by betting, 2024; mixture of constant bets). The upper bound is the smallest m that is refuted.
Thresholds are nested: whichever one is refuted last decides, without a correction for having tried many (fixed-sequence testing;
Angelopoulos et al., Learn then test, 2021). Nothing here knows a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

EDGES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999, 1.0)
"""Thresholds that may be in force. A probability belongs to the largest that it reaches; 1 is the same words."""
NEVER = 2.0
"""The threshold that nothing reaches: hits by meaning are suspended."""
CONFIDENCE = 0.95
_WEALTH_LOG = -math.log(1 - CONFIDENCE)
_CHANGED_LOG = math.log(1_000)
_BETS = (0.1, 0.3, 0.5, 0.7, 0.9)
_CHANCE_MIN = 0.005
_STEPS = 30
_TIGHTER_MAX = 2.0
"""What is believed without evidence of our own may not outweigh that for long."""
_THIN = ((1_000, 0.3), (5_000, 0.1))
"""Chances of a check while there were fewer look-ups than this."""


def bucket_of(probability: float) -> int:
    """The number of the largest edge that a probability reaches; -1 below all."""
    return sum(edge <= probability for edge in EDGES) - 1


@dataclass(frozen=True, slots=True)
class Losses:
    """Look-ups that were made while hits were checked with one chance, and the wrong ones among those that were seen, by bucket.

    `hits` and `misses` count wrong answers that were served and checked, and wrong answers that would have been served and were compared.
    """

    chance: float
    lookups: float
    hits: Mapping[int, float] = field(default_factory=dict)
    misses: Mapping[int, float] = field(default_factory=dict)

    def scaled(self, factor: float) -> Losses:
        """The same, as if there were fewer of them."""
        hits = {bucket: count * factor for bucket, count in self.hits.items()}
        misses = {bucket: count * factor for bucket, count in self.misses.items()}
        return Losses(self.chance, self.lookups * factor, hits, misses)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed before anything is seen: the threshold that ships, and the bound on wrong answers a look-up it was found with."""

    probability_min: float
    wrong_upper: float

    def lookups(self, edge: float) -> float:
        """How many look-ups without a wrong one say as much. A threshold that is twice as far from certainty is trusted half as much."""
        if edge < self.probability_min:
            return 0.0
        tighter = _TIGHTER_MAX if edge >= 1 else min(_TIGHTER_MAX, (1 - self.probability_min) / (1 - edge))
        return _clean_lookups(self.wrong_upper / max(1.0, tighter))


def wealth_log(losses: Iterable[Losses], edge: float, mean: float, *, clean_lookups: float = 0.0) -> float:
    """The logarithm of what bets against "at least `mean` wrong a look-up at this threshold" have come to."""
    first, seen = bucket_of(edge), list(losses)
    logs = []
    for bet in _BETS:
        total = clean_lookups * math.log1p(bet * mean)
        for each in seen:
            stake = bet * max(each.chance, _CHANCE_MIN)
            wrong_hits, wrong_misses = _from(each.hits, first), _from(each.misses, first)
            total += max(0.0, each.lookups - wrong_hits - wrong_misses) * math.log1p(stake * mean)
            total += wrong_hits * math.log1p(stake * mean - bet) + wrong_misses * math.log1p(stake * (mean - 1))
        logs.append(total)
    return _mixed(logs)


def first_since_change(periods: Sequence[Sequence[Losses]], edge: float, mean: float) -> int:
    """The number of the period from which on more than `mean` wrong a look-up are proven, 0 where there is none: what came before is of
    another world. Bets on "more", begun anew with every period (Shin, Ramdas & Rinaldo, E-detectors, 2024), once in a thousand by chance.
    """
    best, best_log = 0, _CHANGED_LOG
    for start in range(1, len(periods)):
        proven = _more_log([losses for period in periods[start:] for losses in period], edge, mean)
        if proven > best_log:
            best, best_log = start, proven
    return best


def wrong_lower(losses: Sequence[Losses], edge: float) -> float:
    """The lower bound (95 %) of wrong answers a look-up: the largest m that bets on more refute."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        refuted = _more_log(losses, edge, middle) >= _WEALTH_LOG
        low, high = (middle, high) if refuted else (low, middle)
    return low


def wrong_upper(losses: Sequence[Losses], edge: float, *, clean_lookups: float = 0.0) -> float:
    """The upper bound (95 %, valid at any time) of wrong answers a look-up at a threshold."""
    low, high = 0.0, 1.0
    if wealth_log(losses, edge, high, clean_lookups=clean_lookups) < _WEALTH_LOG:
        return 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if wealth_log(losses, edge, middle, clean_lookups=clean_lookups) >= _WEALTH_LOG:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold in force and what it rests on: "default", "global" or "category"."""

    probability_min: float
    wrong_upper: float
    evidence: str

    @property
    def suspended(self) -> bool:
        """Whether nothing may be served by meaning."""
        return self.probability_min >= NEVER


def threshold(losses: Sequence[Losses], prior: Prior, *, budget: float, evidence: str) -> Threshold:
    """The lowest threshold whose bound is within the budget; NEVER where there is none."""
    best: float | None = None
    for edge in reversed(EDGES):
        if wealth_log(losses, edge, budget, clean_lookups=prior.lookups(edge)) < _WEALTH_LOG:
            break
        best = edge
    if best is None:
        return Threshold(NEVER, 0.0, evidence)
    return Threshold(best, wrong_upper(losses, best, clean_lookups=prior.lookups(best)), evidence)


def check_chance(*, lookups: float, usual: float, suspended: bool) -> float:
    """The chance with which a hit is checked: more while little is known. Where nothing is served, every would-be hit is compared."""
    if suspended:
        return 1.0
    return next((max(usual, chance) for lookups_max, chance in _THIN if lookups < lookups_max), usual) if usual else 0.0


def pooled(own: Sequence[Losses], others: Sequence[Losses], *, weight_lookups: float) -> list[Losses]:
    """A category's evidence with that of all together as its prior, worth at most so many look-ups: little evidence of its own is shrunk
    towards all together (a power prior), much speaks for itself.
    """
    total = sum(each.lookups for each in others)
    factor = min(1.0, weight_lookups / total) if total else 0.0
    return [*own, *(each.scaled(factor) for each in others)]


def _more_log(losses: Sequence[Losses], edge: float, mean: float) -> float:
    """The logarithm of what bets on "more than `mean` wrong a look-up" have come to."""
    first, logs = bucket_of(edge), []
    for bet in _BETS:
        total = 0.0
        for each in losses:
            stake = bet * max(each.chance, _CHANCE_MIN)
            wrong_hits, wrong_misses = _from(each.hits, first), _from(each.misses, first)
            total += max(0.0, each.lookups - wrong_hits - wrong_misses) * math.log1p(-stake * mean)
            total += wrong_hits * math.log1p(bet - stake * mean) + wrong_misses * math.log1p(stake * (1 - mean))
        logs.append(total)
    return _mixed(logs)


def _mixed(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))


def _from(wrong: Mapping[int, float], first: int) -> float:
    return sum(count for bucket, count in wrong.items() if bucket >= first)


def _clean_lookups(bound: float) -> float:
    """How many look-ups without a wrong one have this bound."""
    low, high = 0.0, 1e9
    for _ in range(80):
        middle = (low + high) / 2
        if wealth_log((), 1.0, bound, clean_lookups=middle) >= _WEALTH_LOG:
            high = middle
        else:
            low = middle
    return high
