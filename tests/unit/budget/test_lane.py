"""The lane and the sweep, over a ledger that keeps its book in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from farthing_budget.book import Book
from farthing_budget.budgets import Balance, Limits, Terms
from farthing_budget.lane import Lane, Verdict
from farthing_budget.ledger import apply
from farthing_budget.operations import OPEN, Operation, Outcome, Reserve
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import BudgetExhausted, StoreUnavailable
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.sweep import sweep_once, sweeping
from farthing_core.clock import ManualClock
from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope
from farthing_runtime.batching import QueueFull

USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
BUDGET = Terms("acme", "b", USER.path, "", PeriodTerms(Period.MONTH, "UTC"), Limits(20))


class MemoryLedger:
    """Commits like the real one, one batch at a time, when it is let."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 3, 15, tzinfo=UTC))
        now = self.clock.now()
        self.balance = Balance(BUDGET.bounds(now)[1])
        self.book = Book(now, {}, {("acme", USER.path): [BUDGET]}, {BUDGET.balance_key(now): self.balance}, Sizer())
        self.open = asyncio.Event()
        self.open.set()
        self.batches: list[int] = []
        self.away = False

    async def commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        self.batches.append(len(operations))
        await self.open.wait()
        if self.away:
            raise StoreUnavailable
        self.book.now = self.clock.now()
        verdicts: list[Verdict] = []
        for operation in operations:
            try:
                verdicts.append(apply(self.book, operation))
            except FarthingError as error:
                verdicts.append(error)
        return verdicts

    async def lapsed(self, count_max: int) -> list[tuple[str, str]]:
        if self.away:
            raise StoreUnavailable
        late = [hold for hold in self.book.holds.values() if hold.state in OPEN and hold.expires_at <= self.clock.now()]
        return [(hold.scope, hold.request_id) for hold in late[:count_max]]


def lane_of(ledger: MemoryLedger, *, queue_size_max: int = 1_000) -> Lane:
    return Lane(ledger.commit, batch_size_max=512, queue_size_max=queue_size_max)


def reserve(number: int, *, ttl_s: int = 600) -> Reserve:
    return Reserve(USER, str(number), 1, 0, ttl_s, b"")


async def spin() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_together_goes_together_and_each_hears_its_own_verdict() -> None:
    ledger = MemoryLedger()
    async with lane_of(ledger).running() as lane:
        answers = await asyncio.gather(*(lane.submit(reserve(number)) for number in range(64)), return_exceptions=True)
    assert [isinstance(answer, Outcome) for answer in answers] == [True] * 20 + [False] * 44
    assert all(isinstance(answer, BudgetExhausted) for answer in answers[20:])
    assert len(ledger.batches) <= 2


async def test_a_caller_who_gave_up_does_not_break_the_batch() -> None:
    ledger = MemoryLedger()
    ledger.open.clear()
    async with lane_of(ledger).running() as lane:
        callers = [asyncio.create_task(lane.submit(reserve(number))) for number in range(3)]
        await spin()
        callers[1].cancel()
        await spin()
        ledger.open.set()
        first, given_up, last = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, Outcome)
    assert isinstance(given_up, asyncio.CancelledError)
    assert isinstance(last, Outcome)
    assert ledger.balance.held_usd_nanos == 3


async def test_a_full_queue_refuses_instead_of_growing() -> None:
    ledger = MemoryLedger()
    ledger.open.clear()
    async with lane_of(ledger, queue_size_max=2).running() as lane:
        first = asyncio.create_task(lane.submit(reserve(0)))
        await spin()
        waiting = [asyncio.create_task(lane.submit(reserve(number))) for number in (1, 2)]
        await spin()
        with pytest.raises(QueueFull) as caught:
            await lane.submit(reserve(3))
        assert caught.value.retry_after_s > 0
        ledger.open.set()
        await asyncio.gather(first, *waiting)
    assert ledger.balance.held_usd_nanos == 3


async def test_a_store_that_is_away_is_told_to_everybody_and_the_next_batch_goes_through() -> None:
    ledger = MemoryLedger()
    ledger.away = True
    async with lane_of(ledger).running() as lane:
        answers = await asyncio.gather(lane.submit(reserve(0)), lane.submit(reserve(1)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
        ledger.away = False
        assert isinstance(await lane.submit(reserve(0)), Outcome)


async def test_what_is_queued_at_the_end_is_still_committed() -> None:
    ledger = MemoryLedger()
    ledger.open.clear()
    async with lane_of(ledger).running() as lane:
        callers = [asyncio.create_task(lane.submit(reserve(number))) for number in range(5)]
        await spin()
        ledger.open.set()
    await asyncio.gather(*callers)
    assert ledger.balance.held_usd_nanos == 5


async def test_a_sweep_gives_back_what_is_late_in_one_batch() -> None:
    ledger = MemoryLedger()
    async with lane_of(ledger).running() as lane:
        await asyncio.gather(*(lane.submit(reserve(number, ttl_s=60 if number < 7 else 6_000)) for number in range(10)))
        ledger.batches.clear()
        assert await sweep_once(ledger.lapsed, lane) == 0
        ledger.clock.advance(60)
        assert await sweep_once(ledger.lapsed, lane) == 7
        assert len(ledger.batches) <= 2
        assert (ledger.balance.spent_usd_nanos, ledger.balance.held_usd_nanos) == (0, 3)
        assert await sweep_once(ledger.lapsed, lane) == 0


async def test_a_hold_that_cannot_lapse_does_not_keep_the_others_from_it() -> None:
    ledger = MemoryLedger()

    async def lapsed(count_max: int) -> list[tuple[str, str]]:
        return [(USER.path, "unknown"), *await ledger.lapsed(count_max)]

    async with lane_of(ledger).running() as lane:
        await asyncio.gather(*(lane.submit(reserve(number, ttl_s=1)) for number in range(2)))
        ledger.clock.advance(1)
        assert await sweep_once(lapsed, lane) == 2
    assert (ledger.balance.spent_usd_nanos, ledger.balance.held_usd_nanos) == (0, 0)


async def test_the_sweep_outlives_a_store_that_was_away() -> None:
    ledger = MemoryLedger()
    async with lane_of(ledger).running() as lane:
        await lane.submit(reserve(0, ttl_s=1))
        ledger.clock.advance(1)
        ledger.away = True
        async with sweeping(ledger.lapsed, lane, interval_s=0.001):
            await spin()
            ledger.away = False
            async with asyncio.timeout(10):
                while ledger.balance.held_usd_nanos:
                    await asyncio.sleep(0.001)
    assert ledger.balance.held_usd_nanos == 0
