"""What every ledger store promises, shown on the real Postgres: exact under races, whole after a crash, right after a repeat."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from farthing_budget.budgets import Budget, Change, Draft, Limits, LimitTerms, Terms
from farthing_budget.lane import Lane, Verdict
from farthing_budget.operations import Dispatch, Lapse, Operation, Outcome, Record, Release, Reserve, Settle, State
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.questions import Group, UsageQuestion
from farthing_budget.refusals import (
    BudgetExhausted,
    BudgetExists,
    BudgetNotFound,
    RequestIdReused,
    ReservationNotFound,
    ReservationReleased,
    ReservationSettled,
    StoreUnavailable,
    VersionMismatch,
)
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.connection import LaneConnection
from farthing_budget.store.postgres import PostgresLedger, open_ledger
from farthing_budget.store.statements import LOCK_BALANCES, LOCK_HOLDS, TERMS, UPDATE_HOLDS, WRITE_BALANCES
from farthing_budget.store.usage import PostgresUsage
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import Scope, parse_scope
from farthing_runtime.postgres import open_pool

USER = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann")
COLLEAGUE = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/bob")
ORGANIZATION = parse_scope("organizations/acme")
START = datetime(2026, 3, 15, 12, tzinfo=UTC)


class House:
    """Two ledgers as two processes would have them, each with a pool of its own, on one database and one clock."""

    def __init__(self, clock: ManualClock, pools: Sequence[asyncpg.Pool], ledgers: Sequence[PostgresLedger]) -> None:
        self.clock = clock
        self.pool = pools[0]
        self.one, self.other = ledgers
        self.budgets = PostgresBudgets(pools[1], clock)
        self.usage = PostgresUsage(pools[1])

    async def budget(self, scope: Scope, usd: int | None, tokens: int | None = None, period: Period = Period.MONTH) -> Budget:
        terms = Terms("acme", str(uuid.uuid4()), scope.path, "", PeriodTerms(period, "UTC"), Limits(usd, tokens))
        return await self.budgets.create(Draft(terms, str(uuid.uuid4()), b"body", self.clock.now()))

    async def balance(self, budget: Budget) -> tuple[int, int]:
        found = (await self.budgets.get("acme", budget.terms.budget_id)).balance
        return found.spent_usd_nanos, found.held_usd_nanos

    async def count(self, table: str) -> int:
        counted: int = await self.pool.fetchval(f"SELECT count(*) FROM {table}")
        return counted


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    clock = ManualClock(START)
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=4)) for _ in range(2)]
        ledgers = [await stack.enter_async_context(open_ledger(pool, clock)) for pool in pools]
        yield House(clock, pools, ledgers)


def reserve(usd: int, *, request_id: str = "", scope: Scope = USER, tokens: int = 0, ttl_s: int = 600) -> Reserve:
    return Reserve(scope, request_id or str(uuid.uuid4()), usd, tokens, ttl_s, f"{usd}/{tokens}".encode())


def used(cost: int, *, model: str = "large", outcome: str = "accepted") -> UsageRecord:
    return UsageRecord("chat", (UsageLine(model, "p", "d", 100, 0, 20, cost, outcome, False),), cost, Saving())


def settle(hold: Reserve, cost: int, *, model: str = "large") -> Settle:
    return Settle(hold.scope, hold.request_id, used(cost, model=model), f"{cost}".encode())


async def one_verdict(ledger: PostgresLedger, operation: Operation) -> Outcome:
    (verdict,) = await ledger.commit([operation])
    if isinstance(verdict, BaseException):
        raise verdict
    return verdict


def granted(verdicts: Sequence[Verdict]) -> int:
    assert all(isinstance(each, Outcome | BudgetExhausted) for each in verdicts)
    return sum(isinstance(each, Outcome) for each in verdicts)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what another connection does."""
    for _ in range(2_000):
        if await holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited for 10 s in vain")


@asynccontextmanager
async def outsider(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that belongs to nobody here."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "budget,public"})
    try:
        yield connection
    finally:
        await connection.close()


_WAITING = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'
"""


async def waiting(connection: asyncpg.Connection, count: int = 1) -> list[int]:
    """The connections that wait for a lock, once there are so many."""
    found: list[int] = []

    async def enough() -> bool:
        found[:] = [row["pid"] for row in await connection.fetch(_WAITING)]
        return len(found) >= count

    await eventually(enough)
    return found


async def test_two_ledgers_grant_exactly_the_20_of_64_that_fit(house: House) -> None:
    budgets = [await house.budget(parse_scope(path), 20_000) for path in USER.ancestors]
    async with AsyncExitStack() as stack:
        lanes = [
            await stack.enter_async_context(Lane(ledger.commit, batch_size_max=7, queue_size_max=100).running())
            for ledger in (house.one, house.other)
        ]
        calls = [lanes[number % 2].submit(reserve(1_000)) for number in range(64)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert granted(answers) == 20
    assert [await house.balance(each) for each in budgets] == [(0, 20_000)] * 4
    assert await house.count("reservations") == 20


async def test_ledgers_that_name_the_same_rows_in_opposite_orders_lose_nothing(house: House) -> None:
    mine, its = await house.budget(USER, 10**9), await house.budget(COLLEAGUE, 10**9)
    holds = [reserve(1, scope=scope) for _ in range(10) for scope in (USER, COLLEAGUE)]
    await house.one.commit(holds)
    for turn in range(10):
        pair = holds[2 * turn], holds[2 * turn + 1]
        forth = [reserve(1, scope=USER), reserve(1, scope=COLLEAGUE), settle(pair[0], 5), settle(pair[1], 7)]
        back = [settle(pair[1], 7), settle(pair[0], 5), reserve(1, scope=COLLEAGUE), reserve(1, scope=USER)]
        for verdicts in await asyncio.gather(house.one.commit(forth), house.other.commit(back)):
            assert all(isinstance(each, Outcome) for each in verdicts)
    assert await house.balance(mine) == (50, 20)
    assert await house.balance(its) == (70, 20)
    assert await house.count("usage") == 20


async def test_the_same_request_on_two_ledgers_is_one_hold(house: House) -> None:
    budget = await house.budget(USER, 10_000)
    for _ in range(10):
        same = reserve(100)
        answers = await asyncio.gather(one_verdict(house.one, same), one_verdict(house.other, same))
        assert sorted(answer.repeated for answer in answers) == [False, True]
        assert answers[0].hold == answers[1].hold
    assert await house.balance(budget) == (0, 1_000)


async def test_two_bodies_under_one_id_on_two_ledgers_are_one_hold_and_one_refusal(house: House) -> None:
    budget = await house.budget(USER, 10_000)
    for turn in range(10):
        first = reserve(100)
        second = replace(first, body_hash=b"another")
        answers = await asyncio.gather(house.one.commit([first]), house.other.commit([second]))
        kinds = {type(verdict) for verdicts in answers for verdict in verdicts}
        assert kinds == {Outcome, RequestIdReused}
        assert await house.balance(budget) == (0, 100 * (turn + 1))


async def test_a_settlement_races_a_release_and_one_of_them_ends_the_hold(house: House) -> None:
    budget = await house.budget(USER, 10_000)
    spent = 0
    for _ in range(10):
        hold = reserve(100)
        await house.one.commit([hold])
        (settled,), (released,) = await asyncio.gather(
            house.one.commit([settle(hold, 30)]), house.other.commit([Release(USER, hold.request_id)])
        )
        if isinstance(settled, Outcome):
            assert isinstance(released, ReservationSettled)
            spent += 30
        else:
            assert isinstance(settled, ReservationReleased)
            assert isinstance(released, Outcome)
    assert await house.balance(budget) == (spent, 0)


async def test_a_repeat_gives_the_same_answer_though_the_budget_is_full_now(house: House) -> None:
    budget = await house.budget(USER, 100)
    hold = reserve(100)
    first = await one_verdict(house.one, hold)
    again = await one_verdict(house.other, hold)
    assert (again.repeated, again.hold) == (True, first.hold)
    crowd = await house.one.commit([reserve(1), hold, reserve(1), replace(hold, body_hash=b"another")])
    assert [type(verdict) for verdict in crowd] == [BudgetExhausted, Outcome, BudgetExhausted, RequestIdReused]
    assert await house.balance(budget) == (0, 100)


async def test_a_repeat_among_new_requests_takes_no_room_from_them(house: House) -> None:
    budget = await house.budget(USER, 100)
    hold = reserve(60)
    await house.one.commit([hold])
    verdicts = await house.other.commit([hold, reserve(40), hold, reserve(1)])
    assert [type(verdict) for verdict in verdicts] == [Outcome, Outcome, Outcome, BudgetExhausted]
    assert await house.balance(budget) == (0, 100)


async def test_a_refused_request_is_not_remembered(house: House) -> None:
    budget = await house.budget(USER, 100)
    blocker, late = reserve(100), reserve(50)
    assert granted(await house.one.commit([blocker, late])) == 1
    await house.one.commit([Release(USER, blocker.request_id)])
    assert not (await one_verdict(house.one, late)).repeated
    assert await house.balance(budget) == (0, 50)


@pytest.mark.parametrize("table", ["reservations", "usage", "usage_sums"])
async def test_a_connection_killed_between_two_statements_leaves_nothing_half_done(
    house: House, database_url: str, table: str
) -> None:
    budgets = [await house.budget(parse_scope(path), 1_000) for path in USER.ancestors]
    held, new = reserve(100), reserve(10)
    await house.one.commit([held])
    batch: list[Operation] = [settle(held, 70)] if table != "reservations" else [new]
    async with outsider(database_url) as intruder, outsider(database_url) as observer, intruder.transaction():
        # Whoever wants to write this table waits here, with its balances written and nothing committed.
        await intruder.execute(f"LOCK TABLE {table} IN SHARE MODE")
        caller = asyncio.create_task(house.one.commit(batch))
        for _ in range(2):  # the ledger tries a broken connection once more, so it takes two kills to stop it
            (pid,) = await waiting(observer)
            await observer.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        with pytest.raises(StoreUnavailable):
            await caller
    assert [await house.balance(each) for each in budgets] == [(0, 100)] * 4
    assert (await house.count("usage"), await house.count("usage_sums"), await house.count("reservations")) == (0, 0, 1)
    assert [type(verdict) for verdict in await house.one.commit(batch)] == [Outcome]
    assert await house.balance(budgets[0]) == ((70, 0) if table != "reservations" else (0, 110))


async def test_one_broken_connection_is_not_noticed_by_the_caller(house: House, database_url: str) -> None:
    budget = await house.budget(USER, 1_000)
    await house.one.commit([reserve(1)])
    async with outsider(database_url) as intruder:
        await intruder.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1",
            intruder.get_server_pid(),
        )
    assert granted(await house.one.commit([reserve(10)])) == 1
    assert await house.balance(budget) == (0, 11)


async def test_a_caller_who_is_cancelled_leaves_the_ledger_working(house: House, database_url: str) -> None:
    budget = await house.budget(USER, 1_000)
    await house.one.commit([reserve(1)])
    async with outsider(database_url) as intruder, outsider(database_url) as observer, intruder.transaction():
        await intruder.execute("LOCK TABLE reservations IN SHARE MODE")
        caller = asyncio.create_task(house.one.commit([reserve(10)]))
        await waiting(observer)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert granted(await house.one.commit([reserve(100)])) == 1
    await eventually(lambda: _is(house, budget, (0, 101)))


async def _is(house: House, budget: Budget, expected: tuple[int, int]) -> bool:
    return await house.balance(budget) == expected


async def test_a_limit_lowered_while_a_batch_waits_for_its_locks_is_kept(house: House, database_url: str) -> None:
    budget = await house.budget(USER, 100)
    await house.one.commit([reserve(10)])
    async with outsider(database_url) as other_process, outsider(database_url) as observer:
        async with other_process.transaction():
            await other_process.execute("SELECT FROM balances FOR UPDATE")
            caller = asyncio.create_task(house.one.commit([reserve(50)]))
            await waiting(observer)
            await other_process.execute("UPDATE budgets SET limit_usd_nanos = 59, version = version + 1")
        assert granted(await caller) == 0
    assert await house.balance(budget) == (0, 10)


async def test_a_change_of_limits_waits_for_the_batches_that_reckon_with_the_old_ones(house: House, database_url: str) -> None:
    budget = await house.budget(USER, 100)
    await house.one.commit([reserve(10)])
    change = Change(frozenset({"limit_usd_nanos"}), "", Limits(20), LimitTerms(), 0)
    async with outsider(database_url) as other_process, outsider(database_url) as observer:
        async with other_process.transaction():
            await other_process.execute("SELECT FROM balances FOR UPDATE")
            changing = asyncio.create_task(house.budgets.update("acme", budget.terms.budget_id, change))
            await waiting(observer)
            assert not changing.done()
        assert (await changing).terms.limits.usd_nanos == 20
    assert [granted(await house.one.commit([reserve(usd)])) for usd in (11, 10)] == [0, 1]


async def test_an_operation_that_the_database_will_not_take_does_not_take_the_others_down(house: House) -> None:
    budget = await house.budget(USER, 10_000)
    holds = [reserve(100) for _ in range(9)]
    await house.one.commit(holds)
    batch: list[Operation] = [settle(hold, 10, model="bad\x00" if number == 5 else "m") for number, hold in enumerate(holds)]
    verdicts = await house.one.commit(batch)
    assert [type(verdict) for verdict in verdicts] == [Outcome] * 5 + [FieldInvalid] + [Outcome] * 3
    assert await house.balance(budget) == (80, 100)
    assert await house.count("usage") == 8


async def test_sums_that_would_overflow_are_refused_alone(house: House) -> None:
    holds = [reserve(0), reserve(0)]
    await house.one.commit([*holds, reserve(0)])
    await house.one.commit([settle(holds[0], 1)])
    await house.pool.execute("UPDATE usage_sums SET input_tokens = 9223372036854775807 WHERE rollup = 1")
    (refused,) = await house.one.commit([settle(holds[1], 1)])
    assert isinstance(refused, FieldInvalid)
    assert [type(each) for each in await house.one.commit([settle(holds[1], 1, model="small")])] == [Outcome]


async def test_a_settlement_lands_in_the_period_of_its_reservation(house: House) -> None:
    budget = await house.budget(USER, 100, period=Period.DAY)
    yesterday = reserve(100)
    await house.one.commit([yesterday])
    house.clock.advance(86_400)
    await house.one.commit([reserve(30)])
    await house.one.commit([settle(yesterday, 70)])
    assert await house.balance(budget) == (0, 30)
    rows = await house.pool.fetch("SELECT period_start, spent_usd_nanos, held_usd_nanos FROM balances ORDER BY period_start")
    midnight = START.replace(hour=0)
    assert [tuple(row) for row in rows] == [(midnight, 70, 0), (midnight + timedelta(days=1), 0, 30)]


async def test_a_hold_of_a_deleted_budget_settles_and_the_next_is_not_limited_by_it(house: House) -> None:
    budget = await house.budget(USER, 100)
    hold = reserve(100)
    await house.one.commit([hold])
    await house.budgets.delete("acme", budget.terms.budget_id)
    assert (await one_verdict(house.one, settle(hold, 170))).hold.settled_usd_nanos == 170
    assert granted(await house.one.commit([reserve(10**6)])) == 1
    with pytest.raises(BudgetNotFound):
        await house.budgets.get("acme", budget.terms.budget_id)


async def test_what_is_late_is_found_oldest_first_and_lapses_once(house: House) -> None:
    budget = await house.budget(USER, 1_000)
    holds = [reserve(100, ttl_s=ttl_s) for ttl_s in (30, 10, 20, 600)]
    await house.one.commit([*holds, Dispatch(USER, holds[1].request_id)])
    assert await house.one.lapsed(10) == []
    house.clock.advance(30)
    late = await house.one.lapsed(10)
    assert late == [(USER.path, holds[number].request_id) for number in (1, 2, 0)]
    assert await house.one.lapsed(2) == late[:2]
    lapses = [Lapse(USER, request_id) for _, request_id in late]
    await asyncio.gather(house.one.commit(lapses), house.other.commit(lapses))
    assert await house.balance(budget) == (100, 100)  # the one whose provider was called is in suspense
    assert await house.one.lapsed(10) == []
    assert (await one_verdict(house.one, settle(holds[0], 40))).hold.state is State.SETTLED
    assert await house.balance(budget) == (140, 100)
    assert (await one_verdict(house.one, settle(holds[1], 70))).hold.state is State.SETTLED
    assert await house.balance(budget) == (110, 100)


async def test_an_unknown_hold_is_not_found(house: House) -> None:
    (verdict,) = await house.one.commit([settle(reserve(1), 1)])
    assert isinstance(verdict, ReservationNotFound)
    elsewhere = replace(reserve(1), scope=parse_scope("organizations/other"))
    await house.one.commit([elsewhere])
    (verdict,) = await house.one.commit([Settle(ORGANIZATION, elsewhere.request_id, used(1), b"")])
    assert isinstance(verdict, ReservationNotFound)


async def test_usage_keeps_every_attempt_and_books_the_request_once(house: House) -> None:
    hold = reserve(100)
    lines = (
        UsageLine("small", "p", "d", 10, 1, 2, 3, "rejected", False),
        UsageLine("large", "q", "e", 20, 2, 4, 50, "accepted", True),
    )
    record = UsageRecord("chat", lines, 90, Saving(0, 7, 30))
    await house.one.commit([hold, Settle(USER, hold.request_id, record, b"")])
    await house.one.commit([Settle(USER, hold.request_id, record, b"")])
    raw = await house.pool.fetch(
        "SELECT line, model, outcome, estimated, cost_usd_nanos, baseline_usd_nanos FROM usage ORDER BY 1"
    )
    assert [tuple(row) for row in raw] == [(0, "small", "rejected", False, 3, 0), (1, "large", "accepted", True, 50, 90)]
    asked = UsageQuestion("organizations/acme", START - timedelta(hours=1), START + timedelta(hours=1), (Group.MODEL,), 10)
    sums = {each.keys[0]: each for each in await house.usage.sums(asked)}
    assert (sums["small"].requests, sums["small"].attempts, sums["small"].cost_usd_nanos) == (0, 1, 3)
    assert (sums["large"].requests, sums["large"].baseline_usd_nanos, sums["large"].saving) == (1, 90, Saving(0, 7, 30))


async def test_random_work_on_two_ledgers_ends_where_a_model_says(house: House) -> None:
    rng = random.Random(20260315)
    budget = await house.budget(ORGANIZATION, 3_000)
    open_holds: dict[str, Reserve] = {}
    spent = held = 0
    for _ in range(40):
        ending = rng.sample(sorted(open_holds), k=min(len(open_holds), rng.randrange(4)))
        begun = [reserve(rng.randrange(200), scope=rng.choice((USER, COLLEAGUE))) for _ in range(rng.randrange(5))]
        costs = {request_id: rng.randrange(250) if rng.random() < 0.7 else None for request_id in ending}
        batches: tuple[list[Operation], list[Operation]] = ([], [])
        for hold in begun:
            rng.choice(batches).append(hold)
        for request_id, cost in costs.items():
            hold = open_holds[request_id]
            end = Release(hold.scope, request_id) if cost is None else settle(hold, cost)
            for ledger_batch in batches if rng.random() < 0.3 else (rng.choice(batches),):
                ledger_batch.append(end)
        done = await asyncio.gather(house.one.commit(batches[0]), house.other.commit(batches[1])) if any(batches) else ()
        for operations, verdicts in zip(batches, done, strict=False):
            for operation, verdict in zip(operations, verdicts, strict=True):
                if isinstance(operation, Reserve) and isinstance(verdict, Outcome):
                    open_holds[operation.request_id] = operation
                    held += operation.amount_usd_nanos
        for request_id, cost in costs.items():
            held -= open_holds.pop(request_id).amount_usd_nanos
            spent += cost or 0
        assert await house.balance(budget) == (spent, held)
    assert spent > 3_000  # the limit was reached, so that refusals were part of this
    total = await house.pool.fetchval("SELECT sum(cost_usd_nanos)::bigint FROM usage_sums WHERE rollup = 1")
    assert total == spent == await house.pool.fetchval("SELECT sum(cost_usd_nanos)::bigint FROM usage")


async def test_the_same_request_for_a_budget_gives_the_same_budget(house: House) -> None:
    terms = Terms("acme", "b1", USER.path, "", PeriodTerms(Period.DAY, "UTC"), Limits(5))
    draft = Draft(terms, str(uuid.uuid4()), b"body", START)
    made = await asyncio.gather(
        *(house.budgets.create(replace(draft, terms=replace(terms, budget_id=f"b{n}"))) for n in range(5))
    )
    assert len({each.terms.budget_id for each in made}) == 1
    with pytest.raises(RequestIdReused):
        await house.budgets.create(replace(draft, body_hash=b"another"))
    with pytest.raises(BudgetExists):
        await house.budgets.create(replace(draft, request_id=str(uuid.uuid4())))
    await house.budgets.delete("acme", made[0].terms.budget_id)
    with pytest.raises(BudgetNotFound):
        await house.budgets.create(draft)


async def test_racing_changes_of_one_version_are_made_once(house: House) -> None:
    budget = await house.budget(USER, 100)
    changes = [Change(frozenset({"limit_usd_nanos"}), "", Limits(100 + number), LimitTerms(), 1) for number in range(4)]
    answers = await asyncio.gather(
        *(house.budgets.update("acme", budget.terms.budget_id, change) for change in changes), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Budget"] + ["VersionMismatch"] * 3
    assert VersionMismatch in {type(answer) for answer in answers}
    assert (await house.budgets.get("acme", budget.terms.budget_id)).version == 2


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (LOCK_HOLDS, [["acme"], [str(uuid.uuid4())]]),
        (TERMS, [["acme"], [USER.path]]),
        (LOCK_BALANCES, [["acme"], ["b"], [START]]),
        (WRITE_BALANCES, [["acme"], ["b"], [START], *[[1]] * 8, [1.0], [START], [b""]]),
        (UPDATE_HOLDS, [["acme"], [str(uuid.uuid4())], [2], [1], [1], [1], [START], [1], [1], [b""], [""], [b""]]),
    ],
)
async def test_no_statement_of_a_batch_reads_a_whole_table(house: House, statement: str, arguments: list[Any]) -> None:
    lane_connection = LaneConnection(house.pool)
    try:
        async with lane_connection.transaction() as connection:
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *arguments))
    finally:
        await lane_connection.close()
    assert "Index Scan" in plan
    assert "Seq Scan" not in plan


async def test_a_connection_that_is_given_back_plans_like_any_other(house: House) -> None:
    lane_connection = LaneConnection(house.pool)
    async with lane_connection.transaction() as connection:
        assert await connection.fetchval("SHOW enable_seqscan") == "off"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await lane_connection.close()
    assert await house.pool.fetchval("SHOW enable_seqscan") == "on"


async def test_records_are_written_once_and_charged_beyond_the_limit(house: House) -> None:
    budget = await house.budget(USER, 100)
    record = Record(USER, str(uuid.uuid4()), used(150), b"body")
    answers = await asyncio.gather(one_verdict(house.one, record), one_verdict(house.other, record))
    assert sorted(answer.repeated for answer in answers) == [False, True]
    assert await house.balance(budget) == (150, 0)
    assert await house.count("usage") == 1
