"""How fast a budget is used up, and when it would end at this rate.

What was spent lately is kept as one number that fades exponentially (an irregularly sampled moving average: Eckner, "Algorithms for
Unevenly Spaced Time Series", 2012), so that a decision needs no look at the history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from farthing_budget.budgets import Balance, Terms, total

FADE_S_MAX = 3 * 3600.0
_FADES_OF_A_PERIOD = 8
_SETTLING_S = 300.0
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Velocity:
    """Rates in nanodollars per hour. `exhausted_at` is None where the limit is not reached in this period."""

    terms: Terms
    rate_usd_nanos_per_hour: int
    mean_usd_nanos_per_hour: int
    projected_usd_nanos: int
    exhausted_at: datetime | None


def faded(balance: Balance, now: datetime, *, fade_s: float) -> float:
    """What of the burn is left at a moment, in nanodollars."""
    if balance.burn_at is None:
        return 0.0
    return balance.burn_usd_nanos * math.exp(-max(0.0, (now - balance.burn_at).total_seconds()) / fade_s)


def fade_s_of(length_s: float) -> float:
    """How fast the memory of a period of this length fades: an eighth of it, at most three hours."""
    return min(FADE_S_MAX, max(1.0, length_s / _FADES_OF_A_PERIOD))


def velocity_of(terms: Terms, start: datetime, counted: Sequence[Balance], now: datetime) -> Velocity:
    """How fast a budget is used up; `counted` are the balances that count now, the present one last. `start` is its period's."""
    balance = total(counted)
    if terms.rolling:
        length_s = float(terms.period_terms.window_s)
        age_s = length_s
        left_s = length_s
    else:
        length_s = (balance.period_end - start).total_seconds()
        age_s = max(1.0, (now - start).total_seconds())
        left_s = max(0.0, (balance.period_end - now).total_seconds())
    spent = max(0, balance.spent_usd_nanos)
    fade_s = fade_s_of(length_s)
    burnt = sum(faded(each, now, fade_s=fade_s) for each in counted)
    # A memory younger than its fading has not seen a full one yet; a few minutes are the least that a rate is told from.
    per_s = burnt / (fade_s * (1.0 - math.exp(-max(age_s, _SETTLING_S) / fade_s)))
    limit = terms.limits.usd_nanos
    exhausted_at = None
    if limit is not None and per_s > 0 and (not terms.rolling or per_s * length_s > limit):
        seconds = max(0.0, (limit - spent) / per_s)
        if seconds < left_s:
            exhausted_at = now + timedelta(seconds=seconds)
    return Velocity(
        terms=terms,
        rate_usd_nanos_per_hour=int(per_s * _HOUR_S),
        mean_usd_nanos_per_hour=int(spent / age_s * _HOUR_S),
        projected_usd_nanos=spent + int(per_s * left_s) if not terms.rolling else int(per_s * length_s),
        exhausted_at=exhausted_at,
    )
