"""The error budget of every organisation, kept in memory: which thresholds are in force, and what is known of wrong hits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from farthing_core.clock import Clock
from farthing_runtime.refreshing import Watched

from farthing_cache.certifying.hits import PERIOD_S, PERIODS_KEPT, EvidenceStore, Place, SumRow, Sums
from farthing_cache.certifying.thresholds import (
    Losses,
    Prior,
    Threshold,
    check_chance,
    first_since_change,
    pooled,
    threshold,
    wrong_lower,
)

PPM = 1_000_000
_GLOBAL_WEIGHT_LOOKUPS = 2_000
"""What all categories together are worth to one of them, at most."""
_REPORTED = 0.1
"""Where nothing is checked, this share of wrong hits is taken to be reported."""
_RESPONSE_MIN = 0.05
_KEPT_MAX = 5_000
_RECKONED_S = 5.0
"""A threshold is reckoned again at most this often, for a change that nobody asked for."""


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """What is promised, and how often a hit is checked once much is known."""

    error_budget_ppm: int
    check_ppm: int
    prior: Prior


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """Thresholds and evidence of a category, or of all together: rates are wrong answers a look-up."""

    category: str
    threshold: Threshold
    sums: Sums
    wrong: float
    wrong_lower: float


@dataclass(slots=True)
class _Organization:
    rows: dict[Place, Sums] = field(default_factory=dict)
    version: int = 0
    lookups: int = 0
    newest: int = 0


@dataclass(frozen=True, slots=True)
class _Reckoned:
    threshold: Threshold
    version: int
    at_s: float


class ErrorBudgets:
    """Reads sums as any replica writes them, and says what is in force. A verifier's evidence is its own."""

    def __init__(self, store: EvidenceStore, *, terms: BudgetTerms, clock: Clock) -> None:
        self.terms = terms
        self._clock = clock
        self._organizations: dict[str, _Organization] = {}
        self._reckoned: OrderedDict[tuple[str, str, str, int], _Reckoned] = OrderedDict()
        self.watched: Watched[SumRow] = Watched("evidence", after=store.sums_after, take=self._take)

    def budget_ppm(self, asked: int | None) -> int:
        """The budget of a look-up: it can only be tightened."""
        return min(asked or self.terms.error_budget_ppm, self.terms.error_budget_ppm)

    def in_force(self, organization: str, category: str, *, verifier_id: str, budget_ppm: int) -> Threshold:
        """The threshold of a category, or of all together where it is empty."""
        where = organization, category, verifier_id, budget_ppm
        known, version, now_s = self._reckoned.get(where), self._version(organization), self._clock.monotonic_s()
        if known is None or (known.version != version and now_s - known.at_s >= _RECKONED_S):
            known = _Reckoned(self._reckon(*where), version, now_s)
            self._reckoned[where] = known
            while len(self._reckoned) > _KEPT_MAX:
                self._reckoned.popitem(last=False)
        return known.threshold

    def forget_reckoned(self, organization: str) -> None:
        """Something was reported: the next look-up reckons anew."""
        for where in [where for where in self._reckoned if where[0] == organization]:
            del self._reckoned[where]

    def check_chance(self, organization: str, *, verifier_id: str) -> float:
        """The chance with which a hit is checked now."""
        known = self._organizations.get(organization)
        lookups = known.lookups if known else 0
        all_together = self.in_force(organization, "", verifier_id=verifier_id, budget_ppm=self.terms.error_budget_ppm)
        return check_chance(lookups=lookups, usual=self.terms.check_ppm / PPM, suspended=all_together.suspended)

    def rows(self, organization: str, *, verifier_id: str) -> list[BudgetRow]:
        """All together first, then by category."""
        known = self._rows(organization, verifier_id)
        categories = sorted({place.category for place in known})
        return [self._row(organization, known, category, verifier_id) for category in ["", *categories]]

    def period(self, at: datetime) -> int:
        """The period of a moment."""
        return int(at.timestamp() // PERIOD_S)

    def _take(self, row: SumRow) -> None:
        known = self._organizations.setdefault(row.place.organization, _Organization())
        known.version += 1
        before = known.rows.get(row.place, Sums())
        known.rows[row.place] = row.sums
        known.lookups += row.sums.lookups - before.lookups
        if row.place.period > known.newest:
            known.newest = row.place.period
            oldest = known.newest - PERIODS_KEPT
            known.rows = {place: sums for place, sums in known.rows.items() if place.period > oldest}
            known.lookups = sum(sums.lookups for sums in known.rows.values())

    def _version(self, organization: str) -> int:
        known = self._organizations.get(organization)
        return known.version if known else 0

    def _rows(self, organization: str, verifier_id: str) -> dict[Place, Sums]:
        known, oldest = self._organizations.get(organization), self.period(self._clock.now()) - PERIODS_KEPT
        rows = known.rows.items() if known else ()
        return {place: sums for place, sums in rows if place.verifier_id == verifier_id and place.period > oldest}

    def _reckon(self, organization: str, category: str, verifier_id: str, budget_ppm: int) -> Threshold:
        rows, prior, budget = self._rows(organization, verifier_id), self.terms.prior, budget_ppm / PPM
        own = {place: sums for place, sums in rows.items() if place.category == category}
        if not category or not own:
            together = _losses(rows, rows, prior=prior, budget=budget)
            return threshold(together, prior, budget=budget, evidence="global" if rows else "default")
        others = {place: sums for place, sums in rows.items() if place.category != category}
        shrunk = pooled(
            _losses(own, rows, prior=prior, budget=budget),
            _losses(others, rows, prior=prior, budget=budget),
            weight_lookups=_GLOBAL_WEIGHT_LOOKUPS,
        )
        return threshold(shrunk, prior, budget=budget, evidence="category")

    def _row(self, organization: str, known: Mapping[Place, Sums], category: str, verifier_id: str) -> BudgetRow:
        rows = {place: sums for place, sums in known.items() if not category or place.category == category}
        total, budget_ppm = summed(rows.values()), self.terms.error_budget_ppm
        force = self.in_force(organization, category, verifier_id=verifier_id, budget_ppm=budget_ppm)
        served = served_losses(rows, known)
        wrong = sum(sum(each.hits.values()) / each.chance + sum(each.misses.values()) for each in served)
        share = wrong / total.lookups if total.lookups else 0.0
        return BudgetRow(category, force, total, share, min(share, wrong_lower(served, 0.0)))


def summed(rows: Iterable[Sums]) -> Sums:
    """All of them together."""
    total = Sums()
    for each in rows:
        total = total.plus(each)
    return total


def served_losses(rows: Mapping[Place, Sums], known: Mapping[Place, Sums]) -> list[Losses]:
    """What was served wrong, as it was seen."""
    hits, _ = responses(known)
    return [
        Losses(
            max(place.chance_ppm / PPM, _REPORTED if not place.chance_ppm else 0.0) * hits,
            sums.lookups if place.chance_ppm else 0,
            {max(0, place.bucket): sums.wrong_hits},
            {max(0, place.bucket): sums.wrong_reports},
        )
        for place, sums in rows.items()
    ]


def responses(rows: Mapping[Place, Sums]) -> tuple[float, float]:
    """The shares of what was chosen for a check, and of misses with a candidate, of which something came to be known: answers are not
    always bought, and not always decided. The rest is taken to be wrong as often.
    """
    total = summed(rows.values())
    hits = (total.judged + 1) / (total.chosen + 1)
    misses = (total.compared + 1) / (total.candidates + 1)
    return min(1.0, max(_RESPONSE_MIN, hits)), min(1.0, max(_RESPONSE_MIN, misses))


def _losses(rows: Mapping[Place, Sums], known: Mapping[Place, Sums], *, prior: Prior, budget: float) -> list[Losses]:
    """The evidence of some rows since the world has last changed."""
    shares, periods = responses(known), dict[int, dict[int, Losses]]()
    for place, sums in rows.items():
        _add(periods.setdefault(place.period, {}), place, sums, shares)
    ordered: Sequence[list[Losses]] = [list(periods[period].values()) for period in sorted(periods)]
    first = first_since_change(ordered, prior.probability_min, budget)
    return [each for period in ordered[first:] for each in period]


def _add(period: dict[int, Losses], place: Place, sums: Sums, shares: tuple[float, float]) -> None:
    of_hits, of_misses = shares
    chance = place.chance_ppm / PPM if place.chance_ppm else _REPORTED
    known = period.get(place.chance_ppm, Losses(chance * of_hits, 0.0, {}, {}))
    hits, misses = dict(known.hits), dict(known.misses)
    if sums.wrong_hits or (sums.wrong_reports and not place.chance_ppm):
        wrong = sums.wrong_hits + (0.0 if place.chance_ppm else sums.wrong_reports)
        hits[place.bucket] = hits.get(place.bucket, 0.0) + wrong
    wrong = sums.wrong_misses / of_misses + (sums.wrong_reports if place.chance_ppm else 0.0)
    if wrong:
        misses[place.bucket] = misses.get(place.bucket, 0.0) + wrong
    # Where nothing is checked, silence proves nothing.
    lookups = known.lookups + (sums.lookups if place.chance_ppm else 0)
    period[place.chance_ppm] = Losses(known.chance, lookups, hits, misses)
