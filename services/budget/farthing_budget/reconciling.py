"""Reconciling: an invoice compared with usage per model and day, with the most probable cause of each difference.

The provider's midnight is sought first, over all models and days together; `causes.py` judges what is left of each difference.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction

from farthing_budget.causes import Cause, Pair, finding_of
from farthing_budget.invoices import Invoice, Rates, Suspended, midnight
from farthing_budget.questions import UsageSum

_SHIFTS = [hours for size in range(1, 15) for hours in (size, -size)]
_CENT = 10_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One comparison, in nanodollars. `explained_usd_nanos` is what the cause accounts for of billed minus tracked."""

    model: str
    day: date
    billed_usd_nanos: int
    tracked_usd_nanos: int
    estimated_usd_nanos: int
    cause: Cause
    explanation: str
    explained_usd_nanos: int

    @property
    def difference_usd_nanos(self) -> int:
        """Billed minus tracked."""
        return self.billed_usd_nanos - self.tracked_usd_nanos


@dataclass(frozen=True, slots=True)
class Comparison:
    """An invoice, compared; the largest difference first."""

    differences: tuple[Difference, ...]
    billed_usd_nanos: int
    tracked_usd_nanos: int
    explained_usd_nanos: int


@dataclass(frozen=True, slots=True)
class ImportKey:
    """What makes an import safe to repeat."""

    organization: str
    request_id: str
    body_hash: bytes


class Known:
    """What is known besides the invoice: usage by (MODEL, HOUR), rates by model, and money in suspense."""

    def __init__(
        self, sums: Iterable[UsageSum], *, rates: Mapping[str, Rates | None] | None = None, suspended: Sequence[Suspended] = ()
    ) -> None:
        self.rates = rates or {}
        self.suspended = suspended
        self.by_day: dict[tuple[str, date], list[UsageSum]] = defaultdict(list)
        self._hours: dict[str, list[datetime]] = defaultdict(list)
        self._costs_until: dict[str, list[int]] = defaultdict(lambda: [0])
        for each in sorted(sums, key=lambda one: one.keys):
            model, text = each.keys
            hour = datetime.fromisoformat(text)
            self.by_day[model, hour.date()].append(each)
            self._hours[model].append(hour)
            costs = self._costs_until[model]
            costs.append(costs[-1] + each.cost_usd_nanos)

    def cost(self, model: str, start: datetime, *, hours: int) -> int:
        """What a model cost in the hours from a moment on."""
        mine, costs = self._hours[model], self._costs_until[model]
        return costs[bisect_left(mine, start + timedelta(hours=hours))] - costs[bisect_left(mine, start)]

    def cost_of_day(self, model: str, day: date, *, shift: int) -> int:
        """What a model cost on a day whose midnight lies `shift` hours after ours."""
        return self.cost(model, midnight(day) + timedelta(hours=shift), hours=24)


def compare(invoice: Invoice, known: Known) -> Comparison:
    """Compares every model on every day from the first to the last of the invoice."""
    pairs = _pairs(invoice, known)
    unit = _unit(pairs)
    shift = _shift(pairs, known, unit)
    if shift:
        _move_midnight(pairs, known, shift)
    else:
        _move_calls_around_midnight(pairs, known, unit)
    steady = _steady(pairs)
    found = []
    for pair in sorted(pairs, key=lambda each: -each.difference):
        finding = finding_of(pair, known.rates.get(pair.model), tolerance_of(pair, unit), steady=pair.model in steady)
        guessed = pair.sum("estimated_usd_nanos") + pair.suspended
        found.append(
            Difference(pair.model, pair.day, pair.billed, pair.cost, guessed, finding.cause, finding.text, finding.explained)
        )
    found.sort(key=lambda each: (-abs(each.difference_usd_nanos), each.model, each.day))
    return Comparison(
        tuple(found),
        sum(each.billed_usd_nanos for each in found),
        sum(each.tracked_usd_nanos for each in found),
        sum(each.explained_usd_nanos for each in found),
    )


def _pairs(invoice: Invoice, known: Known) -> list[Pair]:
    first, last = invoice.days
    pairs: dict[tuple[str, date], Pair] = {}

    def pair(model: str, day: date) -> Pair:
        return pairs.setdefault((model, day), Pair(model, day))

    for line in invoice.lines:
        its = pair(line.model, line.day)
        its.billed += line.cost_usd_nanos
        its.billed_input += line.input_tokens
        its.billed_output += line.output_tokens
        its.lines += 1
    for (model, day), sums in known.by_day.items():
        if first <= day <= last:
            pair(model, day).tracked += sums
    for held in known.suspended:
        if held.model and (held.model, held.day) in pairs:
            pairs[held.model, held.day].suspended += held.amount_usd_nanos
    _lend_unnamed(pairs, known.suspended)
    return list(pairs.values())


def _lend_unnamed(pairs: Mapping[tuple[str, date], Pair], suspended: Sequence[Suspended]) -> None:
    """Money in suspense whose model was not said goes where most is missing on that day."""
    for each in suspended:
        if not each.model:
            missing = [pair for pair in pairs.values() if pair.day == each.day and pair.difference > pair.suspended]
            if missing:
                max(missing, key=lambda pair: pair.difference - pair.suspended).suspended += each.amount_usd_nanos


def _unit(pairs: Sequence[Pair]) -> int:
    """In what unit the invoice is rounded: a cent, or something smaller."""
    unit = _CENT
    while unit > 1 and any(pair.billed % unit for pair in pairs):
        unit //= 10
    return unit


def tolerance_of(pair: Pair, unit: int) -> int:
    """What rounding may make: half a unit for each line of the invoice, and a nanodollar for each attempt of ours."""
    half = -(-unit // 2) * pair.lines
    if unit < _CENT:
        # Finer amounts may be round by chance.
        half = min(half, abs(pair.cost) // 100)
    return half + pair.sum("attempts")


def _shift(pairs: Sequence[Pair], known: Known, unit: int) -> int:
    """By how many hours the provider's midnight lies behind ours; 0 where moving it does not clear the differences away."""

    def left(shift: int) -> int:
        return sum(abs(pair.billed - known.cost_of_day(pair.model, pair.day, shift=shift)) for pair in pairs)

    here = sum(abs(pair.difference) for pair in pairs)
    tolerance = sum(tolerance_of(pair, unit) for pair in pairs)
    if here <= tolerance:
        return 0
    best = min(_SHIFTS, key=left)
    days = len({pair.day for pair in pairs})
    enough = left(best) <= (max(tolerance, here // 2) if days >= 3 else tolerance)
    # Where traffic grows steadily, later hours look like higher rates.
    return best if enough and left(best) < _left_by_factor(pairs) else 0


def _left_by_factor(pairs: Sequence[Pair]) -> int:
    """What differs still when every model is billed by one factor of its own."""
    totals: dict[str, tuple[int, int]] = {}
    for pair in pairs:
        billed, cost = totals.get(pair.model, (0, 0))
        totals[pair.model] = billed + pair.billed, cost + pair.cost
    return sum(
        abs(pair.billed - pair.cost * billed // cost) if cost else abs(pair.difference)
        for pair in pairs
        for billed, cost in (totals[pair.model],)
    )


def _move_midnight(pairs: Sequence[Pair], known: Known, shift: int) -> None:
    """Notes what a midnight elsewhere moved into each day, where that brings billed and tracked closer together."""
    for pair in pairs:
        moved = known.cost_of_day(pair.model, pair.day, shift=shift) - pair.cost
        if abs(pair.difference - moved) < abs(pair.difference):
            pair.moved = moved
            pair.boundary = f"the provider's days begin {abs(shift)} h {'after' if shift > 0 else 'before'} 00:00 UTC"


def _move_calls_around_midnight(pairs: Sequence[Pair], known: Known, unit: int) -> None:
    """Notes calls that began on one day and were settled on the next: what one day lacks the next has too much."""
    by_place = {(pair.model, pair.day): pair for pair in pairs}
    for pair in pairs:
        following = by_place.get((pair.model, pair.day + timedelta(days=1)))
        if following is None or pair.difference * following.difference >= 0:
            continue
        even = abs(pair.difference + following.difference) <= tolerance_of(pair, unit) + tolerance_of(following, unit)
        if even and abs(pair.difference) <= known.cost(pair.model, midnight(following.day) - timedelta(hours=1), hours=2):
            for each in (pair, following):
                each.moved, each.boundary = each.difference, "calls around midnight count on the neighbouring day"


def _steady(pairs: Sequence[Pair]) -> set[str]:
    """Models that were billed by the same factor on every day, of at least two."""
    factors: dict[str, list[Fraction]] = defaultdict(list)
    for pair in pairs:
        if pair.cost > 0 and pair.lines:
            factors[pair.model].append(Fraction(pair.billed, pair.cost))
    return {model for model, found in factors.items() if len(found) > 1 and max(found) - min(found) <= max(found) / 200}
