"""The ledger's decisions, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from farthing_budget.book import Book
from farthing_budget.budgets import Balance, BalanceKey, Limits, Terms
from farthing_budget.decisions import Need, Verdict
from farthing_budget.ledger import apply
from farthing_budget.operations import (
    ANY_WORK,
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
)
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import (
    BudgetExhausted,
    RequestIdReused,
    ReservationNotFound,
    ReservationReleased,
    ReservationSettled,
)
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX
from farthing_core.scopes import parse_scope

ORGANIZATION = parse_scope("organizations/acme")
PROJECT = parse_scope("organizations/acme/workspaces/search/projects/ranker")
USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
LEVELS = {scope.path: scope for scope in map(parse_scope, USER.ancestors)}


def terms(
    scope: str, usd: int | None = 1_000, tokens: int | None = None, *, period: Period = Period.MONTH, budget_id: str = ""
) -> Terms:
    return Terms("acme", budget_id or f"{scope}:{period}", scope, "", PeriodTerms(period, "UTC"), Limits(usd, tokens))


class World:
    """Terms, balances and holds that outlive a batch."""

    def __init__(self, *budgets: Terms, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock(datetime(2026, 3, 15, 12, tzinfo=UTC))
        self.budgets = list(budgets)
        self.balances: dict[BalanceKey, Balance] = {}
        self.holds: dict[tuple[str, str], Hold] = {}

    def book(self) -> Book:
        now = self.clock.now()
        by_scope: dict[tuple[str, str], list[Terms]] = {}
        for each in self.budgets:
            by_scope.setdefault(("acme", each.scope), []).append(each)
            self.balances.setdefault(each.balance_key(now), Balance(each.bounds(now)[1]))
        return Book(now=now, holds=self.holds, terms=by_scope, balances=self.balances, sizer=Sizer())

    def apply(self, operation: Operation) -> Outcome:
        return apply(self.book(), operation)

    def of(self, budget: Terms, *, at: datetime | None = None) -> tuple[int, int]:
        balance = self.balances[budget.balance_key(at or self.clock.now())]
        return balance.spent_usd_nanos, balance.held_usd_nanos


def reserve(request_id: str, usd: int, *, tokens: int = 0, ttl_s: int = 600) -> Reserve:
    return Reserve(USER, request_id, usd, tokens, ttl_s, f"{usd}/{tokens}/{ttl_s}".encode())


def used(cost: int, *, tokens: int = 10) -> UsageRecord:
    line = UsageLine("m", "p", "d", tokens, 0, 0, cost, "accepted", False)
    return UsageRecord("chat", (line,), cost, Saving())


def settle(request_id: str, cost: int, *, tokens: int = 10) -> Settle:
    return Settle(USER, request_id, used(cost, tokens=tokens), f"{cost}/{tokens}".encode())


def test_a_hold_is_taken_on_every_level() -> None:
    budgets = [terms(scope) for scope in USER.ancestors]
    world = World(*budgets)
    outcome = world.apply(reserve("a", 300))
    assert [world.of(each) for each in budgets] == [(0, 300)] * 4
    assert outcome.hold.keys == tuple(each.balance_key(world.clock.now()) for each in budgets)
    assert outcome.left.free_usd_nanos == 700


@pytest.mark.parametrize("tight", USER.ancestors)
def test_a_hold_that_does_not_fit_one_level_is_taken_on_none(tight: str) -> None:
    budgets = [terms(scope, 299 if scope == tight else 1_000) for scope in USER.ancestors]
    world = World(*budgets)
    book = world.book()
    with pytest.raises(BudgetExhausted) as caught:
        apply(book, reserve("a", 300))
    assert caught.value.facts["scope"] == tight
    assert (caught.value.facts["asked"], caught.value.facts["free"]) == ("300", "299")
    assert [world.of(each) for each in budgets] == [(0, 0)] * 4
    assert not book.new_holds
    assert not book.changed_balances


def test_a_hold_may_use_the_last_nano_and_not_one_more() -> None:
    world = World(terms(USER.path, 1_000))
    book = world.book()
    apply(book, reserve("a", 999))
    apply(book, reserve("b", 1))
    with pytest.raises(BudgetExhausted):
        apply(book, reserve("c", 1))


def test_tokens_are_limited_like_money() -> None:
    world = World(terms(USER.path, None, 100))
    book = world.book()
    apply(book, reserve("a", 10**12, tokens=100))
    with pytest.raises(BudgetExhausted) as caught:
        apply(book, reserve("b", 0, tokens=1))
    assert caught.value.facts["unit"] == "tokens"


def test_all_periods_of_a_scope_count() -> None:
    day, month = terms(USER.path, 500, period=Period.DAY), terms(USER.path, 800, period=Period.MONTH)
    world = World(day, month)
    world.apply(reserve("a", 500))
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("b", 400))
    assert caught.value.facts["budget_id"] == day.budget_id
    world.clock.advance(86_400)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("c", 400))
    assert caught.value.facts["budget_id"] == month.budget_id


def test_a_refusal_says_when_everything_that_is_full_has_started_afresh() -> None:
    world = World(terms(USER.path, 10, period=Period.DAY), terms(ORGANIZATION.path, 20, period=Period.MONTH))
    world.apply(reserve("spent", 10))
    world.apply(settle("spent", 10))
    with pytest.raises(BudgetExhausted) as by_day_alone:
        world.apply(reserve("a", 5))
    assert by_day_alone.value.retry_after_s == 12 * 3600
    world.apply(Record(USER, "more", used(7), b""))
    with pytest.raises(BudgetExhausted) as by_both:
        world.apply(reserve("b", 5))
    assert by_both.value.facts["free"] == "0"
    assert by_both.value.retry_after_s == (datetime(2026, 4, 1, tzinfo=UTC) - world.clock.now()).total_seconds()


def test_without_a_budget_everything_is_allowed_and_remembered() -> None:
    world = World()
    book = world.book()
    outcome = apply(book, reserve("a", 10**15))
    assert (outcome.left.budget_id, outcome.left.free_usd_nanos) == ("", None)
    assert ("acme", "a") in book.new_holds
    assert apply(book, reserve("a", 10**15)).repeated


def test_a_repeat_gives_the_same_hold_even_when_nothing_would_fit_any_more() -> None:
    budget = terms(USER.path, 100)
    world = World(budget)
    first = world.apply(reserve("a", 100))
    again = world.apply(reserve("a", 100))
    assert (again.repeated, again.hold) == (True, first.hold)
    assert world.of(budget) == (0, 100)
    with pytest.raises(RequestIdReused):
        world.apply(reserve("a", 99))


def test_settling_replaces_the_hold_by_what_was_used() -> None:
    budget = terms(USER.path, 1_000, 1_000)
    world = World(budget)
    world.apply(reserve("a", 400, tokens=90))
    book = world.book()
    outcome = apply(book, settle("a", 150, tokens=33))
    assert world.of(budget) == (150, 0)
    balance = world.balances[budget.balance_key(world.clock.now())]
    assert (balance.spent_tokens, balance.held_tokens) == (33, 0)
    assert (outcome.hold.state, outcome.hold.settled_usd_nanos, outcome.left.free_usd_nanos) == (State.SETTLED, 150, 850)
    assert len(book.usage) == 1


def test_settling_above_the_hold_charges_all_of_it_and_nothing_more_is_granted() -> None:
    budget = terms(USER.path, 100)
    world = World(budget)
    world.apply(reserve("a", 100))
    assert world.apply(settle("a", 170)).left.free_usd_nanos == -70
    assert world.of(budget) == (170, 0)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("b", 1))
    assert caught.value.facts["free"] == "0"
    assert world.apply(reserve("free of charge", 0)).hold.amount_usd_nanos == 0


def test_settling_twice_charges_and_counts_once() -> None:
    budget = terms(USER.path)
    world = World(budget)
    world.apply(reserve("a", 100))
    world.apply(settle("a", 60))
    book = world.book()
    assert apply(book, settle("a", 60)).repeated
    assert not book.usage
    with pytest.raises(RequestIdReused):
        apply(book, settle("a", 61))
    with pytest.raises(ReservationSettled):
        apply(book, Release(USER, "a"))
    assert world.of(budget) == (60, 0)


def test_a_release_gives_back_once_and_ends_the_hold() -> None:
    budget = terms(USER.path)
    world = World(budget)
    world.apply(reserve("a", 100))
    assert not world.apply(Release(USER, "a")).repeated
    assert world.apply(Release(USER, "a")).repeated
    assert world.of(budget) == (0, 0)
    with pytest.raises(ReservationReleased):
        world.apply(settle("a", 1))


def test_an_unknown_reservation_is_not_found_and_a_foreign_scope_is_named() -> None:
    world = World(terms(USER.path))
    world.apply(reserve("a", 100))
    with pytest.raises(ReservationNotFound):
        world.apply(settle("b", 1))
    with pytest.raises(FieldInvalid) as caught:
        world.apply(Settle(PROJECT, "a", used(1), b""))
    assert caught.value.field == "scope"


@pytest.mark.parametrize(("dispatched", "state", "spent"), [(False, State.LAPSED, 0), (True, State.SUSPENDED, 100)])
def test_a_hold_whose_time_is_up_goes_back_or_into_suspense_if_the_provider_was_called(
    dispatched: bool, state: State, spent: int
) -> None:
    budget = terms(USER.path)
    world = World(budget)
    world.apply(reserve("a", 100, ttl_s=60))
    if dispatched:
        assert world.apply(Dispatch(USER, "a")).hold.state is State.DISPATCHED
        assert world.apply(Dispatch(USER, "a")).repeated
    world.clock.advance(59)
    world.apply(Lapse(USER, "a"))
    assert world.of(budget) == (0, 100)
    world.clock.advance(1)
    for _ in range(2):
        assert world.apply(Lapse(USER, "a")).hold.state is state
        assert world.of(budget) == (spent, 0)
    world.apply(settle("a", 30))
    assert world.of(budget) == (30, 0), "what comes late was spent all the same"


def test_suspense_counts_as_spent_until_it_is_settled() -> None:
    budget = terms(USER.path, 100)
    world = World(budget)
    world.apply(reserve("a", 100, ttl_s=1))
    world.apply(Dispatch(USER, "a"))
    world.clock.advance(1)
    world.apply(Lapse(USER, "a"))
    with pytest.raises(BudgetExhausted):
        world.apply(reserve("b", 1))
    world.apply(settle("a", 30))
    assert world.of(budget) == (30, 0)
    world.apply(reserve("b", 70))


def test_a_suspended_hold_can_be_given_back() -> None:
    budget = terms(USER.path)
    world = World(budget)
    world.apply(reserve("a", 100, ttl_s=1))
    world.apply(Dispatch(USER, "a"))
    world.clock.advance(1)
    world.apply(Lapse(USER, "a"))
    world.apply(Release(USER, "a"))
    assert world.of(budget) == (0, 0)


def test_a_late_settlement_lands_in_the_period_of_its_reservation() -> None:
    budget = terms(USER.path, 100, period=Period.DAY)
    world = World(budget)
    before = world.clock.now()
    world.apply(reserve("a", 100))
    world.clock.advance(86_400)
    world.apply(reserve("b", 100))
    world.apply(settle("a", 40))
    assert world.of(budget, at=before) == (40, 0)
    assert world.of(budget) == (0, 100)


def test_a_hold_of_a_deleted_budget_still_settles() -> None:
    budget = terms(USER.path)
    world = World(budget)
    world.apply(reserve("a", 100))
    world.budgets.clear()
    world.apply(settle("a", 40))
    assert world.of(budget) == (40, 0)


def test_a_record_charges_what_is_spent_already_even_beyond_the_limit() -> None:
    budget = terms(USER.path, 100, 1_000)
    world = World(budget)
    book = world.book()
    apply(book, Record(USER, "a", used(150, tokens=30), b"body"))
    assert world.of(budget) == (150, 0)
    assert apply(book, Record(USER, "a", used(150, tokens=30), b"body")).repeated
    with pytest.raises(RequestIdReused):
        apply(book, Record(USER, "a", used(151), b"other"))
    assert world.of(budget) == (150, 0)
    assert len(book.usage) == 1


def test_a_cache_hit_uses_up_neither_money_nor_tokens() -> None:
    budget = terms(USER.path, 100, 100)
    world = World(budget)
    world.apply(Record(USER, "a", used(0, tokens=5_000), b"body"))
    balance = world.balances[budget.balance_key(world.clock.now())]
    assert (balance.spent_usd_nanos, balance.spent_tokens) == (0, 0)


def test_one_batch_can_make_and_end_a_hold_and_tells_each_caller_what_was_true_for_it() -> None:
    budget = terms(USER.path, 100)
    world = World(budget)
    book = world.book()
    made = apply(book, reserve("a", 100))
    ended = apply(book, settle("a", 10))
    assert (made.hold.state, ended.hold.state) == (State.RESERVED, State.SETTLED)
    assert book.new_holds["acme", "a"].state is State.SETTLED
    assert not book.changed_holds
    apply(book, reserve("b", 90))
    assert world.of(budget) == (10, 90)


def test_no_balance_counts_beyond_what_stays_exact() -> None:
    budget = terms(USER.path, None, 100)
    world = World(budget)
    book = world.book()
    apply(book, reserve("a", NANOS_MAX))
    with pytest.raises(FieldInvalid) as caught:
        apply(book, reserve("b", 1))
    assert caught.value.field == "amount_usd_nanos"
    apply(book, Record(USER, "c", used(NANOS_MAX), b""))
    with pytest.raises(FieldInvalid) as caught:
        apply(book, Record(USER, "d", used(1), b""))
    assert caught.value.field == "usage"
    assert world.of(budget) == (NANOS_MAX, NANOS_MAX)
    world.apply(Dispatch(USER, "a"))
    world.clock.advance(600)
    assert world.apply(Lapse(USER, "a")).hold.state is State.SUSPENDED
    assert world.of(budget) == (2 * NANOS_MAX, 0)
    assert world.apply(settle("a", 5)).hold.state is State.SETTLED


def test_left_names_the_budget_that_is_tightest_by_money() -> None:
    wide, narrow = terms(ORGANIZATION.path, 1_000), terms(PROJECT.path, 400, 50)
    world = World(wide, narrow)
    left = world.book().left(USER)
    assert (left.budget_id, left.free_usd_nanos, left.free_tokens) == (narrow.budget_id, 400, 50)
    world.balances[wide.balance_key(world.clock.now())].spent_usd_nanos = 700
    left = world.book().left(USER)
    assert (left.budget_id, left.scope, left.free_usd_nanos, left.free_tokens) == (wide.budget_id, wide.scope, 300, 50)


def test_checking_changes_nothing() -> None:
    budget = terms(USER.path, 100)
    world = World(budget)
    book = world.book()
    assert book.decide(USER, Need(100, 0), ANY_WORK).verdict is Verdict.ALLOW
    refusal = book.decide(USER, Need(101, 0), ANY_WORK)
    assert refusal.verdict is Verdict.DENY
    assert refusal.objection is not None
    assert refusal.objection.free == 100
    assert world.of(budget) == (0, 0)
    assert not book.changed_balances


def test_a_hold_lasts_as_long_as_it_was_asked_for() -> None:
    world = World(terms(USER.path))
    hold = world.apply(reserve("a", 1, ttl_s=42)).hold
    assert hold.expires_at == world.clock.now() + timedelta(seconds=42)
