"""May this be spent? The verdict over all budgets of a path, why, what is left, when to come back and what else could be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

from farthing_budget.budgets import Exhaustion, Measure, Terms
from farthing_budget.operations import Left, Sizing, Work
from farthing_budget.periods import leaves_at
from farthing_budget.places import UNITS, Place, output_tokens_that_fit
from farthing_budget.sizing.pool import NO_RISK, Risk
from farthing_budget.velocity import velocity_of

HELD_RETRY_S = 2.0
"""When to come back where only other requests' holds are in the way."""


class Verdict(IntEnum):
    """What the ledger says; the numbers are the contract's."""

    ALLOW = 1
    DEGRADE = 2
    DENY = 3


class Need(NamedTuple):
    """What is asked for. `risk` is what a sized hold may cost beyond what it holds; `pooled` is whether others' risk counts."""

    usd_nanos: int
    tokens: int
    requests: int = 1
    risk: Risk = NO_RISK
    sizing: Sizing | None = None
    pooled: bool = True


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something else that could be done."""

    kind: str
    text: str
    output_tokens_max: int = 0


@dataclass(frozen=True, slots=True)
class Objection:
    """Why one budget does not agree."""

    verdict: Verdict
    reason: str
    terms: Terms
    unit: int
    asked: int
    free: int
    wait_s: float

    @property
    def unit_name(self) -> str:
        """nanodollars, tokens or requests."""
        return UNITS[self.unit][0]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the ledger thinks of a wish. `objection` is the budget that stands in the way most; None when nothing does."""

    verdict: Verdict
    reason: str
    left: Left
    objection: Objection | None = None
    retry_after_s: float = 0.0
    alternatives: tuple[Alternative, ...] = ()


def left_if_it_fits(places: Sequence[Place], usd_nanos: int, tokens: int) -> Left | None:
    """What will be left after a hold that fits everywhere; None where that takes a closer look.

    Nearly every hold fits calendar budgets without further terms. They are looked at once, for the verdict and for what is left.
    """
    tightest, least, least_tokens = None, None, None
    for place in places:
        balance, plain = place.balance, place.plain
        if plain is None or balance.risk or balance.spent_usd_nanos < 0 or balance.spent_tokens < 0:
            return None
        limit, limit_tokens = plain
        if limit is not None:
            free = limit - balance.spent_usd_nanos - balance.held_usd_nanos - usd_nanos
            if free < 0:
                return None
            if least is None or free < least:
                least, tightest = free, place
        if limit_tokens is not None:
            free = limit_tokens - balance.spent_tokens - balance.held_tokens - tokens
            if free < 0:
                return None
            if least_tokens is None or free < least_tokens:
                least_tokens = free
                if least is None:
                    tightest = place
    return _NOTHING_LIMITS if tightest is None else _left(tightest, least, least_tokens)


def objections(places: Sequence[Place], need: Need, work: Work, now: datetime) -> list[Objection]:
    """Every budget that does not agree, and why; none when all do."""
    found: list[Objection] = []
    amounts = need.usd_nanos, need.tokens, need.requests
    for place in places:
        for cap in place.caps:
            asked = amounts[cap.unit]
            spent, held = place.used(cap.unit)
            limit = cap.critical if work.critical else cap.limit
            spare = limit - spent - held - asked
            at_risk = place.at_risk(need.risk, spare) if cap.unit == 0 and need.pooled else 0
            # What asks for nothing always fits: a free model costs nothing on an empty budget either.
            if asked and at_risk > spare:
                found.append(_at_limit(place, cap.unit, (asked, limit, spent, held + at_risk), work, now))
            elif cap.soft is not None and asked and not (work.critical or work.open_models) and spent + held + asked > cap.soft:
                free = cap.soft - spent - held
                found.append(Objection(Verdict.DEGRADE, "SOFT_LIMIT", place.terms, cap.unit, asked, free, 0.0))
        if place.terms.limit_terms.measure is Measure.DEGRADE and not (work.critical or work.open_models) and need.usd_nanos:
            found += _too_fast(place, need, now)
    return found


def decide(places: Sequence[Place], need: Need, work: Work, now: datetime) -> Decision:
    """The verdict: the sternest of all budgets', named by the one that has the least left."""
    left = left_on(places)
    found = objections(places, need, work, now)
    if not found:
        return Decision(Verdict.ALLOW, "FITS", left)
    verdict = max(each.verdict for each in found)
    sternest = [each for each in found if each.verdict is verdict]
    tightest = min(sternest, key=lambda each: each.free)
    # Where waiting does not help with one of them it does not help at all.
    wait_s = 0.0 if any(each.wait_s <= 0 for each in sternest) else max(each.wait_s for each in sternest)
    return Decision(verdict, tightest.reason, left, tightest, wait_s, _alternatives(places, found, need, work, wait_s))


def left_on(places: Sequence[Place]) -> Left:
    """What is left on the tightest budgets of a path, by money and by tokens; the budget named is the one tightest by money."""
    tightest, usd, tokens = None, None, None
    for place in places:
        for cap in place.caps:
            if cap.unit == 2:
                continue
            spent, held = place.used(cap.unit)
            free = cap.limit - spent - held
            if cap.unit == 0 and (usd is None or free < usd):
                usd, tightest = free, place
            elif cap.unit == 1 and (tokens is None or free < tokens):
                tokens = free
                if usd is None:
                    tightest = place
    return _NOTHING_LIMITS if tightest is None else _left(tightest, usd, tokens)


_NOTHING_LIMITS = Left()


def _left(place: Place, free_usd_nanos: int | None, free_tokens: int | None) -> Left:
    terms = place.terms
    limit = terms.limits.usd_nanos
    return Left(terms.budget_id, terms.scope, free_usd_nanos, free_tokens, limit, place.key[2], terms.period_terms)


def _at_limit(place: Place, unit: int, figures: tuple[int, int, int, int], work: Work, now: datetime) -> Objection:
    asked, limit, spent, held = figures
    degrade = place.terms.limit_terms.on_exhaustion is Exhaustion.DEGRADE and not (work.critical or work.open_models)
    return Objection(
        Verdict.DEGRADE if degrade else Verdict.DENY,
        "LIMIT",
        place.terms,
        unit,
        asked,
        limit - spent - held,
        _wait_s(place, unit, limit - asked, now),
    )


def _wait_s(place: Place, unit: int, room: int, now: datetime) -> float:
    """Seconds until what is asked would fit if nobody else came: when no more than `room` is spent and held. 0: never."""
    if room < 0:
        return 0.0
    spent, _ = place.used(unit)
    if spent <= room:
        return HELD_RETRY_S
    if not place.terms.rolling:
        return max(1.0, (place.balance.period_end - now).total_seconds())
    _, name, _ = UNITS[unit]
    for start, balance in zip(place.starts, place.counted, strict=True):
        spent -= getattr(balance, name)
        if spent <= room:
            return max(1.0, (leaves_at(place.terms.period_terms, start) - now).total_seconds())
    return float(place.terms.period_terms.window_s)


def _too_fast(place: Place, need: Need, now: datetime) -> list[Objection]:
    """Objects once half of the limit is used, when the rest would not last."""
    limit = place.terms.limits.usd_nanos
    if limit is None:
        return []
    spent, held = place.used(0)
    if 2 * (spent + held) < limit:
        return []
    velocity = velocity_of(place.terms, place.key[2], place.counted, now)
    if velocity.exhausted_at is None:
        return []
    return [Objection(Verdict.DEGRADE, "VELOCITY", place.terms, 0, need.usd_nanos, limit - spent - held, 0.0)]


def _alternatives(
    places: Sequence[Place], found: Sequence[Objection], need: Need, work: Work, wait_s: float
) -> tuple[Alternative, ...]:
    offered = []
    if not work.open_models:
        offered.append(Alternative("OPEN_MODELS", "use an open model that costs nothing, or less"))
    tokens = output_tokens_that_fit(places, need.sizing, work) if need.sizing and not any(map(_is_rate, found)) else 0
    if tokens >= 1:
        offered.append(Alternative("FEWER_OUTPUT_TOKENS", f"ask for at most {tokens} output tokens", tokens))
    if not work.critical and _fits_if_critical(places, need):
        offered.append(Alternative("MARK_CRITICAL", "mark the request as critical, if it is"))
    if wait_s > 0:
        offered.append(Alternative("WAIT", f"come back in {wait_s:.0f} seconds"))
    return tuple(offered)


def _is_rate(objection: Objection) -> bool:
    """Whether a shorter answer would be refused just the same."""
    return objection.unit == 2 or objection.reason == "VELOCITY"


def _fits_if_critical(places: Sequence[Place], need: Need) -> bool:
    amounts = need.usd_nanos, need.tokens, need.requests
    return all(amounts[cap.unit] <= cap.critical - sum(place.used(cap.unit)) for place in places for cap in place.caps)
