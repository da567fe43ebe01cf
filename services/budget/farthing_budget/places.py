"""The budgets on a path: what counts against each, what it allows, and what of it is at risk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import NamedTuple

from farthing_core.money import TOKENS_PER_PRICE

from farthing_budget.budgets import Balance, BalanceKey, Measure, Terms
from farthing_budget.operations import Sizing, Work
from farthing_budget.sizing.pool import NO_RISK, Risk, add, bound, worst

UNITS = (
    ("nanodollars", "spent_usd_nanos", "held_usd_nanos"),
    ("tokens", "spent_tokens", "held_tokens"),
    ("requests", "spent_requests", "held_requests"),
)
"""What is limited: its name, and where a balance has what is spent and held of it."""


class Cap(NamedTuple):
    """A limit of one unit: for ordinary work, for critical work, and from where ordinary work is degraded (None: nowhere)."""

    unit: int
    limit: int
    critical: int
    soft: int | None


@dataclass(slots=True)
class Place:
    """A budget on a path: where it is charged, and the balances that count against it (the charged one last).

    `plain` are its limits of money and tokens where nothing else matters: no window, no request limit, no terms near the limit.
    """

    terms: Terms
    key: BalanceKey
    balance: Balance
    counted: Sequence[Balance]
    caps: tuple[Cap, ...]
    plain: tuple[int | None, int | None] | None
    starts: Sequence[datetime]

    def used(self, unit: int) -> tuple[int, int]:
        """(spent, held) of a unit. Refunds of an earlier period make nothing free in this one."""
        _, spent, held = UNITS[unit]
        if len(self.counted) == 1:
            return max(0, getattr(self.balance, spent)), getattr(self.balance, held)
        balances = self.counted
        return max(0, sum(getattr(each, spent) for each in balances)), sum(getattr(each, held) for each in balances)

    def at_risk(self, newcomer: Risk, spare: int = 0) -> int:
        """What open holds that the ledger sized, with a newcomer, may yet cost beyond what they hold, in nanodollars.

        Where a quicker upper bound is within what is to spare, that will do.
        """
        pools = [balance.risk for balance in self.counted if balance.risk]
        most = worst(newcomer, *pools)
        return most if most <= spare else bound(reduce(add, pools, newcomer))


def place_of(terms: Terms, keys: Sequence[BalanceKey], counted: Sequence[Balance]) -> Place:
    """A budget's place on a path; `keys` are those of the balances that count, the charged one last."""
    limit_terms, limits = terms.limit_terms, terms.limits
    caps = tuple(
        Cap(unit, limit, limit * limit_terms.critical_percent // 100, _soft(limit, limit_terms.soft_percent))
        for unit, limit in enumerate((limits.usd_nanos, limits.tokens, limits.requests))
        if limit is not None
    )
    simple = len(counted) == 1 and limits.requests is None and not limit_terms.soft_percent
    plain = (limits.usd_nanos, limits.tokens) if simple and limit_terms.measure is not Measure.DEGRADE else None
    return Place(terms, keys[-1], counted[-1], counted, caps, plain, [key[2] for key in keys])


def output_tokens_that_fit(places: Sequence[Place], sizing: Sizing, work: Work) -> int:
    """A max_tokens with which the same request would be admitted now.

    A stream adds no more to the pooled bound than its own worst case, so all that is free without it can be promised.
    """
    tokens, price = sizing.output_tokens_max, sizing.output_usd_nanos_per_million_tokens
    for place in places:
        for cap in place.caps:
            limit = cap.critical if work.critical else cap.limit
            if cap.soft is not None and not (work.critical or work.open_models):
                limit = min(limit, cap.soft)
            free = limit - sum(place.used(cap.unit))
            if cap.unit == 0 and (price or sizing.input_usd_nanos):
                # The bins of a hold are rounded up one by one: a nanodollar in all.
                spare = free - place.at_risk(NO_RISK) - sizing.input_usd_nanos - 1
                if spare < 0:
                    return 0
                if price:
                    tokens = min(tokens, spare * TOKENS_PER_PRICE // price)
            elif cap.unit == 1:
                tokens = min(tokens, free - sizing.input_tokens)
    return tokens


def _soft(limit: int, percent: int) -> int | None:
    return limit * percent // 100 if percent else None
