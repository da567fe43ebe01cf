"""Thresholds: exact to the last unit; and what alerts say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from farthing_budget.alerts import (
    AlertKind,
    Channel,
    Finding,
    KeptChannel,
    Rule,
    RuleChange,
    checked_thresholds,
    text_of,
)
from farthing_budget.book import Book
from farthing_budget.budgets import Balance, Limits, Terms
from farthing_budget.events import Incident, Notice
from farthing_budget.ledger import apply
from farthing_budget.operations import Record
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.thresholds import ALERTS_PER_HOUR_MAX, crossings, finding_of_day, findings_of, gathered, percent_of
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX
from farthing_core.scopes import parse_scope
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
SCOPE = parse_scope("organizations/acme/workspaces/search")
amounts = st.integers(min_value=0, max_value=NANOS_MAX)
percents = st.integers(min_value=1, max_value=1_000)


def rule(kind: AlertKind, *, scope: str = "organizations/acme", wanted: tuple[int, ...] = (), amount: int = 0) -> Rule:
    return Rule("acme", f"rule on {scope}", scope, kind, wanted, amount, NOW)


@given(spent=amounts, limit=st.integers(min_value=1, max_value=NANOS_MAX), percent=percents)
def test_a_percentage_is_reached_exactly_when_spent_is_the_limit_times_it_or_more(spent: int, limit: int, percent: int) -> None:
    assert (percent_of(spent, limit) >= percent) == (Fraction(spent) >= Fraction(limit * percent, 100))


@given(limit=st.integers(min_value=1, max_value=NANOS_MAX), percent=percents)
def test_the_smallest_amount_that_reaches_a_percentage_does_and_one_less_does_not(limit: int, percent: int) -> None:
    exact = -(-limit * percent // 100)
    assert percent_of(exact, limit) >= percent
    assert percent_of(exact - 1, limit) < percent


@given(spent=st.integers(min_value=-NANOS_MAX, max_value=NANOS_MAX))
def test_of_a_limit_of_nothing_any_spending_is_all_and_none_is_none(spent: int) -> None:
    assert percent_of(spent, 0) == (1_000 if spent > 0 else 0)


def booked(*costs: int, limit: int, before: int = 0) -> Book:
    """A book in which some usage was recorded against one budget."""
    terms = Terms("acme", "b1", SCOPE.path, "name", PeriodTerms(Period.MONTH, "UTC"), Limits(limit))
    key = terms.balance_key(NOW)
    book = Book(
        now=NOW,
        holds={},
        terms={("acme", SCOPE.path): [terms]},
        balances={key: Balance(terms.bounds(NOW)[1], spent_usd_nanos=before)},
        sizer=Sizer(),
    )
    for number, cost in enumerate(costs):
        line = UsageLine("m", "p", "d", 1, 0, 0, cost, "accepted", False)
        apply(book, Record(SCOPE, str(number), UsageRecord("chat", (line,), cost, Saving()), b""))
    return book


@given(
    costs=st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=20),
    limit=st.integers(min_value=1, max_value=1_000),
    wanted=st.sets(percents, min_size=1, max_size=5),
)
def test_settlements_one_by_one_raise_every_percentage_they_reach_once_and_no_other(
    costs: list[int], limit: int, wanted: set[int]
) -> None:
    found: list[Finding] = []
    spent = 0
    for cost in costs:
        notices = crossings(booked(cost, limit=limit, before=spent), {"acme"}, lambda terms: wanted)
        spent += cost
        now = findings_of(notices, [rule(AlertKind.BUDGET_PERCENT, wanted=tuple(sorted(wanted)))], {})
        assert all(Fraction(spent - cost) < Fraction(limit * each.threshold, 100) <= spent for each in now)
        found += now
    assert sorted(each.threshold for each in found) == sorted(each for each in wanted if 100 * spent >= limit * each)


def test_a_batch_of_several_settlements_counts_as_what_it_comes_to() -> None:
    (notice,) = crossings(booked(30, 30, 30, limit=100), {"acme"}, lambda terms: (50, 80))
    assert (notice.percent_before, notice.percent, notice.amount) == (0, 90, 90)


def test_an_organisation_that_nobody_watches_is_not_looked_at() -> None:
    assert crossings(booked(100, limit=100), {"other"}, lambda terms: (50,)) == []


def test_a_notice_speaks_to_every_rule_that_covers_its_scope_and_wants_what_was_passed() -> None:
    (notice,) = crossings(booked(85, limit=100, before=0), {"acme"}, lambda terms: (80,))
    rules = [
        rule(AlertKind.BUDGET_PERCENT, wanted=(50, 80, 100)),
        rule(AlertKind.BUDGET_PERCENT, scope=SCOPE.path, wanted=(85, 86)),
        rule(AlertKind.BUDGET_PERCENT, scope=f"{SCOPE.path}/projects/p", wanted=(1,)),
        rule(AlertKind.BUDGET_PERCENT, scope="organizations/acme/workspaces/sea", wanted=(1,)),
        rule(AlertKind.VELOCITY),
    ]
    found = findings_of([notice], rules, {})
    assert [(each.rule_id, each.threshold) for each in found] == [
        (rules[0].rule_id, 50),
        (rules[0].rule_id, 80),
        (rules[1].rule_id, 85),
    ]


def test_incidents_of_a_batch_are_gathered_by_kind_scope_and_unpriced_model() -> None:
    def incident(kind: str, scope: str, model: str, amount: int) -> Incident:
        return Incident(kind, "acme", scope, "r", model, amount, NOW)

    notices = gathered(
        [
            incident("overrun", "s1", "a", 1),
            incident("overrun", "s1", "b", 2),
            incident("overrun", "s2", "b", 4),
            incident("price_unknown", "s1", "a", 8),
            incident("price_unknown", "s1", "b", 16),
        ]
    )
    assert [(each.kind.name, each.scope, each.detail, each.incidents, each.amount) for each in notices] == [
        ("OVERRUN", "s1", "", 2, 3),
        ("OVERRUN", "s2", "", 1, 4),
        ("PRICE_UNKNOWN", "s1", "a", 1, 8),
        ("PRICE_UNKNOWN", "s1", "b", 1, 16),
    ]


def test_the_hours_further_scopes_are_gathered_under_the_rules_own_and_known_ones_stay_apart() -> None:
    hour = NOW.replace(minute=0)
    suspense = rule(AlertKind.SUSPENSE)
    told = {(suspense.rule_id, hour): {f"s{number}/" for number in range(ALERTS_PER_HOUR_MAX)}}
    notices = [
        Notice(AlertKind.SUSPENSE, "acme", f"organizations/acme/workspaces/{name}", NOW, incidents=1) for name in ("x", "y")
    ]
    told[suspense.rule_id, hour].add("organizations/acme/workspaces/y/")
    assert [each.scope for each in findings_of(notices, [suspense], told)] == [suspense.scope, notices[1].scope]
    later = replace(notices[0], at=NOW + timedelta(hours=1))
    assert [each.scope for each in findings_of([later], [suspense], told)] == [later.scope]


@pytest.mark.parametrize(("cost", "reached"), [(999, False), (1_000, True), (1_001, True)])
def test_a_days_cost_is_reached_at_its_amount(cost: int, reached: bool) -> None:
    assert (finding_of_day(rule(AlertKind.DAILY_COST, amount=1_000), NOW, cost) is not None) is reached


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (AlertKind.BUDGET_PERCENT, "budget the name of organizations/acme reached 80 %: $2.00 of $2.50 used"),
        (AlertKind.DAILY_COST, "organizations/acme cost $2.00 on 2026-03-15 (UTC): $1.00 reached"),
        (AlertKind.VELOCITY, "ends at 2026-03-15 14:30 UTC at its present rate of $2.00 an hour"),
        (AlertKind.SUSPENSE, "3 holds of organizations/acme since 2026-03-15 12:30 UTC moved to suspense: $2.00"),
        (AlertKind.PRICE_UNKNOWN, "model the name has no price: 3 attempts"),
        (AlertKind.OVERRUN, "3 settlements of organizations/acme since 2026-03-15 12:30 UTC exceeded what was authorised"),
    ],
)
def test_every_kind_says_what_happened_in_one_line(kind: AlertKind, said: str) -> None:
    finding = Finding(
        "r",
        kind,
        "organizations/acme",
        "s",
        NOW,
        threshold=80 if kind is AlertKind.BUDGET_PERCENT else 10**9,
        observed=3 * 10**9,
        amount=2 * 10**9,
        limit=2_500_000_000,
        incidents=3,
        detail="the\nname",
        ends_at=NOW + timedelta(hours=2),
    )
    text = text_of(finding)
    assert said in text
    assert "\n" not in text


def test_tokens_and_requests_are_counted_and_not_paid() -> None:
    finding = Finding(
        "r", AlertKind.BUDGET_PERCENT, "s", "s", NOW, threshold=50, amount=1_234, limit=2_000, unit=1, budget_id="b"
    )
    assert text_of(finding) == "budget b of s reached 50 %: 1,234 tokens of 2,000 tokens used"


def test_percentages_are_put_in_order_and_default_to_three() -> None:
    assert checked_thresholds(AlertKind.BUDGET_PERCENT, (), 0) == ((50, 80, 100), 0)
    assert checked_thresholds(AlertKind.BUDGET_PERCENT, (90, 10), 0) == ((10, 90), 0)


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        (Channel("webhook", "https://h.test:8443/a/b?token=x"), "https://h.test:8443/a/b?…"),
        (Channel("webhook", "http://h.test"), "http://h.test"),
        (Channel("slack", "https://hooks.slack.test/services/T/B/x?y=z"), "https://hooks.slack.test/…"),
        (Channel("email", "ann@acme.test"), "ann@acme.test"),
    ],
)
def test_what_is_shown_of_a_channel_holds_no_secret(channel: Channel, shown: str) -> None:
    assert channel.addressee == shown
    assert channel.target not in repr(replace(channel, secret="hush")) or channel.kind == ""
    assert "hush" not in repr(KeptChannel("c", replace(channel, secret="hush")))


def test_a_new_secret_takes_the_place_of_the_old_one_and_a_foreign_url_gets_none() -> None:
    known = [KeptChannel("c1", Channel("webhook", "https://h.test/a?token=x", "old secret of sixteen"))]
    ours = rule(AlertKind.OVERRUN)

    def changed(url: str, secret: str) -> list[KeptChannel]:
        return RuleChange((), 0, (KeptChannel("new", Channel("webhook", url, secret)),)).of(ours, known)[2]

    assert changed("https://h.test/a?…", "") == known
    assert changed("https://h.test/a?…", "new secret of sixteen")[0].channel.secret == "new secret of sixteen"
    assert changed("https://h.test/b", "new secret of sixteen")[0].channel_id == "new"
    with pytest.raises(FieldInvalid, match="secret"):
        changed("https://h.test/b", "")
