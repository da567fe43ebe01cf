"""What happens in a batch that somebody may want to hear of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_budget.alerts import AlertKind


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened to one request. kind: "suspense", "overrun", "price_unknown"."""

    kind: str
    organization: str
    scope: str
    request_id: str
    model: str
    amount_usd_nanos: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """What is written down with a batch because it may call for an alert: a percentage that was passed, or incidents of one kind.

    A budget's percentage of its limit went from `percent_before` to `percent`; `resets` is how often it had been reset by then.
    """

    kind: AlertKind
    organization: str
    scope: str
    at: datetime
    detail: str = ""
    amount: int = 0
    incidents: int = 0
    budget_id: str = ""
    period_start: datetime | None = None
    window_s: int = 0
    resets: int = 0
    unit: int = 0
    limit: int = 0
    percent_before: int = 0
    percent: int = 0
