"""Case 8: alerts fire at the exact percent, once per rule, budget, period and threshold, whatever crashes, races or comes again.

Shown on the real Postgres with two processes' worth of ledgers, alerters and deliverers, on one clock.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest
from farthing_budget.alerting import Alerter
from farthing_budget.alerts import (
    RULES_MAX,
    Alert,
    AlertKind,
    AlertsQuestion,
    Channel,
    KeptChannel,
    Rule,
    RuleChange,
    RuleDraft,
)
from farthing_budget.budgets import Budget, Change, Draft, Limits, LimitTerms, Measure, Terms
from farthing_budget.delivering import LEASE_S, Deliverer, DeliveryFailed, Due
from farthing_budget.operations import Adjust, Dispatch, Lapse, Operation, Record, Reserve, Reset, Settle
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import AlertRuleNotFound, AlertRulesFull, RequestIdReused
from farthing_budget.store.alerts import PostgresAlerts
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.deliveries import PostgresDeliveries
from farthing_budget.store.postgres import open_ledger
from farthing_budget.store.usage import PostgresUsage
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_budget.watch import Watch
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import Scope, parse_scope
from farthing_runtime.postgres import open_pool

ORGANIZATION = parse_scope("organizations/acme")
WORKSPACE = parse_scope("organizations/acme/workspaces/search")
USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
START = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOOK = Channel("webhook", "https://example.test/hook?token=hush", "a secret of many characters")


class Mailman:
    """An addressee that keeps what comes, and refuses as often as it is told to."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.refusals = refusals
        self.delivered: list[Due] = []
        self.asked = 0

    async def send(self, due: Due, channel: Channel) -> None:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            raise DeliveryFailed("HTTP 500")
        self.delivered.append(due)


class Replica:
    """What one process has, on a pool of its own."""

    def __init__(self, pool: asyncpg.Pool, clock: ManualClock, ledger: Any, watch: Watch, mailman: Mailman) -> None:
        self.ledger = ledger
        self.watch = watch
        self.store = PostgresAlerts(pool, clock, lambda: str(uuid.uuid4()))
        self.deliveries = PostgresDeliveries(pool, clock)
        self.budgets = PostgresBudgets(pool, clock)
        usage = PostgresUsage(pool)
        self.deliverer = Deliverer(
            store=self.deliveries,
            senders=dict.fromkeys(("webhook", "slack", "email"), mailman),
            clock=clock,
            rng=Random(7),
            attempts_max=4,
        )
        self.alerter = Alerter(
            store=self.store, budgets=self.budgets, usage=usage, watch=watch, clock=clock, raised=self.deliverer.call
        )

    async def does(self, *operations: Operation) -> None:
        for verdict in await self.ledger.commit(operations):
            if isinstance(verdict, BaseException):
                raise verdict

    async def spends(self, cost: int, *, scope: Scope = USER, tokens: int = 0, price_unknown: bool = False) -> None:
        usage = used(cost, tokens=tokens, price_unknown=price_unknown)
        await self.does(Record(scope, str(uuid.uuid4()), usage, b"body"))


class House:
    """Two replicas on one database and one clock."""

    def __init__(self, clock: ManualClock, pool: asyncpg.Pool, replicas: list[Replica], mailman: Mailman) -> None:
        self.clock = clock
        self.pool = pool
        self.one, self.other = replicas
        self.mailman = mailman

    async def budget(self, scope: Scope, limits: Limits, period: Period = Period.MONTH, **values: Any) -> Budget:
        period_terms = PeriodTerms(period, "UTC", window_s=values.pop("window_s", 0))
        terms = Terms("acme", str(uuid.uuid4()), scope.path, "the budget", period_terms, limits, **values)
        return await self.one.budgets.create(Draft(terms, str(uuid.uuid4()), b"body", self.clock.now()))

    async def rule(self, kind: AlertKind, *, scope: Scope = ORGANIZATION, **values: Any) -> Rule:
        made = await self.one.store.create(self.draft(kind, scope=scope, **values))
        for replica in (self.one, self.other):
            replica.watch.rules_changed("acme")
            await replica.alerter.turn()
        return made

    def draft(self, kind: AlertKind, *, scope: Scope = ORGANIZATION, **values: Any) -> RuleDraft:
        channels = tuple(KeptChannel(str(uuid.uuid4()), each) for each in values.pop("channels", (HOOK,)))
        values = {"percents": (50, 80, 100) if kind is AlertKind.BUDGET_PERCENT else (), "amount_usd_nanos": 0} | values
        rule = Rule(scope.organization, str(uuid.uuid4()), scope.path, kind, created_at=self.clock.now(), **values)
        return RuleDraft(rule, channels, str(uuid.uuid4()), b"body")

    async def limit(self, budget: Budget, limits: Limits) -> None:
        change = Change(frozenset({"limit_usd_nanos", "limit_tokens"}), "", limits, LimitTerms(), 0)
        await self.one.budgets.update("acme", budget.terms.budget_id, change)
        self.one.watch.look_at("acme", budget.terms.budget_id)
        await self.one.alerter.turn()

    async def alerts(self) -> list[Alert]:
        """The oldest first."""
        for replica in (self.one, self.other):
            await replica.alerter.turn()
        return (await self.one.store.alerts(AlertsQuestion("acme", ORGANIZATION.path, 1_000)))[::-1]

    async def thresholds(self) -> list[int]:
        """Of all alerts, in the order of their thresholds."""
        return sorted(alert.finding.threshold for alert in await self.alerts())


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    clock, mailman = ManualClock(START), Mailman()
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(2):
            pool = await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=4))
            watch = Watch()
            ledger = await stack.enter_async_context(open_ledger(pool, clock, watch=watch))
            replicas.append(Replica(pool, clock, ledger, watch, mailman))
        yield House(clock, pool, replicas, mailman)


@asynccontextmanager
async def restarted(house: House, database_url: str) -> AsyncIterator[Replica]:
    """A process that knows only what is in the database."""
    watch = Watch()
    async with (
        open_pool(database_url, schema="budget", size_max=4) as pool,
        open_ledger(pool, house.clock, watch=watch) as ledger,
    ):
        yield Replica(pool, house.clock, ledger, watch, house.mailman)


def used(cost: int, *, tokens: int = 0, price_unknown: bool = False, model: str = "large") -> UsageRecord:
    line = UsageLine(model, "p", "d", tokens, 0, 0, cost, "accepted", False)
    return UsageRecord("chat", (replace(line, price_unknown=price_unknown),), cost, Saving())


def held(amount: int, *, scope: Scope = USER, ttl_s: int = 600) -> Reserve:
    return Reserve(scope, str(uuid.uuid4()), amount, 0, ttl_s, b"body")


async def test_case_8_each_percent_fires_at_the_settlement_that_reaches_it_and_not_before(house: House) -> None:
    budget = await house.budget(WORKSPACE, Limits(1_001))
    await house.rule(AlertKind.BUDGET_PERCENT)
    seen = []
    for cost in (500, 1, 299, 1, 199, 1):  # half of 1,001 is 500.5, four fifths are 800.8
        await house.one.spends(cost)
        seen.append(await house.thresholds())
    assert seen == [[], [50], [50], [50, 80], [50, 80], [50, 80, 100]]
    first = next(each.finding for each in await house.alerts() if each.finding.threshold == 50)
    assert (first.scope, first.budget_id, first.observed, first.period_start) == (
        WORKSPACE.path,
        budget.terms.budget_id,
        50,
        datetime(2026, 3, 1, tzinfo=UTC),
    )


async def test_case_8_a_settlement_that_passes_several_percents_raises_each(house: House) -> None:
    await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50, 80, 100, 200, 300))
    await house.one.spends(250)
    assert await house.thresholds() == [50, 80, 100, 200]


async def test_case_8_tokens_and_requests_have_thresholds_of_their_own(house: House) -> None:
    await house.budget(USER, Limits(None, 1_000, 2))
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50,))
    await house.one.spends(0, tokens=400)  # a record that cost nothing uses nothing up
    assert await house.thresholds() == []
    hold = held(10)
    await house.one.does(hold)
    await house.one.does(Settle(USER, hold.request_id, used(1, tokens=499), b"s"))
    assert [each.finding.unit for each in await house.alerts()] == [2]
    await house.one.spends(1, tokens=1)
    assert sorted(each.finding.unit for each in await house.alerts()) == [1, 2]


async def test_case_8_two_replicas_that_cross_and_check_at_once_raise_one_alert_each(house: House) -> None:
    budgets = [await house.budget(parse_scope(path), Limits(64_000)) for path in USER.ancestors]
    await house.rule(AlertKind.BUDGET_PERCENT)
    replicas = (house.one, house.other)
    for _ in range(8):
        await asyncio.gather(*(replica.spends(1_000) for _ in range(4) for replica in replicas))
        checks = [replica.alerter.turn() for replica in replicas for _ in range(2)] + [
            each.alerter.sweep() for each in replicas
        ]
        await asyncio.gather(*checks)
    for replica in replicas:
        await replica.alerter.refresh()
    raised = [(each.finding.budget_id, each.finding.threshold) for each in await house.alerts()]
    assert sorted(raised) == sorted((budget.terms.budget_id, percent) for budget in budgets for percent in (50, 80, 100))
    assert {each.finding.observed for each in await house.alerts()} <= {50, 51, 52, 53, 54, 56, 57, 59, 60, 62} | set(
        range(80, 101)
    )
    await asyncio.gather(*(replica.deliverer.turn() for replica in replicas))
    ids = [due.delivery_id for due in house.mailman.delivered]
    assert len(ids) == len(set(ids)) == 12


async def test_case_8_a_process_that_dies_between_the_commit_and_the_alert_loses_nothing(
    house: House, database_url: str
) -> None:
    await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(60)  # nobody works off its agenda any more
    assert await house.pool.fetchval("SELECT count(*) FROM alerts") == 0
    async with restarted(house, database_url) as replica:
        await replica.alerter.refresh()
        assert await house.thresholds() == [50]
        await replica.alerter.sweep()
        await house.other.alerter.sweep()
    assert await house.thresholds() == [50]


async def test_case_8_what_was_raised_before_a_restart_is_delivered_once_after_it(house: House, database_url: str) -> None:
    await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(50)
    assert await house.thresholds() == [50]  # raised, and not delivered
    async with restarted(house, database_url) as replica:
        await replica.alerter.sweep()
        await replica.spends(1)
        await replica.alerter.turn()
        while await replica.deliverer.turn():
            pass
    assert [due.alert.finding.threshold for due in house.mailman.delivered] == [50]
    assert [each.deliveries[0].state for each in await house.alerts()] == ["DELIVERED"]


async def test_case_8_a_reset_lets_thresholds_fire_again_in_the_same_period(house: House) -> None:
    budget = await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(85)
    assert await house.thresholds() == [50, 80]
    for number in range(2):
        await house.other.does(Reset(USER, str(uuid.uuid4()), budget.terms.budget_id, "again", b"r"))
        await house.one.spends(50)
        await house.one.alerter.sweep()
        await house.other.alerter.sweep()
        assert await house.thresholds() == sorted([50, 80] + [50] * (number + 1))


async def test_case_8_a_notice_from_before_a_reset_does_not_use_up_the_alert_of_after_it(house: House) -> None:
    budget = await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50,))
    await house.one.spends(50)
    await house.one.does(Reset(USER, str(uuid.uuid4()), budget.terms.budget_id, "again", b"r"))
    await house.one.spends(50)
    assert await house.thresholds() == [50, 50]  # both were taken up after all of it


async def test_case_8_a_raised_limit_that_is_reached_again_alerts_again_and_a_lowered_one_does_not_repeat(house: House) -> None:
    budget = await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50, 80))
    await house.one.spends(80)
    assert await house.thresholds() == [50, 80]
    await house.limit(budget, Limits(200))
    assert await house.thresholds() == [50, 80]
    await house.one.spends(19)
    assert await house.thresholds() == [50, 80]  # 99 of 200
    await house.one.spends(1)
    assert await house.thresholds() == [50, 50, 80]
    await house.limit(budget, Limits(100))
    await house.one.spends(1)
    await house.one.alerter.sweep()
    assert await house.thresholds() == [50, 50, 80]
    await house.limit(budget, Limits(200))
    await house.one.alerter.sweep()
    assert await house.thresholds() == [50, 50, 80]


async def test_case_8_a_limit_lowered_below_what_is_spent_alerts_at_once(house: House) -> None:
    budget = await house.budget(USER, Limits(1_000))
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(90)
    assert await house.thresholds() == []
    await house.limit(budget, Limits(100))
    assert await house.thresholds() == [50, 80]


async def test_case_8_every_period_alerts_anew_and_a_late_settlement_for_the_one_it_belongs_to(house: House) -> None:
    await house.budget(USER, Limits(100), Period.DAY)
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50,))
    late = held(30)
    await house.one.does(late, Dispatch(USER, late.request_id))
    await house.one.spends(40)
    house.clock.advance(86_400)
    await house.one.spends(50)
    assert [each.finding.period_start.day for each in await house.alerts()] == [16]
    house.clock.advance(1)
    await house.one.does(Settle(USER, late.request_id, used(30), b"s"))
    await house.one.spends(50)
    assert [each.finding.period_start.day for each in await house.alerts()] == [16, 15]


async def test_case_8_a_moving_window_alerts_once_in_any_stretch_of_its_length(house: House) -> None:
    await house.budget(USER, Limits(100), Period.ROLLING, window_s=86_400)
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50,))
    count = []
    for _ in range(7):  # 36 hours; from the second spending on, three and more of the last 24 hours count
        await house.one.spends(30)
        await house.one.alerter.sweep()
        await house.other.alerter.sweep()
        count.append(len(await house.alerts()))
        house.clock.advance(6 * 3600)
    assert count == [0, 1, 1, 1, 1, 2, 2]


async def test_case_8_a_refund_and_spending_it_again_does_not_alert_twice(house: House) -> None:
    budget = await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50,))
    await house.one.spends(50)
    credit = Adjust(USER, str(uuid.uuid4()), "", budget.terms.budget_id, -20, 0, "refund", b"a")
    await house.one.does(credit)
    await house.other.spends(30)
    assert await house.thresholds() == [50]


async def test_case_8_clocks_that_differ_do_not_alert_twice(house: House) -> None:
    await house.budget(USER, Limits(100), Period.ROLLING, window_s=3_600)
    await house.rule(AlertKind.BUDGET_PERCENT, percents=(50,))
    await house.one.spends(60)
    assert len(await house.alerts()) == 1
    for jump in (-180, 170, -10):
        house.clock.jump(START + timedelta(seconds=jump))
        await house.other.spends(1)
        await house.other.alerter.sweep()
        assert len(await house.alerts()) == 1


async def test_a_new_rule_hears_of_what_is_reached_already(house: House) -> None:
    await house.budget(USER, Limits(100))
    await house.one.spends(85)
    await house.rule(AlertKind.BUDGET_PERCENT)
    assert await house.thresholds() == [50, 80]


async def test_a_rule_holds_at_and_below_its_scope_and_not_above_or_beside_it(house: House) -> None:
    for scope in (ORGANIZATION, WORKSPACE, USER, parse_scope("organizations/acme/workspaces/search2")):
        await house.budget(scope, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT, scope=WORKSPACE, percents=(50,))
    await house.one.spends(50)
    await house.one.spends(50, scope=parse_scope("organizations/acme/workspaces/search2"))
    assert sorted(each.finding.scope for each in await house.alerts()) == [WORKSPACE.path, USER.path]


async def test_another_replicas_rule_is_known_within_a_turn_of_refreshing(house: House) -> None:
    await house.budget(USER, Limits(100))
    await house.other.spends(1)
    await house.other.alerter.turn()
    await house.one.store.create(house.draft(AlertKind.BUDGET_PERCENT))
    await house.other.alerter.refresh()
    await house.other.spends(49)
    assert await house.thresholds() == [50]


async def test_a_days_cost_alerts_once_a_day_though_no_process_saw_all_of_it(house: House) -> None:
    await house.rule(AlertKind.DAILY_COST, scope=WORKSPACE, amount_usd_nanos=1_000)
    seen = []
    for cost, replica in ((499, house.one), (500, house.other), (1, house.other), (700, house.one)):
        await replica.spends(cost)
        seen.append(len(await house.alerts()))
        house.clock.advance(61)
    assert seen == [0, 0, 1, 1]
    await house.one.spends(5_000, scope=ORGANIZATION)  # above the rule's scope
    house.clock.advance(86_400)
    await asyncio.gather(house.one.spends(600), house.other.spends(400))
    house.clock.advance(61)
    await house.one.spends(1)
    alerts = await house.alerts()
    assert [each.finding.period_start.day for each in alerts] == [15, 16]
    assert [(each.finding.threshold, each.finding.observed) for each in alerts] == [(1_000, 1_000), (1_000, 1_001)]


async def test_the_sweep_finds_a_days_cost_that_nobody_looked_at(house: House, database_url: str) -> None:
    await house.rule(AlertKind.DAILY_COST, amount_usd_nanos=1_000)
    await house.one.spends(1_000)
    house.clock.advance(2 * 86_400)
    async with restarted(house, database_url) as replica:
        await replica.alerter.sweep()
        await replica.alerter.sweep()
        assert [
            each.finding.period_start.day for each in await replica.store.alerts(AlertsQuestion("acme", ORGANIZATION.path, 9))
        ] == [15]


async def test_a_larger_daily_amount_is_a_new_threshold_and_a_smaller_one_is_not(house: House) -> None:
    rule = await house.rule(AlertKind.DAILY_COST, amount_usd_nanos=1_000)
    await house.one.spends(2_500)
    for amount in (1_000, 500, 2_000, 3_000):
        await house.one.store.update("acme", rule.rule_id, RuleChange((), amount, ()))
        house.one.watch.rules_changed("acme")
        await house.one.alerter.turn()
    assert await house.thresholds() == [1_000, 2_000]


async def test_a_budget_that_is_used_up_too_fast_alerts_once_a_period(house: House) -> None:
    budget = await house.budget(USER, Limits(1_000_000))
    await house.rule(AlertKind.VELOCITY)
    for _ in range(30):
        await house.one.spends(20_000)
        house.clock.advance(120)
        await house.one.alerter.turn()
    (alert,) = await house.alerts()
    assert (alert.finding.budget_id, alert.finding.threshold) == (budget.terms.budget_id, 1_000_000)
    assert alert.finding.observed > 1_000_000
    assert alert.finding.ends_at is not None
    assert alert.finding.ends_at < datetime(2026, 4, 1, tzinfo=UTC)
    await house.other.alerter.sweep()
    assert len(await house.alerts()) == 1


async def test_a_budgets_own_measure_alerts_without_a_rule_and_leaves_it_to_one_that_is_there(house: House) -> None:
    await house.budget(USER, Limits(1_000), limit_terms=LimitTerms(measure=Measure.ALERT))
    await house.one.spends(10)
    await house.one.spends(500)
    house.clock.advance(11)
    await house.one.spends(1)
    assert [each.finding.rule_id for each in await house.alerts()] == [""]
    house.clock.advance(1)
    rule = await house.rule(AlertKind.VELOCITY)
    await house.one.alerter.sweep()
    assert [each.finding.rule_id for each in await house.alerts()] == ["", rule.rule_id]


async def test_a_budget_that_lasts_alerts_nobody_of_its_velocity(house: House) -> None:
    await house.budget(USER, Limits(10**12), limit_terms=LimitTerms(measure=Measure.ALERT))
    await house.rule(AlertKind.VELOCITY)
    for _ in range(5):
        await house.one.spends(10)
        house.clock.advance(60)
        await house.one.alerter.sweep()
    assert await house.alerts() == []


async def test_holds_that_move_to_suspense_make_one_alert_an_hour_with_their_number(house: House) -> None:
    await house.rule(AlertKind.SUSPENSE)
    await house.rule(AlertKind.OVERRUN, scope=parse_scope("organizations/acme/workspaces/other"))
    for turn in range(3):
        holds = [held(100, ttl_s=1) for _ in range(2)]
        await house.one.does(*holds, *(Dispatch(USER, each.request_id) for each in holds))
        house.clock.advance(2 if turn < 2 else 3_600)
        await house.one.does(*(Lapse(USER, each.request_id) for each in holds))
        await asyncio.gather(house.one.alerter.refresh(), house.other.alerter.refresh())
    alerts = [each.finding for each in await house.alerts()]
    assert [(each.incidents, each.observed, each.period_start.hour) for each in alerts] == [(4, 400, 12), (2, 200, 13)]
    assert {each.kind for each in alerts} == {AlertKind.SUSPENSE}


async def test_a_settlement_above_what_was_authorised_alerts(house: House) -> None:
    await house.rule(AlertKind.OVERRUN)
    hold = held(100)
    await house.one.does(hold)
    await house.one.does(Settle(USER, hold.request_id, used(130), b"s"))
    (alert,) = await house.alerts()
    assert (alert.finding.kind, alert.finding.observed, alert.finding.incidents) == (AlertKind.OVERRUN, 30, 1)
    assert alert.finding.scope == USER.path


async def test_a_model_without_a_price_alerts_and_is_named(house: House) -> None:
    await house.rule(AlertKind.PRICE_UNKNOWN)
    await house.one.spends(70, price_unknown=True)
    (alert,) = await house.alerts()
    assert (alert.finding.kind, alert.finding.detail, alert.finding.observed) == (AlertKind.PRICE_UNKNOWN, "large", 70)


async def test_incidents_of_very_many_scopes_do_not_flood_anybody(house: House) -> None:
    await house.rule(AlertKind.PRICE_UNKNOWN, scope=WORKSPACE)
    for number in range(25):
        await house.one.spends(1, scope=parse_scope(f"{WORKSPACE.path}/projects/p{number}"), price_unknown=True)
        if number % 5 == 0:
            await house.one.alerter.turn()
    alerts = [each.finding for each in await house.alerts()]
    assert len(alerts) == 21
    assert sum(each.incidents for each in alerts) == 25
    assert {each.incidents for each in alerts if each.scope == WORKSPACE.path} == {5}


async def test_incidents_that_no_rule_asks_for_leave_nothing_behind(house: House) -> None:
    await house.one.spends(1, price_unknown=True)
    assert await house.alerts() == []
    assert await house.pool.fetchval("SELECT count(*) FROM alert_notices") == 0


async def test_nothing_is_written_for_settlements_that_cross_nothing(house: House) -> None:
    await house.budget(USER, Limits(1_000))
    await house.rule(AlertKind.BUDGET_PERCENT)
    for _ in range(4):
        await house.one.spends(100)
    assert await house.pool.fetchval("SELECT count(*) FROM alert_notices") == 0


async def test_a_delivery_that_fails_is_tried_again_with_growing_patience_and_then_given_up(house: House) -> None:
    await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT)
    house.mailman.refusals = 100
    await house.one.spends(50)
    await house.alerts()
    waits, asked_at = [], house.clock.now()
    while len(waits) < 4 and house.clock.now() < START + timedelta(hours=1):
        if await house.one.deliverer.turn():
            waits.append((house.clock.now() - asked_at).total_seconds())
            asked_at = house.clock.now()
        house.clock.advance(0.5)
    assert len(waits) == 4
    for before, wait in zip((5, 10, 20), waits[1:], strict=True):
        assert before / 2 <= wait <= before + 1
    house.clock.advance(86_400)
    assert await house.one.deliverer.turn() == 0
    (delivery,) = (await house.alerts())[0].deliveries
    assert (delivery.state, delivery.attempts, delivery.error) == ("GIVEN_UP", 4, "HTTP 500")
    assert house.mailman.asked == 4


async def test_two_deliverers_share_the_work_and_deliver_nothing_twice(house: House) -> None:
    for path in USER.ancestors:
        await house.budget(parse_scope(path), Limits(100))
    for _ in range(3):
        await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(100)
    await house.alerts()
    while sum(await asyncio.gather(house.one.deliverer.turn(), house.other.deliverer.turn())):
        pass
    ids = [due.delivery_id for due in house.mailman.delivered]
    assert len(ids) == len(set(ids)) == 4 * 3 * 3


async def test_what_a_dead_process_had_claimed_is_delivered_by_another_when_its_lease_ends(house: House) -> None:
    await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(50)
    await house.alerts()
    (claimed,) = await house.one.deliveries.claim(count_max=9, lease_s=LEASE_S)
    assert await house.other.deliverer.turn() == 0
    house.clock.advance(LEASE_S)
    assert await house.other.deliverer.turn() == 1
    assert house.mailman.delivered[0].delivery_id == claimed.delivery_id
    await house.one.deliveries.failed(claimed, "late", next_at=house.clock.now())  # it was not dead
    assert [each.deliveries[0].state for each in await house.alerts()] == ["DELIVERED"]


async def test_a_delivery_whose_every_attempt_dies_is_given_up_too(house: House) -> None:
    await house.budget(USER, Limits(100))
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(50)
    await house.alerts()
    for _ in range(4):
        assert len(await house.one.deliveries.claim(count_max=9, lease_s=1)) == 1
        house.clock.advance(1)
    await house.one.deliverer.turn()
    (delivery,) = (await house.alerts())[0].deliveries
    assert (delivery.state, delivery.error) == ("GIVEN_UP", "the last attempt did not end")
    assert house.mailman.asked == 0


async def test_the_deliveries_of_a_deleted_rule_are_given_up_and_its_secrets_are_gone(house: House) -> None:
    await house.budget(USER, Limits(100))
    rule = await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(50)
    await house.alerts()
    await house.one.store.delete("acme", rule.rule_id)
    assert await house.pool.fetchval("SELECT count(*) FROM alert_channels") == 0
    await house.one.deliverer.turn()
    (delivery,) = (await house.alerts())[0].deliveries
    assert delivery.state == "GIVEN_UP"
    for replica in (house.one, house.other):
        await replica.alerter.refresh()
    await house.one.spends(50)
    assert await house.thresholds() == [50]
    with pytest.raises(AlertRuleNotFound):
        await house.one.store.delete("acme", rule.rule_id)


async def test_a_changed_rule_keeps_the_channels_and_secrets_that_it_is_given_back(house: House) -> None:
    slack = Channel("slack", "https://hooks.example.test/services/T0/B0/hush")
    rule = await house.rule(AlertKind.BUDGET_PERCENT, channels=(HOOK, slack))
    before = await house.pool.fetch("SELECT * FROM alert_channels ORDER BY number")
    shown = tuple(KeptChannel(str(uuid.uuid4()), Channel(each.kind, each.text)) for each in rule.addressees)
    assert "hush" not in str(rule)
    changed = await house.one.store.update("acme", rule.rule_id, RuleChange((10,), 0, shown))
    assert changed.percents == (10,)
    assert await house.pool.fetch("SELECT * FROM alert_channels ORDER BY number") == before
    new = Channel("webhook", "https://example.test/other", "")
    with pytest.raises(FieldInvalid, match="secret"):
        await house.one.store.update("acme", rule.rule_id, RuleChange((), 0, (KeptChannel("c", new),)))
    assert await house.pool.fetch("SELECT * FROM alert_channels ORDER BY number") == before


async def test_the_same_request_makes_one_rule_and_another_body_is_refused(house: House) -> None:
    draft = house.draft(AlertKind.SUSPENSE)
    again = replace(draft, rule=replace(draft.rule, rule_id="another"))
    first, second = await asyncio.gather(house.one.store.create(draft), house.other.store.create(again))
    assert first == second
    with pytest.raises(RequestIdReused):
        await house.one.store.create(replace(draft, body_hash=b"other"))
    await house.one.store.delete("acme", first.rule_id)
    with pytest.raises(AlertRuleNotFound):
        await house.one.store.create(draft)


async def test_an_organisation_has_at_most_so_many_rules(house: House) -> None:
    draft = house.draft(AlertKind.SUSPENSE, channels=())
    await house.one.store.create(draft)
    await house.pool.execute(
        "INSERT INTO alert_rules SELECT organization, n::text, scope, kind, percents, amount_usd_nanos, gen_random_uuid(), body_hash, "
        "created_at, NULL FROM alert_rules, generate_series(1, $1) n",
        RULES_MAX - 1,
    )
    with pytest.raises(AlertRulesFull):
        await house.one.store.create(house.draft(AlertKind.SUSPENSE))
    assert await house.one.store.create(draft)


async def test_old_alerts_are_forgotten_and_those_of_a_whole_year_are_kept(house: House) -> None:
    await house.budget(USER, Limits(100), Period.YEAR)
    await house.rule(AlertKind.BUDGET_PERCENT)
    await house.one.spends(50)
    assert len(await house.alerts()) == 1
    house.clock.advance(366 * 86_400)
    await house.one.alerter.sweep()
    assert len(await house.alerts()) == 1
    house.clock.advance(40 * 86_400)
    await house.one.alerter.sweep()
    assert await house.alerts() == []
    assert await house.pool.fetchval("SELECT count(*) FROM alert_deliveries") == 0
