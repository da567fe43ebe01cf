"""How the tightest budget of a scope stands, from what the ledger said last: nobody is asked for it."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from farthing_orchestrator.request import BudgetLeft, BudgetPace

_SCOPES_MAX = 10_000


class Paces:
    """What was left at the last reservation, by scope; the scopes used last."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, BudgetLeft] = OrderedDict()

    def learn(self, scope: str, left: BudgetLeft) -> None:
        """What the ledger said."""
        self._left[scope] = left
        self._left.move_to_end(scope)
        while len(self._left) > _SCOPES_MAX:
            self._left.popitem(last=False)

    def of(self, scope: str, now: datetime) -> BudgetPace | None:
        """How a scope's budget stands; None where nothing is known, no money is limited, or its period is over."""
        left = self._left.get(scope)
        if left is None or left.period_start is None or left.period_end is None or now >= left.period_end:
            return None
        if not left.limit_usd_nanos or left.free_usd_nanos is None:
            return None
        used = 1 - left.free_usd_nanos / left.limit_usd_nanos
        elapsed = (now - left.period_start) / (left.period_end - left.period_start)
        return BudgetPace(min(1_000.0, max(0.0, used)), min(1.0, max(0.0, elapsed)))
