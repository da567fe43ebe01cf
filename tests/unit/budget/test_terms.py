"""Limits beyond the plain ones: requests, parts of the work, windows, soft and critical limits, velocity."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_budget.book import Book
from farthing_budget.budgets import (
    Balance,
    BalanceKey,
    Exhaustion,
    Limits,
    LimitTerms,
    Measure,
    Selector,
    Terms,
    total,
)
from farthing_budget.ledger import apply
from farthing_budget.operations import (
    Adjust,
    Dispatch,
    Hold,
    Kind,
    Lapse,
    Operation,
    Outcome,
    Record,
    Reserve,
    Reset,
    Settle,
    Sizing,
    State,
    TopUp,
    Work,
)
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetDegraded, BudgetExhausted, BudgetNotFound, RequestIdReused, ReservationOpen
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_budget.velocity import velocity_of
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
MONTH = PeriodTerms(Period.MONTH, "UTC")


def terms(limits: Limits, *, period: PeriodTerms = MONTH, scope: str = USER.path, **more: Any) -> Terms:
    return Terms("acme", more.pop("budget_id", f"{scope}:{period.period}"), scope, "", period, limits, **more)


class World:
    """Balances and holds that outlive a batch; the sizer learns as after a commit."""

    def __init__(self, *budgets: Terms) -> None:
        self.clock = ManualClock(datetime(2026, 3, 15, 12, tzinfo=UTC))
        self.budgets = list(budgets)
        self.balances: dict[BalanceKey, Balance] = {}
        self.holds: dict[tuple[str, str], Hold] = {}
        self.sizer = Sizer()
        self.book = self._open()

    def _open(self) -> Book:
        now = self.clock.now()
        by_scope: dict[tuple[str, str], list[Terms]] = {}
        for each in self.budgets:
            by_scope.setdefault(("acme", each.scope), []).append(each)
            self.balances.setdefault(each.balance_key(now), Balance(each.bounds(now)[1]))
        named = {("acme", each.budget_id): each for each in self.budgets}
        return Book(now=now, holds=self.holds, terms=by_scope, balances=self.balances, sizer=self.sizer, named=named)

    def apply(self, operation: Operation) -> Outcome:
        self.book = self._open()
        outcome = apply(self.book, operation)
        self.sizer.learn(self.book.lessons)
        return outcome

    def balance(self, budget: Terms) -> Balance:
        now = self.clock.now()
        return total([self.balances[key] for key in budget.counted_keys(now) if key in self.balances])

    def spend(self, cost: int, *, model: str = "m", request_id: str = "") -> None:
        self.apply(Record(USER, request_id or f"spent-{len(self.holds)}", used((model, cost)), b""))


def reserve(request_id: str, usd: int, *, work: Work | None = None, sizing: Sizing | None = None, ttl_s: int = 600) -> Reserve:
    return Reserve(USER, request_id, usd, 0, ttl_s, f"{usd}".encode(), work or Work(), sizing=sizing)


def used(*lines: tuple[str, int]) -> UsageRecord:
    made = tuple(UsageLine(model, f"of-{model}", "d", 10, 0, 5, cost, "accepted", False) for model, cost in lines)
    return UsageRecord("chat", made, sum(cost for _, cost in lines), Saving())


def test_requests_are_limited_like_money() -> None:
    budget = terms(Limits(requests=2))
    world = World(budget)
    world.apply(reserve("a", 0))
    world.apply(reserve("b", 0))
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("c", 0))
    assert caught.value.facts["unit"] == "requests"
    world.apply(Settle(USER, "a", used(("m", 3)), b""))
    assert (world.balance(budget).spent_requests, world.balance(budget).held_requests) == (1, 1)
    world.apply(Settle(USER, "b", used(("m", 3)), b""))
    with pytest.raises(BudgetExhausted):
        world.apply(reserve("d", 0))


def test_a_budget_on_a_model_holds_when_the_model_may_be_used_and_pays_for_its_own_lines_only() -> None:
    everything, large = terms(Limits(1_000)), terms(Limits(100), budget_id="large", selector=Selector("model", "large"))
    world = World(everything, large)
    world.apply(reserve("small", 500, work=Work(models=("small",))))
    assert world.balance(large).held_usd_nanos == 0
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("big", 101, work=Work(models=("small", "large"))))
    assert caught.value.facts["budget_id"] == "large"
    world.apply(reserve("both", 100, work=Work(models=("small", "large"))))
    world.apply(Settle(USER, "both", used(("small", 30), ("large", 40)), b""))
    assert (world.balance(large).spent_usd_nanos, world.balance(large).held_usd_nanos) == (40, 0)
    assert (world.balance(everything).spent_usd_nanos, world.balance(everything).held_usd_nanos) == (70, 500)


def test_a_model_that_nobody_foresaw_is_charged_to_its_budget_all_the_same() -> None:
    large = terms(Limits(100), budget_id="large", selector=Selector("model", "large"))
    world = World(large)
    world.apply(reserve("a", 50, work=Work(models=("small",))))
    world.apply(Settle(USER, "a", used(("large", 120)), b""))
    assert world.balance(large).spent_usd_nanos == 120


def test_budgets_on_a_provider_and_on_a_tag_apply_to_their_work() -> None:
    provider = terms(Limits(100), budget_id="p", selector=Selector("provider", "of-large"))
    tag = terms(Limits(10), budget_id="t", selector=Selector("tag", "team:red"))
    world = World(provider, tag)
    world.apply(reserve("a", 60, work=Work(providers=("of-large",))))
    assert (world.balance(provider).held_usd_nanos, world.balance(tag).held_usd_nanos) == (60, 0)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("b", 11, work=Work(tags=("team:red",))))
    assert caught.value.facts["budget_id"] == "t"


def test_a_window_forgets_what_was_spent_when_it_has_left_it() -> None:
    budget = terms(Limits(100), period=PeriodTerms(Period.ROLLING, "UTC", window_s=86_400))
    world = World(budget)
    world.spend(60)
    world.clock.advance(12 * 3_600)
    world.spend(30)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("a", 50))
    assert caught.value.facts["free"] == "10"
    # What was spent first leaves in a whole slot, at the latest an hour after its day is over.
    assert 12 * 3_600 <= caught.value.retry_after_s <= 13 * 3_600
    world.clock.advance(caught.value.retry_after_s)
    world.apply(reserve("a", 50))
    assert world.balance(budget).spent_usd_nanos == 30


def test_a_late_settlement_lands_in_the_slot_of_its_reservation() -> None:
    budget = terms(Limits(100), period=PeriodTerms(Period.ROLLING, "UTC", window_s=3_600))
    world = World(budget)
    world.apply(reserve("a", 80, ttl_s=86_400))
    world.clock.advance(1_800)
    world.apply(Settle(USER, "a", used(("m", 70)), b""))
    assert world.balance(budget).spent_usd_nanos == 70
    world.clock.advance(2_000)
    assert world.balance(budget).spent_usd_nanos == 0, "it left the window an hour after it was reserved"


def test_work_is_degraded_from_the_soft_limit_on_unless_it_is_critical_or_open() -> None:
    budget = terms(Limits(1_000), limit_terms=LimitTerms(soft_percent=80))
    world = World(budget)
    world.spend(750)
    world.apply(reserve("fits below", 50))
    with pytest.raises(BudgetDegraded) as caught:
        world.apply(reserve("above", 51))
    assert (caught.value.facts["verdict"], caught.value.facts["cause"]) == ("DEGRADE", "SOFT_LIMIT")
    world.apply(reserve("open", 60, work=Work(open_models=True)))
    world.apply(reserve("critical", 60, work=Work(critical=True)))


def test_critical_work_may_go_to_twice_the_limit_and_no_further() -> None:
    world = World(terms(Limits(1_000)))
    world.spend(1_000)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("a", 1))
    assert "MARK_CRITICAL" in caught.value.facts["alternatives"]
    world.apply(reserve("b", 1_000, work=Work(critical=True)))
    with pytest.raises(BudgetExhausted):
        world.apply(reserve("c", 1, work=Work(critical=True)))


@pytest.mark.parametrize("action", list(Exhaustion))
def test_a_used_up_budget_degrades_or_denies_as_its_terms_say(action: Exhaustion) -> None:
    world = World(terms(Limits(100), limit_terms=LimitTerms(on_exhaustion=action)))
    world.spend(100)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("a", 1))
    assert isinstance(caught.value, BudgetDegraded) == (action is Exhaustion.DEGRADE)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("b", 1, work=Work(open_models=True)))
    assert not isinstance(caught.value, BudgetDegraded), "there is nothing to degrade to"


def test_where_only_holds_are_in_the_way_the_wait_is_short() -> None:
    world = World(terms(Limits(100)))
    world.apply(reserve("a", 80))
    with pytest.raises(BudgetExhausted) as held:
        world.apply(reserve("b", 50))
    assert held.value.retry_after_s < 10
    with pytest.raises(BudgetExhausted) as never:
        world.apply(reserve("c", 101))
    assert never.value.retry_after_s == 0, "waiting does not help"


def test_spending_that_would_not_last_is_degraded_once_half_is_used() -> None:
    budget = terms(Limits(1_000_000), limit_terms=LimitTerms(measure=Measure.DEGRADE))
    world = World(budget)
    world.clock.jump(datetime(2026, 3, 2, tzinfo=UTC))
    for hour in range(24):
        world.spend(20_000, request_id=f"h{hour}")
        _burn(world, budget, 20_000)
        world.clock.advance(3_600)
    velocity = velocity_of(budget, budget.bounds(world.clock.now())[0], [world.balance(budget)], world.clock.now())
    assert 16_000 < velocity.rate_usd_nanos_per_hour < 24_000
    assert velocity.exhausted_at is not None
    assert velocity.exhausted_at < datetime(2026, 3, 5, tzinfo=UTC)
    world.apply(reserve("still below half", 10_000))
    world.apply(reserve("fills the half", 10_000))
    with pytest.raises(BudgetDegraded) as caught:
        world.apply(reserve("too fast", 10_000))
    assert caught.value.facts["cause"] == "VELOCITY"
    world.clock.advance(14 * 86_400)
    world.apply(reserve("it has calmed down", 10_000))


def _burn(world: World, budget: Terms, spent: int) -> None:
    """What the store does when it writes a balance."""
    from farthing_budget.store.columns import _burn as burn

    key = budget.balance_key(world.clock.now())
    burn(world.balances[key], key[2], spent, world.clock.now())


def test_a_reset_forgets_what_was_spent_and_nothing_else() -> None:
    budget = terms(Limits(100))
    world = World(budget)
    world.apply(reserve("lost", 20, ttl_s=60))
    world.apply(Dispatch(USER, "lost"))
    world.clock.advance(60)
    world.apply(Lapse(USER, "lost"))
    world.spend(50)
    world.apply(reserve("open", 30))
    reset = Reset(USER, "r", budget.budget_id, "a new start", b"body")
    world.apply(reset)
    balance = world.balance(budget)
    assert (balance.spent_usd_nanos, balance.suspense_usd_nanos, balance.held_usd_nanos) == (20, 20, 30)
    assert world.apply(reset).repeated
    with pytest.raises(RequestIdReused):
        world.apply(replace(reset, body_hash=b"other"))
    world.apply(Settle(USER, "open", used(("m", 25)), b""))
    assert world.balance(budget).spent_usd_nanos == 45, "what is settled afterwards counts"
    with pytest.raises(BudgetNotFound):
        world.apply(replace(reset, request_id="other", budget_id="none"))


def test_a_refund_lands_in_the_period_of_its_reservation_and_in_usage() -> None:
    budget = terms(Limits(100), period=PeriodTerms(Period.DAY, "UTC"))
    world = World(budget)
    world.apply(reserve("a", 80))
    refund = Adjust(USER, "refund", "a", "", -30, 0, "the provider gave it back", b"body")
    with pytest.raises(ReservationOpen):
        world.apply(refund)
    world.apply(Settle(USER, "a", used(("m", 80)), b""))
    yesterday = budget.balance_key(world.clock.now())
    world.clock.advance(86_400)
    entry = world.apply(refund).entry
    assert entry is not None
    assert (entry.kind, entry.corrects, entry.note) == (Kind.ADJUST, "a", "the provider gave it back")
    assert world.balances[yesterday].spent_usd_nanos == 50
    assert world.balance(budget).spent_usd_nanos == 0
    (_, _, record) = world.book.usage[-1]
    assert (record.cost_usd_nanos, record.lines[0].outcome) == (-30, "refund")
    assert world.apply(refund).repeated


def test_a_hold_above_which_is_settled_is_an_overrun_that_somebody_hears_of() -> None:
    world = World(terms(Limits(100)))
    world.apply(reserve("a", 40))
    world.apply(Settle(USER, "a", used(("m", 90)), b""))
    (incident,) = world.book.incidents
    assert (incident.kind, incident.amount_usd_nanos) == ("overrun", 50)
    assert world.book.entries[-1].note == "overrun"


SIZING = Sizing(1_000, 100, 10_000_000_000, 4_096, "m", "chat")
"""A prompt of 1,000 nanos, and 10,000 nanos a token of output."""


def test_a_sized_hold_pays_for_its_first_bin_and_grows_bin_by_bin() -> None:
    budget = terms(Limits(10**12))
    world = World(budget)
    hold = world.apply(reserve("a", 41_000_000, sizing=SIZING)).hold
    assert (hold.amount_usd_nanos, hold.authorized_usd_nanos) == (1_000 + 64 * 10_000, 41_000_000)
    assert world.balance(budget).risk
    longer = world.apply(TopUp(USER, "a", 0, 0, 65)).hold
    assert (longer.sized.output_tokens_held if longer.sized else 0) == 128
    assert world.apply(TopUp(USER, "a", 0, 0, 100)).repeated
    world.apply(Settle(USER, "a", used(("m", 900_000)), b""))
    balance = world.balance(budget)
    assert (balance.held_usd_nanos, balance.spent_usd_nanos) == (0, 900_000)
    assert not any(balance.risk)


def test_many_sized_holds_need_far_less_room_than_their_worst_cases() -> None:
    world = World(terms(Limits(2_000_000_000)))
    for number in range(1_000):  # what is known: answers of 120 tokens
        world.apply(reserve(f"known {number}", 41_000_000, sizing=SIZING))
        line = UsageLine("m", "p", "d", 100, 0, 120, 1_201, "accepted", False)
        world.apply(Settle(USER, f"known {number}", UsageRecord("chat", (line,), 0, Saving()), b""))
    granted = 0
    with pytest.raises(BudgetExhausted) as caught:
        for granted in range(5_000):
            world.apply(reserve(f"new {granted}", 41_000_000, sizing=SIZING))
    assert int(caught.value.facts["output_tokens_max"]) >= 0
    assert granted > 4 * (2_000_000_000 // 41_000_000), "the worst case would have let 48 in"


def test_a_stream_is_cut_where_the_money_ends_and_not_before() -> None:
    world = World(terms(Limits(2_000_000), limit_terms=LimitTerms(critical_percent=100)))
    small = replace(SIZING, output_tokens_max=190)
    world.apply(reserve("a", 1_901_000, sizing=small))
    with pytest.raises(BudgetExhausted):
        world.apply(reserve("b", 1_901_000, sizing=small))
    assert world.apply(TopUp(USER, "a", 0, 0, 65)).hold.amount_usd_nanos == 1_281_000
    world.spend(650_000)
    held = world.apply(TopUp(USER, "a", 0, 0, 129)).hold
    assert held.sized is not None
    assert held.sized.output_tokens_held == 134, "as far as the money goes"
    with pytest.raises(BudgetExhausted):
        world.apply(TopUp(USER, "a", 0, 0, 140))
    assert world.holds["acme", "a"].state is State.RESERVED


@pytest.mark.parametrize(
    ("period", "field"),
    [
        (PeriodTerms(Period.ROLLING, "UTC"), "period_terms.window_s"),
        (PeriodTerms(Period.DAY, "UTC", window_s=3_600), "period_terms.window_s"),
        (PeriodTerms(Period.MONTH, "UTC", start_month=4), "period_terms.fiscal_start_month"),
        (PeriodTerms(Period.WEEK, "UTC", start_day=4), "period_terms.start_day"),
    ],
)
def test_terms_that_contradict_themselves_are_refused_with_the_field(period: PeriodTerms, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        period.checked()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        (PeriodTerms(Period.YEAR, "UTC", 4), (2026, 3, 31), (2025, 4, 1), (2026, 4, 1)),
        (PeriodTerms(Period.YEAR, "UTC", 4), (2026, 4, 1), (2026, 4, 1), (2027, 4, 1)),
        (PeriodTerms(Period.YEAR, "UTC", 4, 6), (2026, 4, 5), (2025, 4, 6), (2026, 4, 6)),
        (PeriodTerms(Period.QUARTER, "UTC", 2), (2026, 1, 31), (2025, 11, 1), (2026, 2, 1)),
        (PeriodTerms(Period.MONTH, "UTC", 1, 15), (2026, 3, 14), (2026, 2, 15), (2026, 3, 15)),
        (PeriodTerms(Period.MONTH, "UTC", 1, 28), (2024, 2, 29), (2024, 2, 28), (2024, 3, 28)),
    ],
)
def test_fiscal_periods_begin_where_they_are_said_to(period: PeriodTerms, now: Any, start: Any, end: Any) -> None:
    from farthing_budget.periods import period_bounds

    assert period_bounds(period, datetime(*now, tzinfo=UTC)) == (datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC))
