"""How holds are sized: bins, what is learned of them, the pooled risk, and what a hold does in the ledger's decisions."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_budget.book import Book
from farthing_budget.budgets import Balance, BalanceKey, Limits, LimitTerms, Terms
from farthing_budget.decisions import Need, Verdict
from farthing_budget.ledger import apply
from farthing_budget.operations import ANY_WORK, Hold, Lapse, Operation, Outcome, Release, Reserve, Settle, Sizing, TopUp
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetExhausted
from farthing_budget.sizing.bins import BINS, TOKENS_MAX, bin_end, bin_of
from farthing_budget.sizing.counts import Counts, unpacked
from farthing_budget.sizing.learner import Learner, StreamKey, stream_key
from farthing_budget.sizing.pool import NO_RISK, add, bound, change, worst
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
ORGANIZATION = "organizations/acme"
PRICE = 10_000_000_000
A_TOKEN = 10_000
SIZING = Sizing(1_000_000, 400, PRICE, 4_096, "large", "chat")
WORST_CASE = 1_000_000 + 4_096 * A_TOKEN
KEY = stream_key(scope=ORGANIZATION, model="large", task="chat", input_tokens=400, tokens_max=4_096)


class World:
    """Budgets of the organisation, and a learner that is told of every operation as soon as it is applied."""

    def __init__(self, *budgets: Terms) -> None:
        self.clock = ManualClock(datetime(2026, 3, 15, 12, tzinfo=UTC))
        self.sizer = Sizer()
        self.budgets = list(budgets)
        self.balances: dict[BalanceKey, Balance] = {}
        self.holds: dict[tuple[str, str], Hold] = {}

    def book(self) -> Book:
        now = self.clock.now()
        for each in self.budgets:
            self.balances.setdefault(each.balance_key(now), Balance(each.bounds(now)[1]))
        terms = {("acme", ORGANIZATION): self.budgets}
        return Book(now=now, holds=self.holds, terms=terms, balances=self.balances, sizer=self.sizer)

    def apply(self, operation: Operation) -> Outcome:
        book = self.book()
        outcome = apply(book, operation)
        self.sizer.learn(book.lessons)
        return outcome

    def balance(self) -> Balance:
        (balance,) = self.balances.values()
        return balance

    def answer(self, name: str, tokens: int, **more: Any) -> int:
        """An answer of so many tokens, topped up as it comes; returns how many of them it could pay for."""
        hold = self.apply(reserve(name, **more)).hold
        owned = hold.sized.output_tokens_held if hold.sized else SIZING.output_tokens_max
        while owned < tokens:
            try:
                topped = self.apply(top_up(name, owned + 1)).hold.sized
            except BudgetExhausted:
                tokens = owned
                break
            assert topped is not None
            owned = topped.output_tokens_held
        self.apply(settle(name, tokens, **more))
        return tokens


def budget(limit: int | None, *, tokens: int | None = None, **limit_terms: Any) -> Terms:
    period = PeriodTerms(Period.MONTH, "UTC")
    return Terms("acme", "b", ORGANIZATION, "", period, Limits(limit, tokens), LimitTerms(**limit_terms))


def reserve(name: str, *, sizing: Sizing = SIZING) -> Reserve:
    worst_case = sizing.input_usd_nanos + sizing.output_tokens_max * A_TOKEN
    return Reserve(
        USER, name, worst_case, sizing.input_tokens + sizing.output_tokens_max, 600, b"", dispatch=True, sizing=sizing
    )


def top_up(name: str, output_tokens: int) -> TopUp:
    return TopUp(USER, name, 0, 0, output_tokens)


def settle(name: str, tokens: int, *, model: str = "large", outcome: str = "accepted", sizing: Sizing = SIZING) -> Settle:
    line = UsageLine(model, "p", "d", 400, 0, tokens, sizing.input_usd_nanos + tokens * A_TOKEN, outcome, False)
    return Settle(USER, name, UsageRecord("chat", (line,), 0, Saving()), b"")


def taught(learner: Learner, lengths: list[int], *, key: StreamKey = KEY) -> Learner:
    for tokens in lengths:
        learner.started(key)
        learner.moved(key, 0, bin_of(tokens))
        learner.ended(key, bin_of(tokens))
    return learner


def b_of(learner: Learner, *, key: StreamKey = KEY, index: int = 0, tokens_max: int = 4_096) -> int:
    return worst(learner.risk(key, index, tokens_max=tokens_max, price=PRICE))


def test_bins_cover_every_length_without_a_gap() -> None:
    ends = [bin_end(index) for index in range(BINS)]
    assert ends[:9] == [64, 128, 192, 256, 320, 384, 448, 512, 640]
    for index, end in enumerate(ends[:-1]):
        assert (bin_of(end), bin_of(end + 1)) == (index, index + 1)
    assert bin_of(10 * TOKENS_MAX) == BINS - 1


def test_what_was_learned_of_short_answers_makes_the_risk_small() -> None:
    unknown, known = Learner(), taught(Learner(), [50] * 2_000)
    assert b_of(known) < b_of(unknown) / 5
    assert known.risk(KEY, 0, tokens_max=64, price=PRICE) == NO_RISK, "nothing can come after the first bin"


def test_the_longest_answers_of_a_key_decide_its_single_bound_and_the_mean_that_of_many() -> None:
    chance = random.Random(1)
    learner = taught(Learner(), [chance.choice([40] * 8 + [900, 900]) for _ in range(3_000)])
    one = learner.risk(KEY, 0, tokens_max=4_096, price=PRICE)
    pool = NO_RISK
    for _ in range(1_000):
        pool = add(pool, one)
    assert 800 * A_TOKEN < bound(one) <= worst(one)
    assert 1_000 * 0.2 * 836 * A_TOKEN < bound(pool) < 1_000 * 0.25 * 1_344 * A_TOKEN


def test_a_new_key_begins_with_what_is_known_above_it() -> None:
    learner = taught(Learner(), [40, 40, 100] * 1_000)
    longer_prompt = KEY._replace(input_bucket=14)
    other_project = longer_prompt._replace(scope=f"{ORGANIZATION}/workspaces/other", task="code")
    elsewhere = other_project._replace(scope="organizations/other")
    assert b_of(learner, key=longer_prompt) < b_of(learner, key=elsewhere) / 5
    assert b_of(learner, key=other_project) < b_of(learner, key=elsewhere) / 5
    assert b_of(learner, key=elsewhere) == b_of(Learner(), key=elsewhere), "nothing is told across organisations"


def test_a_cold_start_does_not_take_the_first_ends_for_the_usual_length() -> None:
    learner = Learner()
    for _ in range(100):
        learner.started(KEY)
    for _ in range(10):
        learner.ended(KEY, 0)
    blind = taught(Learner(), [50] * 10)
    assert b_of(learner) >= b_of(blind)
    assert bound(learner.risk(KEY, 0, tokens_max=4_096, price=PRICE)) >= bound(
        blind.risk(KEY, 0, tokens_max=4_096, price=PRICE)
    )


def test_streams_that_become_three_times_as_long_are_believed_at_once() -> None:
    chance = random.Random(2)
    lengths = [int(chance.expovariate(1 / 150)) + 1 for _ in range(3_000)]
    learner = taught(Learner(), lengths)
    before = b_of(learner)
    for tokens in lengths:
        b_of(learner)
        taught(learner, [tokens])
    assert learner.take_fresh()[KEY].epoch == 0, "the usual chance is no change"
    taught(learner, [3 * tokens for tokens in lengths[:80]])
    assert b_of(learner) > 1.5 * before
    assert learner.take_fresh()[KEY].epoch == 1


def test_a_replica_that_hears_of_a_change_does_not_find_it_once_more() -> None:
    chance = random.Random(2)
    lengths = [int(chance.expovariate(1 / 150)) + 1 for _ in range(3_000)]
    longer, family = [3 * tokens for tokens in lengths], KEY.line[1]

    def needed(learner: Learner) -> int:
        """How many longer answers it takes until they are believed."""
        for number, tokens in enumerate(longer):
            learner.take_fresh()
            b_of(learner)
            if taught(learner, [tokens]).take_fresh()[family].epoch > 0:
                return number
        raise AssertionError("never")

    alone = needed(taught(Learner(), lengths))
    hearing = taught(Learner(), lengths)
    for tokens in longer[:alone]:
        b_of(hearing)
        taught(hearing, [tokens])
    known = taught(Learner(), lengths).take_fresh()
    for counts in known.values():
        counts.lengthen(1)
    hearing.take_fresh()
    hearing.adopt(known)
    b_of(hearing)
    taught(hearing, [4_000])
    assert hearing.take_fresh()[family].epoch == 1, "one more would have been 2"


def test_a_learner_forgets_the_keys_longest_unused() -> None:
    learner = Learner(keys_max=10)
    for bucket in range(30):
        taught(learner, [50], key=KEY._replace(input_bucket=bucket))
    kept = learner.take_fresh()
    assert len(kept) <= 10
    assert KEY._replace(input_bucket=29) in kept
    assert KEY._replace(input_bucket=0) not in kept


def test_counts_gathered_apart_are_what_one_would_have_counted() -> None:
    chance = random.Random(3)
    events = [(chance.randrange(4), chance.random() < 0.4) for _ in range(2_000)]
    whole, first, second = Counts(), Counts(), Counts()
    for number, (index, ended) in enumerate(events):
        whole.leave(index, ended=ended)
        (first if number < 1_200 else second).leave(index, ended=ended)
    first.add(second)
    for mine, all_of_it in zip((*first.left, *first.ended), (*whole.left, *whole.ended), strict=True):
        assert mine == pytest.approx(all_of_it)


def test_a_change_that_several_replicas_found_counts_once() -> None:
    shared = taught(Learner(), [50] * 500).take_fresh()[KEY]
    once, twice = shared.copy(), shared.copy()
    found = Counts(epoch=1)
    once.add(found)
    twice.add(found)
    twice.add(found)
    assert once == twice
    assert once.ended[0][0] / once.left[0][0] == pytest.approx(0.5 * shared.ended[0][0] / shared.left[0][0])


def test_counts_come_back_from_where_they_are_kept_and_nothing_else_does() -> None:
    counts = taught(Learner(), [50, 500, 5_000]).take_fresh()[KEY]
    assert unpacked(counts.packed()) == counts
    endless = Counts()
    endless.left[0][0] = float("inf")
    nothing = Counts()
    nothing.left[1][2] = float("nan")
    more_ends = Counts()
    more_ends.ended[0][0] = 1.0
    for broken in (b"", b"rubbish", counts.packed()[1:], b"\x09" + counts.packed()[1:]):
        with pytest.raises(FieldInvalid):
            unpacked(broken)
    for impossible in (endless, nothing, more_ends):
        with pytest.raises(FieldInvalid):
            unpacked(impossible.packed())


def test_what_could_not_be_shared_is_kept_for_the_next_time() -> None:
    learner = taught(Learner(), [50] * 10)
    taken = learner.take_fresh()
    taught(learner, [50] * 5)
    learner.give_back(taken)
    assert learner.take_fresh()[KEY].left[0][0] == pytest.approx(taught(Learner(), [50] * 15).take_fresh()[KEY].left[0][0])


def test_what_others_learned_takes_the_place_of_what_is_known_here_and_what_is_fresh_stays() -> None:
    learner, others = taught(Learner(), [50] * 10), taught(Learner(), [5_000] * 300)
    shared = others.take_fresh()
    mine = learner.take_fresh()
    shared[KEY].add(mine[KEY])
    taught(learner, [50] * 5)
    learner.adopt(shared)
    assert b_of(learner) > b_of(taught(Learner(), [50] * 15))
    assert set(learner.take_fresh()) == set(KEY.line)


def test_pools_come_back_to_nothing_whatever_the_order() -> None:
    learner = taught(Learner(), [random.Random(4).randrange(1, 3_000) for _ in range(200)])
    risks = [learner.risk(KEY, index, tokens_max=4_096, price=PRICE + index) for index in range(8)] * 50
    pool = NO_RISK
    for risk in risks:
        pool = add(pool, risk)
    random.Random(5).shuffle(risks)
    for risk in risks:
        pool = add(pool, change(risk, NO_RISK))
    assert pool == NO_RISK


def test_a_hold_is_learned_per_model_task_and_project() -> None:
    world = World(budget(10**12))
    for number in range(300):
        world.answer(str(number), 40)
    of_ann, of_bob = reserve("ann"), reserve("bob")
    of_bob.scope = parse_scope(f"{USER.ancestors[2]}/users/bob")
    elsewhere = reserve("other")
    elsewhere.scope = parse_scope("organizations/other/workspaces/search/projects/ranker/users/ann")
    sized = [world.book().sizer.first(SIZING, each.scope.path) for each in (of_ann, of_bob, elsewhere)]
    assert sized[0].risk == sized[1].risk
    assert worst(sized[0].risk) < worst(sized[2].risk) / 5
    for model, task in (("small", "chat"), ("large", "code")):
        other = Sizing(SIZING.input_usd_nanos, SIZING.input_tokens, PRICE, 4_096, model, task)
        assert worst(sized[0].risk) < worst(world.sizer.first(other, USER.path).risk)


def test_top_ups_go_ahead_of_newcomers() -> None:
    world = World(budget(6 * WORST_CASE))
    running = 0
    with pytest.raises(BudgetExhausted):
        for running in range(1_000):
            world.apply(reserve(str(running)))
    assert running > 6
    for name in range(running):
        world.apply(top_up(str(name), 65))
        with pytest.raises(BudgetExhausted):
            world.apply(reserve(f"newcomer {name}"))


def test_a_budget_that_wants_the_worst_case_held_is_never_passed_even_by_answers_to_the_end() -> None:
    world = World(budget(3 * WORST_CASE, hold_worst_case=True))
    for name in ("a", "b", "c"):
        hold = world.apply(reserve(name)).hold
        assert (hold.amount_usd_nanos, hold.sized) == (WORST_CASE, None)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("d"))
    assert caught.value.facts["output_tokens_max"] == "0"
    assert world.book().decide(USER, Need(WORST_CASE, 0, 1, NO_RISK, SIZING), ANY_WORK).verdict is Verdict.DENY
    for name in ("a", "b", "c"):
        assert world.apply(top_up(name, 4_096)).repeated, "all of it is paid for"
        world.apply(settle(name, 4_096))
    assert world.balance().spent_usd_nanos == 3 * WORST_CASE


def test_where_tokens_are_limited_all_of_them_are_held_so_that_no_stream_is_cut_for_want_of_tokens() -> None:
    world = World(budget(10**12, tokens=10_000))
    for name in ("a", "b"):
        hold = world.apply(reserve(name)).hold
        assert (hold.amount_usd_nanos, hold.tokens) == (1_000_000 + 64 * A_TOKEN, 400 + 4_096)
    with pytest.raises(BudgetExhausted) as caught:
        world.apply(reserve("c"))
    assert (caught.value.facts["unit"], caught.value.facts["output_tokens_max"]) == ("tokens", "608")
    for name in ("a", "b"):
        hold = world.apply(top_up(name, 4_096)).hold
        assert (hold.amount_usd_nanos, hold.tokens) == (WORST_CASE, 400 + 4_096)


def test_one_budget_of_the_path_is_enough_to_have_the_worst_case_held() -> None:
    world = World(budget(10**12), budget(10**12, hold_worst_case=True))
    assert world.apply(reserve("a")).hold.amount_usd_nanos == WORST_CASE


@pytest.mark.parametrize("limits", [{"limit": 20_000_000}, {"limit": 200_000_000}, {"limit": None, "tokens": 2_000}])
def test_a_refusal_names_how_many_output_tokens_would_still_fit_and_they_do(limits: dict[str, Any]) -> None:
    world = World(budget(**limits))
    with pytest.raises(BudgetExhausted) as caught:
        for number in range(1_000):
            world.apply(reserve(str(number)))
    tokens = int(caught.value.facts["output_tokens_max"])
    if tokens:
        fewer = Sizing(SIZING.input_usd_nanos, SIZING.input_tokens, PRICE, tokens, "large", "chat")
        assert world.apply(reserve("fewer", sizing=fewer)).hold.sized is not None
    else:
        fewer = Sizing(SIZING.input_usd_nanos, SIZING.input_tokens, PRICE, 1, "large", "chat")
        with pytest.raises(BudgetExhausted):
            world.apply(reserve("one token", sizing=fewer))


def test_an_attempt_whose_sized_model_was_never_called_teaches_nothing() -> None:
    world, untouched = World(budget(10**12)), World(budget(10**12))
    for number in range(50):
        world.answer(str(number), 40)
        untouched.answer(str(number), 40)
    before = world.sizer.learner.take_fresh()
    assert set(before) == set(untouched.sizer.learner.take_fresh())
    world.apply(reserve("a"))
    for tokens in (65, 200, 700):
        world.apply(top_up("a", tokens))
    world.apply(settle("a", 650, model="small"))
    world.apply(reserve("b"))
    world.apply(Release(USER, "b"))
    after = world.sizer.learner.take_fresh()
    assert all(max(max(part) for part in (*counts.left, *counts.ended)) < 0.01 for counts in after.values())


def test_a_stream_that_ended_before_the_end_of_what_it_owns_counts_where_it_ended() -> None:
    world = World(budget(10**12))
    world.apply(reserve("a"))
    world.apply(top_up("a", 300))
    world.apply(settle("a", 150))
    fresh = next(counts for key, counts in world.sizer.learner.take_fresh().items() if key.input_bucket > 0)
    assert fresh.left[0][:5] == pytest.approx([1.0, 1.0, 1.0, 0.0, 0.0], abs=0.01)
    assert fresh.ended[0][:5] == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_an_answer_longer_than_every_bin_is_paid_for_all_the_same() -> None:
    world = World(budget(9 * 10**15))
    sizing = Sizing(0, 0, 10_000_000, 4 * TOKENS_MAX, "large", "chat")
    world.apply(Reserve(USER, "a", 10**12, 10**9, 600, b"", dispatch=True, sizing=sizing))
    held = 0
    for wanted in (TOKENS_MAX - 1, TOKENS_MAX + 1, 2 * TOKENS_MAX + 5, 4 * TOKENS_MAX):
        sized = world.apply(top_up("a", wanted)).hold.sized
        assert sized is not None
        assert held <= wanted <= sized.output_tokens_held <= 4 * TOKENS_MAX
        held = sized.output_tokens_held


@pytest.mark.parametrize("end", ["settled", "released", "suspended", "settled late"])
def test_the_pooled_risk_is_gone_when_its_hold_has_ended_in_any_way(end: str) -> None:
    world = World(budget(10**12))
    world.apply(reserve("a"))
    assert world.balance().risk
    if end in ("suspended", "settled late"):
        world.clock.advance(600)
        world.apply(Lapse(USER, "a"))
    if end in ("settled", "settled late"):
        world.apply(settle("a", 30))
    if end == "released":
        world.apply(Release(USER, "a"))
    assert world.balance().risk == NO_RISK
    assert world.balance().held_requests == 0


def test_what_open_holds_may_cost_is_never_counted_beyond_what_stays_exact() -> None:
    world = World(budget(None, tokens=10**15))
    dear = Sizing(0, 0, 9 * 10**15, 4_000_000, "large", "chat")
    granted = 0
    with pytest.raises(FieldInvalid) as caught:
        for granted in range(1_000):
            world.apply(Reserve(USER, str(granted), 9 * 10**15, 10**6, 600, b"", dispatch=True, sizing=dear))
    assert caught.value.field in ("sizing", "amount_usd_nanos")
    for number in range(granted):
        world.apply(Release(USER, str(number)))
    assert world.balance().risk == NO_RISK
