"""Sized holds on the real Postgres: replicas pool one risk, and nothing of it stays when holds end, lapse, come late or break off."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import asyncpg
import pytest
from farthing_budget.budgets import Budget, Draft, Limits, LimitTerms, Terms
from farthing_budget.decisions import Need
from farthing_budget.lane import Verdict
from farthing_budget.operations import ANY_WORK, Dispatch, Lapse, Operation, Outcome, Release, Reserve, Settle, Sizing, TopUp
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetExhausted
from farthing_budget.sizing.pool import NO_RISK, add
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.postgres import PostgresLedger, open_ledger
from farthing_budget.store.rows import risk_of
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope
from farthing_runtime.postgres import open_pool

USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
SIZING = Sizing(1_000_000, 400, 10_000_000_000, 4_096, "large", "chat")
WORST_CASE = 1_000_000 + 4_096 * 10_000


class House:
    """Two replicas on one database and one clock, and a budget on every level."""

    def __init__(self, clock: ManualClock, pool: asyncpg.Pool, ledgers: list[PostgresLedger]) -> None:
        self.clock = clock
        self.pool = pool
        self.ledgers = ledgers
        self.budgets = PostgresBudgets(pool, clock)

    async def budget(self, scope: str, limit: int, *, hold_worst_case: bool = False) -> Budget:
        terms = Terms(
            "acme",
            str(uuid.uuid4()),
            scope,
            "",
            PeriodTerms(Period.MONTH, "UTC"),
            Limits(limit),
            LimitTerms(hold_worst_case=hold_worst_case),
        )
        return await self.budgets.create(Draft(terms, str(uuid.uuid4()), b"", self.clock.now()))

    async def pooled_and_expected(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Of every balance: what it pools, and the sum over the holds that are charged to it."""
        holds = await self.pool.fetch("SELECT * FROM reservations JOIN charge_sets USING (organization, charges_number)")
        found = []
        for balance in await self.pool.fetch("SELECT * FROM balances"):
            mine = [hold for hold in holds if f"{balance['budget_id']}@" in hold["charges"]]
            expected = NO_RISK
            for hold in mine:
                expected = add(expected, risk_of(hold["risk"]))
            found.append((risk_of(balance["risk"]), expected))
        return found


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    clock = ManualClock(datetime(2026, 3, 15, 12, tzinfo=UTC))
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=4)) for _ in range(2)]
        yield House(clock, pools[0], [await stack.enter_async_context(open_ledger(pool, clock)) for pool in pools])


def reserve(name: str, *, ttl_s: int = 600) -> Reserve:
    return Reserve(USER, name, WORST_CASE, 4_496, ttl_s, b"", sizing=SIZING)


def settle(name: str, tokens: int) -> Settle:
    line = UsageLine("large", "p", "d", 400, 0, tokens, 1_000_000 + tokens * 10_000, "accepted", False)
    return Settle(USER, name, UsageRecord("chat", (line,), 0, Saving()), str(tokens).encode())


async def one(ledger: PostgresLedger, operation: Operation) -> Outcome:
    (verdict,) = await ledger.commit([operation])
    if isinstance(verdict, BaseException):
        raise verdict
    return verdict


async def test_replicas_pool_the_risk_of_their_holds_and_nothing_of_it_stays(house: House) -> None:
    for scope in USER.ancestors:
        await house.budget(scope, 10**12)
    chance = random.Random(1)
    names = [str(uuid.uuid4()) for _ in range(60)]
    granted = await asyncio.gather(*(house.ledgers[number % 2].commit([reserve(name)]) for number, name in enumerate(names)))
    assert all(isinstance(verdict, Outcome) for (verdict,) in granted)
    for _ in range(60):
        operation = TopUp(USER, chance.choice(names), 0, 0, chance.choice([65, 200, 900]))
        await one(chance.choice(house.ledgers), operation)
    pooled = await house.pooled_and_expected()
    assert len(pooled) == 4
    assert all(risk == expected != NO_RISK for risk, expected in pooled)

    async def end(name: str) -> None:
        ledger = chance.choice(house.ledgers)
        way = chance.randrange(3)
        if way == 0:
            await one(ledger, settle(name, 50))
        elif way == 1:
            await one(ledger, Release(USER, name))
        else:
            await one(ledger, Dispatch(USER, name))

    await asyncio.gather(*(end(name) for name in names[:50]))
    assert all(risk == expected for risk, expected in await house.pooled_and_expected())
    house.clock.advance(601)
    await house.ledgers[0].commit([Lapse(USER, name) for name in names])
    assert await house.pooled_and_expected() == [(NO_RISK, NO_RISK)] * 4
    late: list[Verdict] = await house.ledgers[1].commit([settle(name, 70) for name in names])
    assert any(isinstance(verdict, Outcome) and not verdict.repeated for verdict in late)
    assert await house.pooled_and_expected() == [(NO_RISK, NO_RISK)] * 4
    assert await house.pool.fetchval("SELECT count(*) FROM balances WHERE risk IS NOT NULL OR held_requests > 0") == 0


async def test_a_batch_that_breaks_off_leaves_the_pooled_risk_as_it_was(house: House) -> None:
    await house.budget(USER.path, 10**12)
    kept = str(uuid.uuid4())
    await one(house.ledgers[0], reserve(kept))
    before = await house.pooled_and_expected()
    broken = Settle(
        USER, kept, UsageRecord("chat", (UsageLine("large", "p", "d", 2**70, 0, 1, 1, "accepted", False),), 0, Saving()), b""
    )
    verdicts = await house.ledgers[0].commit([broken])
    assert isinstance(verdicts[0], BaseException)
    assert await house.pooled_and_expected() == before
    await one(house.ledgers[1], settle(kept, 5))
    assert await house.pooled_and_expected() == [(NO_RISK, NO_RISK)]


async def test_newcomers_on_either_replica_are_refused_for_the_sake_of_streams_on_the_other(house: House) -> None:
    await house.budget(USER.path, 6 * WORST_CASE)
    running = []
    with pytest.raises(BudgetExhausted):
        for _ in range(1_000):
            running.append(str(uuid.uuid4()))
            await one(house.ledgers[0], reserve(running[-1]))
    with pytest.raises(BudgetExhausted):
        await one(house.ledgers[1], reserve(str(uuid.uuid4())))
    assert (await one(house.ledgers[1], TopUp(USER, running[0], 0, 0, 65))).hold.sized is not None


async def test_a_budget_that_wants_the_worst_case_held_keeps_to_it_after_it_was_changed(house: House) -> None:
    made = await house.budget(USER.path, 3 * WORST_CASE, hold_worst_case=True)
    assert (await house.budgets.get("acme", made.terms.budget_id)).terms.limit_terms.hold_worst_case
    hold = (await one(house.ledgers[0], reserve(str(uuid.uuid4())))).hold
    assert (hold.amount_usd_nanos, hold.sized) == (WORST_CASE, None)
    checked = await house.ledgers[0].check(USER, Need(WORST_CASE, 0, 1, NO_RISK, SIZING), ANY_WORK)
    assert checked.left.free_usd_nanos == 2 * WORST_CASE
    await one(house.ledgers[0], reserve(str(uuid.uuid4())))
    await one(house.ledgers[1], reserve(str(uuid.uuid4())))
    with pytest.raises(BudgetExhausted):
        await one(house.ledgers[1], reserve(str(uuid.uuid4())))
