"""The ledger against a model of ten lines: money is conserved, no limit is passed at admission, every hold ends once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from farthing_budget.book import Book
from farthing_budget.budgets import Balance, BalanceKey, Limits, Terms
from farthing_budget.ledger import apply
from farthing_budget.operations import (
    OPEN,
    Dispatch,
    Hold,
    Lapse,
    Operation,
    Outcome,
    Record,
    Release,
    Reserve,
    Settle,
    State,
    TopUp,
)
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetExhausted, ReservationReleased, ReservationSettled
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

ANN = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
BOB = parse_scope("organizations/acme/workspaces/search/projects/crawler/users/bob")
LEVELS = sorted({*ANN.ancestors, *BOB.ancestors})
# Few values, so that sums often meet a limit exactly, and often miss it by one.
AMOUNTS = st.sampled_from([0, 1, 49, 50, 51, 100])
BACK = st.integers(0, 4)
LIMITS = st.sampled_from([None, 50, 100, 101, 250])


class Model:
    """What each (budget, day) has spent and held, and where each request stands: the whole of the ledger's meaning."""

    def __init__(self) -> None:
        self.spent: dict[Any, int] = {}
        self.held: dict[Any, int] = {}
        self.requests: dict[str, tuple[str, int, list[Any]]] = {}

    def move(self, places: list[Any], spent: int, held: int) -> None:
        for place in places:
            self.spent[place] = self.spent.get(place, 0) + spent
            self.held[place] = self.held.get(place, 0) + held


class LedgerMachine(RuleBasedStateMachine):
    """Random callers, a clock that moves, batches that end anywhere."""

    @initialize(limits=st.lists(LIMITS, min_size=len(LEVELS), max_size=len(LEVELS)))
    def budgets(self, limits: list[int | None]) -> None:
        self.clock = ManualClock(datetime(2026, 3, 15, 22, tzinfo=UTC))
        self.model = Model()
        self.balances: dict[BalanceKey, Balance] = {}
        self.holds: dict[tuple[str, str], Hold] = {}
        self.granted: list[Reserve] = []
        self.entries: list[Any] = []
        self.count = 0
        self.charged = 0
        # A budget without a limit of money counts tokens, so that it is charged all the same.
        self.terms = {
            ("acme", scope): [
                Terms(
                    "acme",
                    scope,
                    scope,
                    "",
                    PeriodTerms(Period.DAY, "UTC"),
                    Limits(limit, None if limit is not None else 10**9),
                )
            ]
            for scope, limit in zip(LEVELS, limits, strict=True)
        }
        self.new_batch()

    @rule()
    def new_batch(self) -> None:
        """What was decided is written, and the next batch starts from what was written."""
        now = self.clock.now()
        for (terms,) in self.terms.values():
            self.balances.setdefault(terms.balance_key(now), Balance(terms.bounds(now)[1]))
        self.book = Book(now=now, holds=self.holds, terms=self.terms, balances=self.balances, sizer=Sizer())

    @rule(seconds=st.sampled_from([1, 60, 3_600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.new_batch()

    @rule(scope=st.sampled_from([ANN, BOB]), amount=AMOUNTS)
    def reserve(self, scope: Any, amount: int) -> None:
        self.count += 1
        operation = Reserve(scope, str(self.count), amount, 0, 60, str(amount).encode())
        places = [(scope_path, self.book.now.date()) for scope_path in scope.ancestors]
        limits = [self.terms["acme", scope_path][0].limits.usd_nanos for scope_path in scope.ancestors]
        fits = all(
            limit is None or not amount or self.model.spent.get(place, 0) + self.model.held.get(place, 0) + amount <= limit
            for place, limit in zip(places, limits, strict=True)
        )
        assert isinstance(self.apply(operation), Outcome if fits else BudgetExhausted)
        if fits:
            self.model.move(places, 0, amount)
            self.model.requests[operation.request_id] = ("reserved", amount, places)
            self.granted.append(operation)

    @precondition(lambda self: self.granted)
    @rule(back=BACK)
    def repeat(self, back: int) -> None:
        outcome = self.apply(self.recent(back))
        assert isinstance(outcome, Outcome)
        assert outcome.repeated

    @precondition(lambda self: self.granted)
    @rule(back=BACK, cost=AMOUNTS)
    def settle(self, back: int, cost: int) -> None:
        operation = self.recent(back)
        state, amount, places = self.model.requests[operation.request_id]
        verdict = self.apply(Settle(operation.scope, operation.request_id, used(cost), str(cost).encode()))
        if state == "released":
            assert isinstance(verdict, ReservationReleased)
        elif state in ("reserved", "dispatched", "suspended", "lapsed"):
            assert isinstance(verdict, Outcome)
            self.charged += cost
            in_suspense = amount if state == "suspended" else 0
            self.model.move(places, cost - in_suspense, -amount if state in ("reserved", "dispatched") else 0)
            self.model.requests[operation.request_id] = ("settled", amount, places)

    @precondition(lambda self: self.granted)
    @rule(back=BACK)
    def release(self, back: int) -> None:
        operation = self.recent(back)
        state, amount, places = self.model.requests[operation.request_id]
        verdict = self.apply(Release(operation.scope, operation.request_id))
        assert isinstance(verdict, ReservationSettled if state == "settled" else Outcome)
        if state in ("reserved", "dispatched", "suspended", "lapsed"):
            held = amount if state in ("reserved", "dispatched") else 0
            self.model.move(places, -amount if state == "suspended" else 0, -held)
            self.model.requests[operation.request_id] = ("released", amount, places)

    @precondition(lambda self: self.granted)
    @rule(back=BACK)
    def dispatch(self, back: int) -> None:
        operation = self.recent(back)
        state, amount, places = self.model.requests[operation.request_id]
        verdict = self.apply(Dispatch(operation.scope, operation.request_id))
        assert isinstance(verdict, Outcome) == (state in ("reserved", "dispatched", "suspended"))
        if state == "reserved":
            self.model.requests[operation.request_id] = ("dispatched", amount, places)

    @precondition(lambda self: self.granted)
    @rule(back=BACK, total=AMOUNTS)
    def top_up(self, back: int, total: int) -> None:
        """A hold grows to a total where there is room in its own periods, and never shrinks."""
        operation = self.recent(back)
        state, amount, places = self.model.requests[operation.request_id]
        verdict = self.apply(TopUp(operation.scope, operation.request_id, total, 0, 0))
        if state not in ("reserved", "dispatched"):
            assert isinstance(verdict, ReservationReleased | ReservationSettled)
            return
        more = max(0, total - amount)
        limits = [self.terms["acme", scope_path][0].limits.usd_nanos for scope_path, _ in places]
        fits = all(
            limit is None or not more or self.model.spent.get(place, 0) + self.model.held.get(place, 0) + more <= limit
            for place, limit in zip(places, limits, strict=True)
        )
        assert isinstance(verdict, Outcome if fits else BudgetExhausted)
        if fits:
            self.model.move(places, 0, more)
            self.model.requests[operation.request_id] = (state, amount + more, places)

    @rule(ahead=st.booleans())
    def sweep(self, ahead: bool) -> None:
        """Everything open is told to lapse; only what is late does."""
        if ahead:
            self.time_passes(60)
        for request_id, (state, amount, places) in list(self.model.requests.items()):
            hold = self.holds["acme", request_id]
            self.apply(Lapse(parse_scope(hold.scope), request_id))
            if state in ("reserved", "dispatched") and hold.expires_at <= self.book.now:
                called = state == "dispatched"
                self.model.move(places, amount if called else 0, -amount)
                self.model.requests[request_id] = ("suspended" if called else "lapsed", amount, places)

    @rule(scope=st.sampled_from([ANN, BOB]), cost=AMOUNTS)
    def record(self, scope: Any, cost: int) -> None:
        self.count += 1
        assert isinstance(self.apply(Record(scope, str(self.count), used(cost), b"")), Outcome)
        self.charged += cost
        self.model.move([(scope_path, self.book.now.date()) for scope_path in scope.ancestors], cost, 0)

    @invariant()
    def every_balance_is_what_the_model_says(self) -> None:
        for (_, budget_id, start), balance in self.balances.items():
            place = budget_id, start.date()
            assert balance.spent_usd_nanos == self.model.spent.get(place, 0)
            assert balance.held_usd_nanos == self.model.held.get(place, 0) >= 0

    @invariant()
    def what_the_organisation_spent_is_what_was_settled_or_is_in_suspense(self) -> None:
        spent = sum(balance.spent_usd_nanos for key, balance in self.balances.items() if key[1] == "organizations/acme")
        suspended = sum(hold.amount_usd_nanos for hold in self.holds.values() if hold.state is State.SUSPENDED)
        assert spent == self.charged + suspended

    @invariant()
    def the_journal_adds_up_to_the_balances(self) -> None:
        self.entries += self.book.entries
        self.book.entries.clear()
        for key, balance in self.balances.items():
            mine = [entry for entry in self.entries if key in entry.keys]
            assert balance.spent_usd_nanos == sum(entry.spent_usd_nanos for entry in mine)
            assert balance.held_usd_nanos == sum(entry.held_usd_nanos for entry in mine)
            assert balance.held_requests == sum(entry.held_requests for entry in mine) >= 0

    @invariant()
    def what_is_held_is_what_open_holds_say(self) -> None:
        held = sum(balance.held_usd_nanos for key, balance in self.balances.items() if key[1] == "organizations/acme")
        assert held == sum(hold.amount_usd_nanos for hold in self.holds.values() if hold.state in OPEN)

    def recent(self, back: int) -> Reserve:
        """A request that was granted, most often one of the last."""
        return self.granted[-1 - back % len(self.granted)]

    def apply(self, operation: Operation) -> Outcome | FarthingError:
        try:
            return apply(self.book, operation)
        except FarthingError as error:
            return error


def used(cost: int) -> UsageRecord:
    return UsageRecord("chat", (UsageLine("m", "p", "d", 0, 0, 0, cost, "accepted", False),), cost, Saving())


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase
