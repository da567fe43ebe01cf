"""What a committed batch lets others know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_budget.budgets import Terms


@dataclass(frozen=True, slots=True)
class BalanceChanged:
    """A balance as a committed batch left it."""

    terms: Terms
    period_start: datetime
    period_end: datetime
    spent_usd_nanos: int
    spent_tokens: int
    spent_requests: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that somebody should hear of. kind: "suspense", "overrun", "price_unknown"."""

    kind: str
    organization: str
    scope: str
    request_id: str
    model: str
    amount_usd_nanos: int
    at: datetime
