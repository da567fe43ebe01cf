"""Corners in which a ledger could go wrong unseen: lost answers, clocks that differ, windows that move, rows that change meanwhile."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from farthing_budget.budgets import Budget, Draft, Limits, Selector, Terms
from farthing_budget.journal import EntriesQuestion
from farthing_budget.operations import Adjust, Dispatch, Outcome, Record, Settle, State, TopUp, Work
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetExhausted, RequestIdReused, StoreUnavailable
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.postgres import PostgresLedger, open_ledger
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.contract.test_ledger_store import (
    COLLEAGUE,
    ORGANIZATION,
    START,
    USER,
    House,
    granted,
    house,
    one_verdict,
    outsider,
    reserve,
    settle,
    used,
    waiting,
)

__all__ = ["house"]
_HOUR_S = 3_600


class LosesAnswers:
    """A ledger's connection whose next commits are done, but never heard of."""

    def __init__(self, ledger: PostgresLedger, lost: int) -> None:
        self._inner, self._lost = ledger._connection, lost
        ledger._connection = self  # type: ignore[assignment]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._inner.transaction() as connection:
            yield connection
        if self._lost:
            self._lost -= 1
            raise ConnectionResetError("the answer to COMMIT was lost")

    async def close(self) -> None:
        await self._inner.close()


async def window(house: House, usd: int, *, window_s: int = _HOUR_S, selector: Selector | None = None) -> Budget:
    terms = Terms("acme", str(uuid.uuid4()), USER.path, "", PeriodTerms(Period.ROLLING, "UTC", window_s=window_s), Limits(usd))
    draft = Draft(replace(terms, selector=selector), str(uuid.uuid4()), b"body", house.clock.now())
    return await house.budgets.create(draft)


async def test_a_grant_whose_answer_was_lost_on_the_way_is_no_repeat_for_who_hears_it_first(house: House) -> None:
    budget = await house.budget(USER, 1_000)
    LosesAnswers(house.one, 1)
    hold = reserve(100)
    first = await one_verdict(house.one, hold)
    assert (first.repeated, first.hold.amount_usd_nanos) == (False, 100)
    assert [(await one_verdict(ledger, hold)).repeated for ledger in (house.one, house.other)] == [True, True]
    assert await house.balance(budget) == (0, 100)


async def test_a_grant_that_nobody_was_told_of_is_told_once_to_who_asks_again(house: House) -> None:
    budget = await house.budget(USER, 1_000)
    LosesAnswers(house.one, 2)
    hold = reserve(100)
    with pytest.raises(StoreUnavailable):
        await house.one.commit([hold])
    crowd = await house.one.commit([hold, hold, reserve(5)])
    assert [each.repeated for each in crowd if isinstance(each, Outcome)] == [False, True, False]
    assert (await one_verdict(house.one, hold)).repeated
    assert await house.balance(budget) == (0, 105)


async def test_organizations_without_budgets_keep_their_holds_and_entries_though_they_share_a_batch(house: House) -> None:
    scopes = [parse_scope(f"organizations/org{number}") for number in range(3)]
    holds = [reserve(5, scope=scope) for scope in scopes]
    assert granted(await house.one.commit(holds)) == 3
    journal = PostgresJournal(house.pool)
    for scope, hold in zip(scopes, holds, strict=True):
        found, entries = await house.one.find(scope, hold.request_id)
        assert (found.amount_usd_nanos, len(entries)) == (5, 1)
        question = EntriesQuestion(scope.organization, scope.path, "", "", 10)
        assert [each.request_id for each in await journal.entries(question)] == [hold.request_id]


async def test_a_correction_that_waited_for_the_settlement_lands_where_that_was_charged(
    house: House, database_url: str
) -> None:
    whole = await house.budget(USER, 1_000)
    only = await window(house, 1_000, selector=Selector("model", "large"))
    hold = reserve(100)  # nobody said that the large model would be used: its budget is charged when that is settled
    await house.one.commit([hold])
    adjust = Adjust(USER, str(uuid.uuid4()), hold.request_id, "", -30, 0, "", b"a")
    async with outsider(database_url) as intruder, outsider(database_url) as observer:
        async with intruder.transaction():
            # The settlement takes the hold, then waits here before it commits; the correction waits for the hold.
            await intruder.execute("LOCK TABLE usage IN SHARE MODE")
            settling = asyncio.create_task(house.one.commit([settle(hold, 90)]))
            await waiting(observer)
            adjusting = asyncio.create_task(house.other.commit([adjust]))
            await waiting(observer, 2)
        assert [type(each) for each in (*await settling, *await adjusting)] == [Outcome, Outcome]
    assert [await house.balance(each) for each in (whole, only)] == [(60, 0), (60, 0)]
    assert (await PostgresJournal(house.pool).verify("acme")).differences == ()


async def test_a_refund_gives_a_budget_on_a_model_back_its_own_part(house: House) -> None:
    whole = await house.budget(USER, 1_000)
    small = await window(house, 1_000, selector=Selector("model", "small"))
    hold = replace(reserve(100), work=Work(models=("small", "large")))
    both = used(10, model="small")
    both = replace(both, lines=(*both.lines, *used(80, model="large").lines))
    await house.one.commit([hold, Settle(USER, hold.request_id, both, b"s")])
    assert [await house.balance(each) for each in (whole, small)] == [(90, 0), (10, 0)]

    async def corrected(amount: int) -> list[tuple[int, int]]:
        await one_verdict(house.one, Adjust(USER, str(uuid.uuid4()), hold.request_id, "", amount, 0, "", b"a"))
        return [await house.balance(each) for each in (whole, small)]

    assert await corrected(9) == [(99, 0), (11, 0)]
    assert await corrected(-45) == [(54, 0), (6, 0)]
    assert await corrected(-54) == [(0, 0), (0, 0)]
    assert (await PostgresJournal(house.pool).verify("acme")).differences == ()


async def test_budgets_that_are_made_all_the_time_do_not_keep_anybody_from_spending(house: House) -> None:
    budget = await house.budget(USER, 10_000)

    async def administrator() -> None:
        for number in range(60):
            await house.budget(parse_scope(f"organizations/acme/workspaces/w{number}"), 1)

    administering = asyncio.create_task(administrator())
    while not administering.done():
        assert granted(await house.one.commit([reserve(1)])) == 1
    await administering
    assert (await house.balance(budget))[1] > 0


@pytest.mark.parametrize("slots", [-2, -1, 1, 2])
async def test_replicas_whose_clocks_differ_by_a_slot_or_two_share_one_window(house: House, slots: int) -> None:
    await window(house, 100)
    await house.one.commit([reserve(1)])
    async with open_ledger(house.pool, ManualClock(START + timedelta(seconds=slots * _HOUR_S // 24))) as skewed:
        assert granted(await skewed.commit([reserve(60)])) == 1
        assert granted(await house.one.commit([reserve(40), reserve(39)])) == 1
        assert granted(await skewed.commit([reserve(1)])) == 0


async def test_replicas_whose_clocks_differ_race_for_one_window_and_keep_to_it(house: House) -> None:
    await window(house, 20_000)
    async with open_ledger(house.pool, ManualClock(START + timedelta(seconds=2 * _HOUR_S // 24))) as skewed:
        for _ in range(5):
            batches = [[reserve(1_000) for _ in range(3)] for _ in range(4)]
            done = await asyncio.gather(
                *(house.one.commit(each) for each in batches[:2]), *(skewed.commit(each) for each in batches[2:])
            )
            assert all(isinstance(each, Outcome | BudgetExhausted) for verdicts in done for each in verdicts)
        held = await house.pool.fetchval("SELECT sum(held_usd_nanos)::bigint FROM balances")
    assert held == 20_000


async def test_a_top_up_is_measured_by_the_whole_window_though_its_hold_is_slots_old(house: House) -> None:
    await window(house, 100)
    old = reserve(40, ttl_s=3_000)
    await house.one.commit([old, reserve(30, ttl_s=3_000)])
    house.clock.advance(_HOUR_S / 4)
    assert granted(await house.one.commit([reserve(30), reserve(1)])) == 1
    (refused,) = await house.one.commit([TopUp(USER, old.request_id, 41, 0, 0)])
    assert isinstance(refused, BudgetExhausted)
    held = await house.pool.fetchval("SELECT sum(held_usd_nanos)::bigint FROM balances")
    assert held == 100


@pytest.mark.parametrize("dispatched", [True, False])
async def test_spending_recorded_by_who_never_heard_of_its_hold_ends_the_hold(house: House, dispatched: bool) -> None:
    budget = await house.budget(USER, 1_000)
    hold = replace(reserve(100), dispatch=dispatched)
    await house.one.commit([hold])
    record = Record(USER, hold.request_id, used(70), b"body")
    assert (await one_verdict(house.other, record)).hold.state is State.SETTLED
    assert (await one_verdict(house.one, record)).repeated
    assert await house.balance(budget) == (70, 0)
    (verdict,) = await house.one.commit([replace(record, body_hash=b"another")])
    assert isinstance(verdict, RequestIdReused)
    assert await house.count("usage") == 1


async def test_a_hold_shows_all_its_entries_though_clocks_were_set_back_and_it_was_corrected_long_after(house: House) -> None:
    await house.budget(ORGANIZATION, 1_000)
    hold = reserve(100, scope=COLLEAGUE)
    await house.one.commit([hold])
    house.clock.jump(START - timedelta(seconds=90))
    await house.one.commit([Dispatch(COLLEAGUE, hold.request_id)])
    await house.one.commit([Settle(COLLEAGUE, hold.request_id, used(50), b"s")])
    house.clock.advance(30 * 86_400)
    await house.one.commit([Adjust(COLLEAGUE, str(uuid.uuid4()), hold.request_id, "", -20, 0, "half", b"a")])
    _, entries = await house.other.find(COLLEAGUE, hold.request_id)
    assert sorted(each.kind.name for each in entries) == ["ADJUST", "DISPATCH", "RESERVE", "SETTLE"]
