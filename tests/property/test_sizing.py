"""Sized holds against what must always be true: no limit passed, the pooled risk is the sum of the open holds', and nothing of it stays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from farthing_budget.book import Book
from farthing_budget.budgets import Balance, BalanceKey, Limits, LimitTerms, Terms
from farthing_budget.ledger import apply
from farthing_budget.operations import (
    OPEN,
    Dispatch,
    Hold,
    Lapse,
    Operation,
    Outcome,
    Release,
    Reserve,
    Settle,
    Sizing,
    State,
    TopUp,
)
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetExhausted
from farthing_budget.sizing.counts import Counts
from farthing_budget.sizing.learner import Learner, stream_key
from farthing_budget.sizing.pool import NO_RISK, add, bound, change, worst
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.store.columns import packed_risk
from farthing_budget.store.rows import risk_of
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

ANN = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
BOB = parse_scope("organizations/acme/workspaces/search/projects/crawler/users/bob")
SCOPES = ("organizations/acme", "organizations/acme/workspaces/search/projects/ranker")
PRICES = st.sampled_from([0, 1, 999_999, 600_000_000, 10_000_000_000])
LIMITS = st.sampled_from([10_000, 2_000_000, 50_000_000, 10**12])
TOKENS = st.integers(0, 5_000)
BACK = st.integers(0, 6)


class SizedHolds(RuleBasedStateMachine):
    """Streams that start, grow, end, lapse and come late, over the days, while their lengths are learned."""

    @initialize(limits=st.tuples(LIMITS, LIMITS), window=st.booleans(), worst_case=st.booleans())
    def budgets(self, limits: tuple[int, int], window: bool, worst_case: bool) -> None:
        self.clock = ManualClock(datetime(2026, 3, 15, 22, tzinfo=UTC))
        self.sizer = Sizer()
        self.balances: dict[BalanceKey, Balance] = {}
        self.holds: dict[tuple[str, str], Hold] = {}
        self.asked: list[Reserve] = []
        self.overrun = False
        day = PeriodTerms(Period.DAY, "UTC")
        of_project = PeriodTerms(Period.ROLLING, "UTC", window_s=3_600) if window else day
        self.budget = Terms("acme", "whole", SCOPES[0], "", day, Limits(limits[0]))
        own = LimitTerms(hold_worst_case=worst_case)
        self.terms = {
            ("acme", SCOPES[0]): [self.budget],
            ("acme", SCOPES[1]): [Terms("acme", "project", SCOPES[1], "", of_project, Limits(limits[1]), own)],
        }

    def apply(self, operation: Operation) -> Outcome | FarthingError:
        now = self.clock.now()
        for (terms,) in self.terms.values():
            self.balances.setdefault(terms.balance_key(now), Balance(terms.bounds(now)[1]))
        book = Book(now=now, holds=self.holds, terms=self.terms, balances=self.balances, sizer=self.sizer)
        try:
            return apply(book, operation)
        except FarthingError as error:
            return error
        finally:
            self.sizer.learn(book.lessons)

    @rule(
        scope=st.sampled_from([ANN, BOB]),
        price=PRICES,
        most=st.integers(1, 5_000),
        inputs=st.sampled_from([0, 1_000, 1_000_000]),
    )
    def reserve(self, scope: Any, price: int, most: int, inputs: int) -> None:
        verdict = self.apply(self.a_request(scope, price, most, inputs))
        assert isinstance(verdict, Outcome | BudgetExhausted)
        fewer = int(verdict.facts["output_tokens_max"]) if isinstance(verdict, BudgetExhausted) else 0
        if fewer:
            assert isinstance(self.apply(self.a_request(scope, price, fewer, inputs)), Outcome), "what is promised is kept"

    def a_request(self, scope: Any, price: int, most: int, inputs: int) -> Reserve:
        sizing = Sizing(inputs, 10, price, most, "large", "chat")
        worst_case = inputs - (-most * price // 1_000_000)
        self.asked.append(Reserve(scope, str(len(self.asked)), worst_case, 10 + most, 60, b"", sizing=sizing))
        return self.asked[-1]

    @precondition(lambda self: self.asked)
    @rule(back=BACK, tokens=TOKENS)
    def top_up(self, back: int, tokens: int) -> None:
        asked = self.recent(back)
        verdict = self.apply(TopUp(asked.scope, asked.request_id, 0, 0, tokens))
        sized = verdict.hold.sized if isinstance(verdict, Outcome) else None
        if sized is not None:
            assert sized.output_tokens_held >= min(tokens, sized.sizing.output_tokens_max)

    @precondition(lambda self: self.asked)
    @rule(back=BACK, tokens=TOKENS, model=st.sampled_from(["large", "small"]), outcome=st.sampled_from(["accepted", "failed"]))
    def settle(self, back: int, tokens: int, model: str, outcome: str) -> None:
        asked = self.recent(back)
        hold, sizing = self.holds.get(("acme", asked.request_id)), asked.sizing
        assert sizing is not None
        if hold is None:
            return
        tokens = min(tokens, hold.sized.output_tokens_held if hold.sized else sizing.output_tokens_max)
        cost = sizing.input_usd_nanos - (-tokens * sizing.output_usd_nanos_per_million_tokens // 1_000_000)
        # What a lapsed hold gave back may have been promised to others since: a late settlement is a debt, and taken all the same.
        self.overrun |= hold.state is State.LAPSED or (hold.state not in OPEN and cost > hold.amount_usd_nanos)
        line = UsageLine(model, "p", "d", 10, 0, tokens, cost, outcome, False)
        self.apply(Settle(asked.scope, asked.request_id, UsageRecord("chat", (line,), 0, Saving()), b""))

    @precondition(lambda self: self.asked)
    @rule(back=BACK)
    def release(self, back: int) -> None:
        self.apply(Release(self.recent(back).scope, self.recent(back).request_id))

    @precondition(lambda self: self.asked)
    @rule(back=BACK)
    def dispatch(self, back: int) -> None:
        self.apply(Dispatch(self.recent(back).scope, self.recent(back).request_id))

    @rule(seconds=st.sampled_from([30, 60, 3_600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for _, request_id in list(self.holds):
            self.apply(Lapse(parse_scope(self.holds["acme", request_id].scope), request_id))

    @invariant()
    def the_pooled_risk_is_that_of_the_open_holds(self) -> None:
        for key, balance in self.balances.items():
            expected = NO_RISK
            for hold in self.holds.values():
                if key in hold.keys and hold.sized is not None:
                    assert hold.state in OPEN
                    expected = add(expected, hold.sized.risk)
            assert balance.risk == expected
            assert balance.held_requests or balance.risk == NO_RISK
            assert risk_of(packed_risk(balance.risk)) == balance.risk

    @invariant()
    def no_limit_is_passed_by_what_is_spent_within_holds(self) -> None:
        if self.overrun:
            return
        for key, balance in self.balances.items():
            if key[1] == "whole":
                assert balance.spent_usd_nanos + balance.held_usd_nanos <= (self.budget.limits.usd_nanos or 0)

    def recent(self, back: int) -> Reserve:
        return self.asked[-1 - back % len(self.asked)]


SizedHolds.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSizedHolds = SizedHolds.TestCase

STREAMS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 2_000_000), st.sampled_from([1, 500, 10**6, 10**10, 10**13])),
    min_size=1,
    max_size=12,
)


@given(STREAMS, st.randoms(use_true_random=False), st.lists(st.integers(0, 20), max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_stream_adds_more_to_a_bound_than_its_own_and_the_last_leaves_nothing(
    streams: list[tuple[int, int, int]], chance: Any, ends: list[int]
) -> None:
    learner = Learner()
    key = stream_key(scope="organizations/acme", model="m", task="t", input_tokens=1, tokens_max=1)
    for end in ends:
        learner.started(key)
        learner.moved(key, 0, end)
        learner.ended(key, end)
    risks = [learner.risk(key, index, tokens_max=most, price=price) for index, most, price in streams]
    pool = NO_RISK
    for risk in risks:
        grown = add(pool, risk)
        assert bound(pool) <= bound(grown) <= worst(grown)
        assert bound(grown) <= bound(pool) + worst(risk)
        pool = grown
    chance.shuffle(risks)
    for risk in risks:
        pool = add(pool, change(risk, NO_RISK))
    assert pool == NO_RISK


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=80), st.integers(0, 80))
@settings(max_examples=150, deadline=None)
def test_counts_of_two_replicas_add_up_to_those_of_one(events: list[tuple[int, bool]], at: int) -> None:
    whole, parts = Counts(), (Counts(), Counts())
    for number, (index, ended) in enumerate(events):
        whole.leave(index, ended=ended)
        parts[number >= at].leave(index, ended=ended)
    parts[0].add(parts[1])
    for mine, all_of_it in zip((*parts[0].left, *parts[0].ended), (*whole.left, *whole.ended), strict=True):
        assert all(abs(one - other) < 1e-9 for one, other in zip(mine, all_of_it, strict=True))
