"""The sixteen cases of money from the field: what users of other gateways report most, each with a test that fails where those failed.

1, 2, 5, 7 and 14 are shown here on the ledger. The others are shown where their subject is, under names that begin with `test_case_` and
the number; the last test here sees to it that none is missing, and `python tests/cases/test_money.py` prints where they are.
"""

from __future__ import annotations

import ast
import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_budget.budgets import Draft, Limits, Terms
from farthing_budget.lane import Lane
from farthing_budget.operations import Dispatch, Operation, Outcome, Release, Reserve, Reset, Settle, State
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.postgres import PostgresLedger, open_ledger
from farthing_budget.sweep import sweep_once
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope
from farthing_runtime.postgres import open_pool

TESTS = Path(__file__).parent.parent
CASES = {
    1: "many at once, room for a few",
    2: "holds leak",
    3: "worst cases starve",
    4: "an unpriced model",
    5: "Redis emptied",
    6: "every entry path is charged",
    7: "resets and late settlements",
    8: "alerts once, at the exact percent",
    9: "the database slow, gone or full",
    10: "cancelled and broken streams",
    11: "zero is not missing",
    12: "every kind of price",
    13: "kill -9 between any two steps",
    14: "batches priced at submit, settled once",
    15: "a cache hit costs nothing",
    16: "the provider's invoice",
}
ORGANIZATION = "organizations/acme"
USER = parse_scope(f"{ORGANIZATION}/workspaces/search/projects/ranker/users/ann")


async def budget(stub: Any, scope: str, usd_nanos: int) -> str:
    request = budget_pb2.CreateBudgetRequest(
        request_id=str(uuid.uuid4()), scope=scope, period=budget_pb2.PERIOD_MONTH, limit_usd_nanos=usd_nanos
    )
    return str((await stub.CreateBudget(request)).budget.budget_id)


async def figures(stub: Any, scope: str, budget_id: str) -> tuple[int, int]:
    """Spent and held."""
    found = (await stub.GetBudget(budget_pb2.GetBudgetRequest(scope=scope, budget_id=budget_id))).budget
    return found.spent_usd_nanos, found.held_usd_nanos


def reserving(stub: Any, scope: str, usd_nanos: int) -> Any:
    request = budget_pb2.ReserveBudgetRequest(request_id=str(uuid.uuid4()), scope=scope, amount_usd_nanos=usd_nanos)
    return stub.ReserveBudget(request, timeout=60.0)


@pytest.mark.parametrize("callers", [64, 1_000])
async def test_case_1_of_many_at_once_on_two_replicas_exactly_those_that_fit_are_admitted(suite: Any, callers: int) -> None:
    async with suite("budget") as one, suite("budget") as other:
        stubs = [budget_pb2_grpc.BudgetServiceStub(each.mesh.channel("budget")) for each in (one, other)]
        budget_id = await budget(stubs[0], ORGANIZATION, 20_000)
        # Everybody is somebody whom the ledger has never seen before.
        users = [f"{ORGANIZATION}/workspaces/w/projects/p/users/u{number}" for number in range(callers)]
        calls = [reserving(stubs[number % 2], user, 1_000) for number, user in enumerate(users)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert {each.code() for each in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert callers - len(refusals) == 20
        assert await figures(stubs[1], ORGANIZATION, budget_id) == (0, 20_000)


async def test_case_5_a_redis_that_is_emptied_changes_nothing_about_what_may_be_spent(suite: Any, redis_url: str) -> None:
    from redis.asyncio import Redis

    async with suite("budget", redis_url=redis_url) as one:
        stub = budget_pb2_grpc.BudgetServiceStub(one.mesh.channel("budget"))
        budget_id = await budget(stub, ORGANIZATION, 1_000)
        await reserving(stub, USER.path, 600)
        client = Redis.from_url(redis_url)
        await client.flushall()
        await client.aclose()
        # Replicas that come up now have nobody to ask but the ledger.
        async with AsyncExitStack() as stack:
            replicas = [await stack.enter_async_context(suite("budget", redis_url=redis_url)) for _ in range(3)]
            stubs = [stub, *(budget_pb2_grpc.BudgetServiceStub(each.mesh.channel("budget")) for each in replicas)]
            for each in stubs:
                assert await figures(each, ORGANIZATION, budget_id) == (0, 600)
            answers = await asyncio.gather(*(reserving(each, USER.path, 300) for each in stubs), return_exceptions=True)
            assert sum(isinstance(each, grpc.aio.AioRpcError) for each in answers) == 3
            assert await figures(stub, ORGANIZATION, budget_id) == (0, 900)


async def test_case_14_a_batch_is_priced_when_it_is_submitted_and_settled_once(suite: Any) -> None:
    async with suite("budget") as running:
        stub = budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))
        budget_id = await budget(stub, ORGANIZATION, 1_000)
        ids = [str(uuid.uuid4()) for _ in range(12)]
        reserves = [
            budget_pb2.ReserveBudgetRequest(request_id=each, scope=USER.path, amount_usd_nanos=100, ttl_s=86_400)
            for each in ids
        ]
        submitted = budget_pb2.BatchReserveRequest(
            operations=[budget_pb2.ReservationOperation(reserve=each) for each in reserves]
        )
        # What does not fit is refused at submit, by the price of submit; the rest of the batch is not.
        for repeats in (False, True):
            results = (await stub.BatchReserve(submitted)).results
            assert [each.reason for each in results] == [""] * 10 + ["BUDGET_EXHAUSTED"] * 2
            assert [each.repeated for each in results[:10]] == [repeats] * 10
        assert await figures(stub, ORGANIZATION, budget_id) == (0, 1_000)

        def settled(cost: int) -> Any:
            line = budget_pb2.UsageLine(model="m", provider="p", cost_usd_nanos=cost, service_tier="batch")
            usage = budget_pb2.UsageRecord(lines=[line])
            ends = [budget_pb2.SettleReservationRequest(request_id=each, scope=USER.path, usage=usage) for each in ids[:10]]
            operations = [budget_pb2.ReservationOperation(settle=each) for each in ends]
            return stub.BatchReserve(budget_pb2.BatchReserveRequest(operations=operations))

        # The provider's results are fetched again and again; they count once, and what differs is refused instead of charged.
        for cost, reason in ((50, ""), (50, ""), (49, "REQUEST_ID_REUSED")):
            assert {each.reason for each in (await settled(cost)).results} == {reason}
            assert await figures(stub, ORGANIZATION, budget_id) == (500, 0)
        found = (await stub.GetReservation(budget_pb2.GetReservationRequest(request_id=ids[0], scope=USER.path))).reservation
        assert (found.authorized_usd_nanos, found.settled_usd_nanos) == (100, 50)


@dataclass
class Books:
    """A ledger whose clock is turned by hand."""

    clock: ManualClock
    ledger: PostgresLedger
    budgets: PostgresBudgets
    journal: PostgresJournal
    limits: list[str] = field(default_factory=list)

    async def limit(self, terms: PeriodTerms, usd_nanos: int, scope: str = ORGANIZATION) -> str:
        budget_id = str(uuid.uuid4())
        made = Terms("acme", budget_id, scope, "", terms, Limits(usd_nanos))
        await self.budgets.create(Draft(made, budget_id, b"", self.clock.now()))
        return budget_id

    async def one(self, operation: Operation) -> Any:
        (verdict,) = await self.ledger.commit([operation])
        return verdict

    async def stands(self, budget_id: str) -> tuple[int, int]:
        """Spent and held in the present period."""
        balance = (await self.budgets.get("acme", budget_id)).balance
        return balance.spent_usd_nanos, balance.held_usd_nanos


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    async with open_pool(database_url, schema="budget", size_max=4) as pool, open_ledger(pool, clock) as ledger:
        yield Books(clock, ledger, PostgresBudgets(pool, clock), PostgresJournal(pool))


def hold(usd_nanos: int, *, ttl_s: int = 600, dispatch: bool = False) -> Reserve:
    return Reserve(USER, str(uuid.uuid4()), usd_nanos, 0, ttl_s, b"r", dispatch=dispatch)


def settle(reserve: Reserve, cost: int) -> Settle:
    line = UsageLine("m", "p", "d", 0, 0, 0, cost, "accepted", False)
    return Settle(USER, reserve.request_id, UsageRecord("", (line,), cost, Saving()), b"s")


async def test_case_2_every_end_ends_a_hold_once_and_without_traffic_nothing_is_held(books: Books) -> None:
    budget_id = await books.limit(PeriodTerms(Period.YEAR, "UTC"), 1_000)
    succeeds, fails, is_cancelled, crashes, times_out = (hold(100) for _ in range(5))
    await books.ledger.commit([succeeds, fails, is_cancelled, crashes, times_out])
    await books.ledger.commit([Dispatch(USER, each.request_id) for each in (succeeds, times_out)])
    ends: list[Operation] = [settle(succeeds, 30), Release(USER, fails.request_id), Release(USER, is_cancelled.request_id)]
    for _ in range(2):
        assert all(isinstance(each, Outcome) for each in await books.ledger.commit(ends))
    assert await books.stands(budget_id) == (30, 200)
    books.clock.advance(601)
    async with Lane(books.ledger.commit, batch_size_max=10, queue_size_max=100).running() as lane:
        assert await sweep_once(books.ledger.lapsed, lane) == 2
        assert await sweep_once(books.ledger.lapsed, lane) == 0
    # Whom nobody called costs nothing; what a provider may have billed counts as spent until somebody knows better.
    assert await books.stands(budget_id) == (130, 0)
    assert isinstance(await books.one(settle(times_out, 20)), Outcome)
    assert await books.stands(budget_id) == (50, 0)
    # Nearly nothing is spent, so nearly everything may be.
    assert isinstance(await books.one(hold(950)), Outcome)
    assert (await books.journal.verify("acme")).differences == ()


_PERIODS = {
    "a day in New York on which clocks go forward": (
        PeriodTerms(Period.DAY, "America/New_York"),
        "2026-03-08T05:00:00",
        "2026-03-09T04:00:00",
    ),
    "a day in Berlin on which clocks go back": (
        PeriodTerms(Period.DAY, "Europe/Berlin"),
        "2026-10-24T22:00:00",
        "2026-10-25T23:00:00",
    ),
    "the month of a leap day": (PeriodTerms(Period.MONTH, "UTC"), "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    "the leap day": (PeriodTerms(Period.DAY, "Asia/Kolkata"), "2028-02-28T18:30:00", "2028-02-29T18:30:00"),
    "a fiscal year from April": (
        PeriodTerms(Period.YEAR, "UTC", start_month=4),
        "2026-04-01T00:00:00",
        "2027-04-01T00:00:00",
    ),
    "a fiscal quarter from the 15th of February": (
        PeriodTerms(Period.QUARTER, "UTC", start_month=2, start_day=15),
        "2026-02-15T00:00:00",
        "2026-05-15T00:00:00",
    ),
    "a week from Monday": (PeriodTerms(Period.WEEK, "UTC"), "2026-03-02T00:00:00", "2026-03-09T00:00:00"),
}


@pytest.mark.parametrize("name", _PERIODS)
async def test_case_7_a_period_ends_to_the_second_on_every_level_and_what_settles_late_lands_in_its_own(
    books: Books, name: str
) -> None:
    terms, begins, ends = _PERIODS[name]
    end = datetime.fromisoformat(ends).replace(tzinfo=UTC)
    books.clock.jump(datetime.fromisoformat(begins).replace(tzinfo=UTC))
    levels = [await books.limit(terms, 100, scope) for scope in USER.ancestors]

    async def all_stand_at(spent: int, held: int) -> None:
        assert [await books.stands(each) for each in levels] == [(spent, held)] * 4

    books.clock.jump(end - timedelta(seconds=1))
    late = hold(100, dispatch=True)
    assert isinstance(await books.one(late), Outcome)
    assert not isinstance(await books.one(hold(1)), Outcome)
    books.clock.jump(end)
    await all_stand_at(0, 0)
    fresh = hold(100)
    assert isinstance(await books.one(fresh), Outcome)
    await books.one(settle(late, 250))
    await all_stand_at(0, 100)
    await books.one(settle(fresh, 40))
    await all_stand_at(40, 0)
    assert (await books.journal.verify("acme")).differences == ()


async def test_case_7_a_window_forgets_what_was_spent_when_it_has_left_it_and_not_before(books: Books) -> None:
    budget_id = await books.limit(PeriodTerms(Period.ROLLING, "UTC", window_s=86_400), 100)
    early = hold(100)
    await books.one(early)
    await books.one(settle(early, 100))
    books.clock.advance(86_400)
    assert not isinstance(await books.one(hold(1)), Outcome)
    books.clock.advance(3_600)
    assert isinstance(await books.one(hold(100)), Outcome)
    assert await books.stands(budget_id) == (0, 100)


async def test_case_7_a_reset_wipes_neither_holds_nor_suspense_nor_what_is_spent_afterwards(books: Books) -> None:
    budget_id = await books.limit(PeriodTerms(Period.YEAR, "UTC"), 1_000)
    done, under_way, unknown = hold(300), hold(200), hold(100, ttl_s=60, dispatch=True)
    await books.ledger.commit([done, under_way, unknown])
    await books.one(settle(done, 300))
    books.clock.advance(61)
    async with Lane(books.ledger.commit, batch_size_max=10, queue_size_max=100).running() as lane:
        assert await sweep_once(books.ledger.lapsed, lane) == 1
    assert await books.stands(budget_id) == (400, 200)
    assert isinstance(await books.one(Reset(USER, str(uuid.uuid4()), budget_id, "new terms", b"z")), Outcome)
    assert await books.stands(budget_id) == (100, 200)
    await books.one(settle(under_way, 150))
    verdict = await books.one(settle(unknown, 70))
    assert verdict.hold.state is State.SETTLED
    assert await books.stands(budget_id) == (220, 0)
    assert (await books.journal.verify("acme")).differences == ()


def shown() -> dict[int, list[str]]:
    """The tests of each case, by file and name."""
    found: dict[int, list[str]] = {number: [] for number in CASES}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = re.match(r"test_case_(\d+)_", node.name) if isinstance(node, kinds) else None
            if named is not None and int(named[1]) in found:
                found[int(named[1])].append(f"{path.relative_to(TESTS)}: {node.name}")  # type: ignore[union-attr]
    return found


def test_every_case_of_money_has_a_test_of_its_name() -> None:
    assert [number for number, tests in shown().items() if not tests] == []


_Line = Callable[[str], None]


def _print(line: _Line = print) -> None:
    for number, tests in shown().items():
        line(f"{number:2d}  {CASES[number]}")
        for each in tests:
            line(f"      {each}")


if __name__ == "__main__":
    _print()
