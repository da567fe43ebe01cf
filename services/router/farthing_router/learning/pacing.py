"""What quality may cost while a budget drains, so that it lasts its period.

A budget's shadow price by dual mirror descent (Balseiro, Lu and Mirrokni, 2020): with every request the price of money rises by how
much more was used since the last than the plan allowed, and falls where less was. The plan is made anew each time: what is left of the
limit, evenly over what is left of the period. A proportional part answers at once to what is spent ahead of time, so that a budget that
was drained in a morning is not spent in an afternoon.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from farthing_router.routing.routes import BudgetPace, Wish

_STEP = 30.0
"""How fast the price answers: using a hundredth of the limit ahead of plan raises the logarithm of the price of money by 0.3."""
_PROPORTIONAL = 4.0
_LOG_MAX = 7.0
"""A point of quality never falls below a thousandth of its price."""
_SLACK = 0.005
_SCOPES_MAX = 10_000
_POINTS_OF_BASELINE = 5


@dataclass(slots=True)
class _State:
    """The logarithm of the price of money, and how the budget stood when it was last looked at."""

    log_price: float
    used: float
    elapsed: float


class Pacer:
    """The Pacing port. `baseline_usd_nanos` is what a request would likely cost at the baseline model: where nobody has set a price of
    quality, and a budget runs ahead of its time, a fifth of that is a point's."""

    def __init__(self, *, baseline_usd_nanos: Callable[[Wish], int]) -> None:
        self._baseline_usd_nanos = baseline_usd_nanos
        self._states: OrderedDict[str, _State] = OrderedDict()

    def usd_nanos_per_quality_point(self, wish: Wish, *, base_usd_nanos: int) -> int:
        """What a point of quality may cost this request; 0 where it has no price and needs none."""
        factor = self.factor(wish.scope, wish.budget_pace) if wish.budget_pace is not None else 1.0
        if factor >= 1.0:
            return base_usd_nanos
        base = base_usd_nanos or self._baseline_usd_nanos(wish) // _POINTS_OF_BASELINE
        return max(1, round(base * factor)) if base else 0

    def factor(self, scope: str, pace: BudgetPace) -> float:
        """By what the price of quality is multiplied, above 0 and up to 1, as this budget stands; learns from how it moved since the last
        look."""
        state = self._states.get(scope)
        if state is None or pace.elapsed_share < state.elapsed or pace.used_share < state.used * 0.5:
            state = _State(0.0, pace.used_share, pace.elapsed_share)  # a new period, or a budget that was raised
        spent, passed = pace.used_share - state.used, pace.elapsed_share - state.elapsed
        left, time_left = max(0.0, 1.0 - state.used), max(1e-9, 1.0 - state.elapsed)
        planned = passed * left / time_left
        log_price = min(_LOG_MAX, max(0.0, state.log_price + _STEP * (spent - planned)))
        self._states[scope] = _State(log_price, pace.used_share, pace.elapsed_share)
        self._states.move_to_end(scope)
        while len(self._states) > _SCOPES_MAX:
            self._states.popitem(last=False)
        ahead = max(0.0, pace.used_share - pace.elapsed_share - _SLACK)
        return math.exp(-min(_LOG_MAX, log_price + _PROPORTIONAL * ahead / max(0.02, 1.0 - pace.used_share)))
