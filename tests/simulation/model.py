"""The oracle: what a ledger is, small enough to be believed. It knows no batches, no database and no journal."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

from farthing_budget.operations import Adjust, Dispatch, Lapse, Operation, Record, Release, Reserve, Reset, Settle, TopUp

Place = tuple[str, Any]
"""A budget's scope and the day (or the year) that is meant."""


class Model:
    """Budgets by scope (a limit in nanodollars, per day or per year, UTC), and every request that was ever granted."""

    def __init__(self, limits: dict[str, int], daily: set[str], ids: dict[str, str]) -> None:
        self.limits, self.daily, self.scope_of = limits, daily, {budget_id: scope for scope, budget_id in ids.items()}
        self.spent: dict[Place, int] = {}
        self.held: dict[Place, int] = {}
        self.suspense: dict[Place, int] = {}
        self.requests: dict[str, list[Any]] = {}  # id → [state, amount, places, expires]

    def copy(self) -> Model:
        """One like this."""
        return copy.deepcopy(self)

    def places(self, scope: Any, now: datetime) -> list[Place]:
        """Where a request is charged."""
        return [self.place(each, now) for each in scope.ancestors if each in self.limits]

    def place(self, scope: str, now: datetime) -> Place:
        """A budget in its present period."""
        return scope, now.date() if scope in self.daily else now.year

    def fits(self, places: list[Place], amount: int) -> bool:
        """Whether there is room for so much more everywhere."""
        used = {each: max(0, self.spent.get(each, 0)) + self.held.get(each, 0) for each in places}
        return not amount or all(used[each] + amount <= self.limits[each[0]] for each in places)

    def move(self, places: list[Place], held: int, spent: int, suspense: int = 0) -> None:
        """Changes balances."""
        for place in places:
            self.held[place] = self.held.get(place, 0) + held
            self.spent[place] = self.spent.get(place, 0) + spent
            self.suspense[place] = self.suspense.get(place, 0) + suspense

    def apply(self, operation: Operation, now: datetime) -> str:
        """The name of the verdict."""
        known = self.requests.get(operation.request_id)
        if isinstance(operation, Reserve | Record | Adjust | Reset):
            return "ok" if known is not None else self._new(operation, now)
        if known is None:
            return "ReservationNotFound"
        state, amount, places, expires = known
        match operation:
            case Settle() if state == "settled":
                return "ok"
            case Settle() if state == "released":
                return "ReservationReleased"
            case Settle():
                cost, held, waits = operation.usage.cost_usd_nanos, amount * (state in _OPEN), amount * (state == "suspended")
                self.move(places, -held, cost - waits, -waits)
                known[0] = "settled"
            case Release() if state == "settled":
                return "ReservationSettled"
            case Release():
                held, waits = amount * (state in _OPEN), amount * (state == "suspended")
                self.move(places, -held, -waits, -waits)
                known[0] = "released"
            case Lapse() if state in _OPEN and expires <= now:
                called = state == "dispatched"
                self.move(places, -amount, amount * called, amount * called)
                known[0] = "suspended" if called else "lapsed"
            case Dispatch() | TopUp() if state in ("released", "lapsed"):
                return "ReservationReleased"
            case Dispatch() if state == "settled":
                return "ReservationSettled"
            case Dispatch() if state == "reserved":
                known[0] = "dispatched"
            case TopUp() if state not in _OPEN:
                return "ReservationSettled"
            case TopUp() if operation.amount_usd_nanos > amount:
                if not self.fits(places, operation.amount_usd_nanos - amount):
                    return "BudgetExhausted"
                self.move(places, operation.amount_usd_nanos - amount, 0)
                known[1] = operation.amount_usd_nanos
        return "ok"

    def _new(self, operation: Any, now: datetime) -> str:
        places = self.places(operation.scope, now)
        match operation:
            case Reserve():
                if not self.fits(places, operation.amount_usd_nanos):
                    return "BudgetExhausted"
                self.move(places, operation.amount_usd_nanos, 0)
                expires, state = now + timedelta(seconds=operation.ttl_s), "dispatched" if operation.dispatch else "reserved"
                self.requests[operation.request_id] = [state, operation.amount_usd_nanos, places, expires]
            case Record():
                self.move(places, 0, operation.usage.cost_usd_nanos)
                self.requests[operation.request_id] = ["settled", 0, places, now]
            case Adjust():
                corrected = self.requests.get(operation.reservation_id)
                if corrected is None:
                    return "ReservationNotFound"
                if corrected[0] != "settled":
                    return "ReservationOpen"
                self.move(corrected[2], 0, operation.amount_usd_nanos)
                self.requests[operation.request_id] = ["settled", 0, corrected[2], now]
            case Reset():
                place = self.place(self.scope_of[operation.budget_id], now)
                self.spent[place] = self.suspense.get(place, 0)
                self.requests[operation.request_id] = ["settled", 0, [place], now]
        return "ok"


_OPEN = ("reserved", "dispatched")
