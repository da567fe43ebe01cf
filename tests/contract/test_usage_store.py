"""What the usage store promises, shown on the real Postgres: the roll-ups say what the rows say, whatever is asked, and alone suffice."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import asyncpg
import pytest
from farthing_budget.causes import Cause
from farthing_budget.exports import ExportQuestion
from farthing_budget.invoices import Invoice, InvoiceLine, Suspended
from farthing_budget.operations import Adjust, Lapse, Operation, Outcome, Record, Reserve, Settle, Sizing
from farthing_budget.questions import EVERYTHING, Group, UsageFilter, UsageQuestion, UsageSum
from farthing_budget.reconciling import Known, compare
from farthing_budget.reports import AllocationQuestion, allocatable
from farthing_budget.rollups import ROLLUPS
from farthing_budget.store.exports import PostgresExports
from farthing_budget.store.invoices import PostgresInvoices
from farthing_budget.store.postgres import PostgresLedger, open_ledger
from farthing_budget.store.usage import PostgresUsage
from farthing_budget.usage import Saving, Source, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope
from farthing_runtime.postgres import open_pool

ACME = "organizations/acme"
START = datetime(2026, 3, 14, 21, tzinfo=UTC)
SCOPES = [
    ACME,
    f"{ACME}/workspaces/search",
    f"{ACME}/workspaces/search/projects/ranker",
    f"{ACME}/workspaces/search/projects/ranker/users/ann",
    f"{ACME}/workspaces/search/projects/ranker/users/bob@x",
    f"{ACME}/workspaces/ads/projects/ranker/users/ann",
]


@dataclass(frozen=True)
class Written:
    """One request as the test remembers it."""

    scope: str
    at: datetime
    record: UsageRecord


class House:
    """Two ledgers on one database and one clock, and all that they wrote down."""

    def __init__(self, clock: ManualClock, pool: asyncpg.Pool, ledgers: Sequence[PostgresLedger]) -> None:
        self.clock, self.pool, self.ledgers = clock, pool, ledgers
        self.usage = PostgresUsage(pool)
        self.written: list[Written] = []

    async def write(self, records: Iterable[tuple[str, UsageRecord]], *, on: int = 0) -> None:
        operations: list[Operation] = []
        for scope, record in records:
            operations.append(Record(parse_scope(scope), str(uuid.uuid4()), record, b""))
            self.written.append(Written(scope, self.clock.now(), record))
        for verdict in await self.ledgers[on].commit(operations):
            assert isinstance(verdict, Outcome), verdict

    def expected(self, question: UsageQuestion) -> dict[tuple[str, ...], list[int]]:
        """What the rows say: requests, attempts, input tokens, cost, saved and estimated attempts by keys."""
        found: dict[tuple[str, ...], list[int]] = {}
        for each in self.written:
            inside = each.scope == question.scope or each.scope.startswith(f"{question.scope}/")
            if not inside or not question.start <= each.at < question.end:
                continue
            for _, line, carries in each.record.attempts():
                if all(value_of(each, line, name) == value for name, value in question.only.given()):
                    for keys in keys_of(each, line, question.groups):
                        added = (carries, 1, line.input_tokens, line.cost_usd_nanos, carries * each.record.saving.usd_nanos)
                        total = found.setdefault(keys, [0] * 6)
                        for index, value in enumerate((*added, line.guessed)):
                            total[index] += value
        return found


def value_of(each: Written, line: UsageLine, name: str) -> str:
    value: str = getattr(line, name) if name in ("model", "provider") else getattr(each.record, name)
    return value


def keys_of(each: Written, line: UsageLine, groups: Sequence[Group]) -> list[tuple[str, ...]]:
    names = [*each.scope.split("/")[3::2], "", "", ""]
    values = {
        Group.MODEL: line.model,
        Group.PROVIDER: line.provider,
        Group.SCOPE: each.scope,
        Group.DAY: each.at.strftime("%Y-%m-%d"),
        Group.HOUR: each.at.strftime("%Y-%m-%dT%H:00Z"),
        Group.TASK: each.record.task,
        Group.SERVICE: each.record.service,
        Group.DOMAIN: each.record.domain,
        Group.KEY: each.record.key_id,
        Group.WORKSPACE: names[0],
        Group.PROJECT: names[1],
        Group.USER: names[2],
    }
    tags = each.record.tags if Group.TAG in groups else ("",)
    return [tuple((values | {Group.TAG: tag})[group] for group in groups) for tag in tags]


def told(sums: Sequence[UsageSum]) -> dict[tuple[str, ...], list[int]]:
    return {
        each.keys: [
            each.requests,
            each.attempts,
            each.input_tokens,
            each.cost_usd_nanos,
            each.saving.usd_nanos,
            each.estimated_attempts,
        ]
        for each in sums
    }


def a_record(rng: random.Random) -> tuple[str, UsageRecord]:
    def line() -> UsageLine:
        return UsageLine(
            model=rng.choice(("m", "n", "größe")),
            provider=rng.choice(("p", "q", "")),
            deployment="",
            input_tokens=rng.randrange(1_000),
            cached_input_tokens=rng.randrange(100),
            output_tokens=rng.randrange(100),
            cost_usd_nanos=rng.randrange(10**6),
            outcome=rng.choice(("accepted", "rejected", "failed", "cache_exact")),
            estimated=rng.random() < 0.2,
            tokens_source=rng.choice(tuple(Source)),
            price_unknown=rng.random() < 0.1,
        )

    return rng.choice(SCOPES), UsageRecord(
        task=rng.choice(("chat", "", "code")),
        lines=tuple(line() for _ in range(rng.choice((1, 1, 2, 3)))),
        baseline_usd_nanos=rng.randrange(10**6),
        saving=Saving(rng.randrange(9), rng.randrange(9), rng.randrange(-9, 9)),
        service=rng.choice(("crawler", "")),
        domain=rng.choice(("retail", "legal")),
        key_id=rng.choice(("k1", "k2", "")),
        tags=tuple(rng.sample(("team:red", "team:blue", 'odd,{"}', "ünï"), k=rng.randrange(4))),
    )


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    clock = ManualClock(START)
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=4)) for _ in range(2)]
        ledgers = [await stack.enter_async_context(open_ledger(pool, clock)) for pool in pools]
        yield House(clock, pools[0], ledgers)


async def filled(house: House, *, seed: int) -> random.Random:
    """Three days of work on two ledgers at once."""
    rng = random.Random(seed)
    for _ in range(30):
        batches = [[a_record(rng) for _ in range(rng.randrange(1, 6))] for _ in range(2)]
        await asyncio.gather(*(house.write(batch, on=number) for number, batch in enumerate(batches)))
        house.clock.advance(rng.randrange(3, 9_000))
    return rng


def a_question(rng: random.Random) -> UsageQuestion:
    groups = tuple(rng.sample(list(Group), k=rng.randrange(5)))
    if Group.TAG in groups:
        beside = (Group.TAG, Group.HOUR, Group.DAY, Group.MODEL, Group.PROVIDER)
        groups = tuple(group for group in groups if group in beside)
    start = START + timedelta(hours=rng.randrange(-5, 60))
    only = UsageFilter(
        model=rng.choice(("", "", "m", "größe")),
        provider=rng.choice(("", "", "p")),
        task=rng.choice(("", "", "chat")),
        service=rng.choice(("", "", "crawler")),
        domain=rng.choice(("", "", "retail")),
        key_id=rng.choice(("", "", "k1")),
    )
    scope = rng.choice(SCOPES)
    end = start + timedelta(hours=rng.randrange(1, 80))
    return UsageQuestion(scope, start, end, groups, 10_000, only=rng.choice((EVERYTHING, only))).checked()


async def test_whatever_is_asked_the_rollups_say_what_the_rows_say(house: House) -> None:
    rng = await filled(house, seed=20260314)
    asked = [a_question(rng) for _ in range(250)]
    found = 0
    for question in asked:
        expected = house.expected(question)
        assert told(await house.usage.sums(question)) == expected, question
        found += bool(expected)
    assert found > 100
    assert {group for question in asked for group in question.groups} == set(Group)


async def test_pages_are_stable_while_usage_is_added(house: House) -> None:
    rng = await filled(house, seed=2)
    first = UsageQuestion(ACME, START, START + timedelta(days=9), (Group.SCOPE, Group.MODEL, Group.TASK), 4)
    before = [each.keys for each in await house.usage.sums(replace(first, page_size=10_000))]
    seen: list[tuple[str, ...]] = []
    question = first
    while page := await house.usage.sums(question):
        seen += [each.keys for each in page]
        question = replace(first, after=page[-1].keys)
        await house.write([a_record(rng) for _ in range(3)])
    assert len(seen) == len(set(seen))
    assert set(before) <= set(seen)
    assert seen == sorted(seen)


async def test_the_top_spenders_come_by_cost(house: House) -> None:
    await filled(house, seed=3)
    question = UsageQuestion(ACME, START, START + timedelta(days=9), (Group.SCOPE,), 3, by_cost=True)
    top = await house.usage.sums(question)
    costs = sorted((figures[3] for figures in house.expected(question).values()), reverse=True)
    assert [each.cost_usd_nanos for each in top] == costs[:3]


async def test_case_33_reports_never_scan_raw_rows(house: House) -> None:
    rng = await filled(house, seed=4)
    await house.pool.execute("ALTER TABLE usage RENAME TO usage_out_of_reach")
    for question in (a_question(rng) for _ in range(30)):
        assert told(await house.usage.sums(question)) == house.expected(question)
    report = AllocationQuestion(ACME, START, START + timedelta(days=9), allocatable(None, ACME), 10)
    _, total = await house.usage.allocation(report)
    assert total.cost_usd_nanos == sum(each.record.cost_usd_nanos for each in house.written)


async def test_each_rollup_adds_up_to_all_usage(house: House) -> None:
    await filled(house, seed=5)
    cost = sum(each.record.cost_usd_nanos for each in house.written)
    rows = await house.pool.fetch("SELECT rollup, sum(cost_usd_nanos)::bigint AS cost FROM usage_sums GROUP BY rollup")
    sums = {row["rollup"]: row["cost"] for row in rows}
    by_tag = sum(each.record.cost_usd_nanos * len(each.record.tags) for each in house.written)
    of_tagged = sum(each.record.cost_usd_nanos for each in house.written if each.record.tags)
    assert sums == {each.number: by_tag if each.by_tag else of_tagged if each.of_tagged else cost for each in ROLLUPS}
    raw = await house.pool.fetchrow("SELECT sum(cost_usd_nanos)::bigint, sum(carries::int)::bigint FROM usage")
    assert tuple(raw) == (cost, len(house.written))


@pytest.mark.parametrize("group", [Group.WORKSPACE, Group.PROJECT, Group.USER, Group.SCOPE, Group.MODEL, Group.KEY, Group.DAY])
async def test_an_allocation_adds_up_and_knows_the_range_before(house: House, group: Group) -> None:
    await filled(house, seed=6)
    middle, end = START + timedelta(hours=27), START + timedelta(hours=60)
    question = AllocationQuestion(ACME, middle, end, group, 10_000)
    lines, total = await house.usage.allocation(question)
    present, previous = house.expected(question.present()), house.expected(question.previous())
    expected = {
        keys: (present.get(keys, [0] * 6)[3], previous.get(keys, [0] * 6)[3], present.get(keys, [0] * 6)[0])
        for keys in {*present, *previous}
    }
    assert {line.keys: (line.cost_usd_nanos, line.previous_cost_usd_nanos, line.requests) for line in lines} == expected
    assert [line.cost_usd_nanos for line in lines] == sorted((cost for cost, _, _ in expected.values()), reverse=True)
    assert total.cost_usd_nanos == sum(line.cost_usd_nanos for line in lines) > 0
    assert total.previous_cost_usd_nanos == sum(line.previous_cost_usd_nanos for line in lines) > 0
    few, same_total = await house.usage.allocation(replace(question, lines_max=1))
    assert (few, same_total) == (lines[:2], total)


async def test_a_correction_is_reported_where_the_request_was(house: House) -> None:
    scope, (ledger, other) = parse_scope(SCOPES[3]), house.ledgers
    lines = (
        UsageLine("cheap", "p", "d", 10, 0, 5, 30, "rejected", False),
        UsageLine("dear", "q", "e", 10, 0, 5, 70, "accepted", False),
    )
    record = UsageRecord("chat", lines, 100, Saving(), "crawler", "retail", "k1", ("team:red",))
    hold = Reserve(scope, str(uuid.uuid4()), 500, 100, 600, b"r")
    await ledger.commit([hold, Settle(scope, hold.request_id, record, b"s")])
    house.clock.advance(7_200)
    await other.commit([Adjust(scope, str(uuid.uuid4()), hold.request_id, "", -25, -3, "refund", b"a")])
    every = (Group.MODEL, Group.PROVIDER, Group.TASK, Group.SERVICE, Group.DOMAIN, Group.KEY, Group.SCOPE)
    question = UsageQuestion(ACME, START, START + timedelta(days=1), every, 10)
    found = {each.keys[0]: each for each in await house.usage.sums(question)}
    assert found["dear"].keys == ("dear", "q", "chat", "crawler", "retail", "k1", SCOPES[3])
    assert (found["dear"].cost_usd_nanos, found["dear"].requests, found["dear"].attempts) == (45, 1, 1)
    assert found["dear"].input_tokens == 7
    assert len(found) == 2
    (tagged,) = await house.usage.sums(replace(question, groups=(Group.TAG,)))
    assert (tagged.keys, tagged.cost_usd_nanos) == (("team:red",), 75)
    # Also of a request that is settled in the same batch.
    again = Reserve(scope, str(uuid.uuid4()), 500, 100, 600, b"r")
    adjust = Adjust(scope, str(uuid.uuid4()), again.request_id, "", 7, 0, "a later bill", b"a")
    await ledger.commit([again, Settle(scope, again.request_id, record, b"s"), adjust])
    found = {each.keys[0]: each for each in await house.usage.sums(question)}
    assert (found["dear"].cost_usd_nanos, found["dear"].requests, len(found)) == (45 + 70 + 7, 2, 2)


async def test_suspense_and_rates_are_known_for_the_days_of_an_invoice(house: House) -> None:
    ledger, invoices = house.ledgers[0], PostgresInvoices(house.pool)
    scope = parse_scope(SCOPES[3])
    sizing = Sizing(1_000, 100, 10_000_000, 500, "large", "chat")
    named = Reserve(scope, str(uuid.uuid4()), 900_000, 600, 60, b"r", dispatch=True, sizing=sizing)
    unnamed = Reserve(scope, str(uuid.uuid4()), 77, 0, 60, b"r", dispatch=True)
    await ledger.commit([named, unnamed])
    house.clock.advance(7 * 3_600)
    await ledger.commit([Lapse(scope, named.request_id), Lapse(scope, unnamed.request_id)])
    invoice = Invoice(ACME, "p", (InvoiceLine("large", START.date(), 0, 0, 1),))
    found = await invoices.suspended(invoice)
    assert found[0] == Suspended("", START.date(), 77)
    assert (found[1].model, found[1].day) == ("large", START.date())
    assert 1_000 < found[1].amount_usd_nanos <= 900_000
    assert await invoices.suspended(replace(invoice, scope=SCOPES[5])) == []
    for fresh, cached, out in ((100, 7, 3), (50, 60, 1), (9, 2, 8), (400, 10, 90)):
        line = UsageLine("large", "p", "d", fresh + cached, cached, out, 20 * fresh + 5 * cached + 90 * out, "accepted", False)
        await house.write([(rng_scope, UsageRecord(str(fresh), (line,), 0, Saving())) for rng_scope in (SCOPES[3],)])
    moments = (await invoices.moments(invoice))["large"]
    assert (moments.uu, moments.uy) == (
        100**2 + 50**2 + 9**2 + 400**2,
        sum(u * (20 * u + 5 * c + 90 * o) for u, c, o in ((100, 7, 3), (50, 60, 1), (9, 2, 8), (400, 10, 90))),
    )


async def test_an_export_is_whole_and_in_order_though_it_takes_many_pages(house: House) -> None:
    rng = random.Random(7)
    for _ in range(4):
        await house.write([a_record(rng) for _ in range(400)])
        house.clock.advance(43_000)
    pages: list[list[Any]] = []
    async for page in PostgresExports(house.pool).pages(ExportQuestion(ACME, START, START + timedelta(days=4))):
        pages.append(page)
        await house.write([a_record(rng)])  # adding does not disturb what is under way
    rows = [row for page in pages for row in page][: sum(len(each.record.lines) for each in house.written[:1_600])]
    assert len(pages) > 4
    keys = [(row.recorded_at, row.request_id, row.line) for row in rows]
    assert keys == sorted(keys)
    assert sum(row.cost_usd_nanos for row in rows) == sum(each.record.cost_usd_nanos for each in house.written[:1_600])


async def test_case_16_an_invoice_of_pacific_days_reconciles_from_the_rollups(house: House) -> None:
    rng, pacific = random.Random(16), timezone(timedelta(hours=-8))
    bill: dict[date, int] = {}
    for _ in range(110):
        line = UsageLine("large", "p", "d", 10, 0, 5, rng.randrange(1_000, 90_000), "accepted", False)
        await house.write([(rng.choice(SCOPES), UsageRecord("chat", (line,), 0, Saving()))])
        day = house.clock.now().astimezone(pacific).date()
        bill[day] = bill.get(day, 0) + line.cost_usd_nanos
        house.clock.advance(3_600)
    days = sorted(bill)[1:-1]  # those that are over, and had begun
    invoice = Invoice(ACME, "p", tuple(InvoiceLine("large", day, 0, 0, bill[day]) for day in days)).checked()
    asked = UsageQuestion(ACME, *invoice.hours, (Group.MODEL, Group.HOUR), 10_000, only=UsageFilter(provider="p"))
    found = compare(invoice, Known(await house.usage.sums(asked)))
    assert [each.cause for each in found.differences] == [Cause.DAY_BOUNDARY] * len(days)
    assert "8 h after" in found.differences[0].explanation
    assert found.explained_usd_nanos == found.billed_usd_nanos - found.tracked_usd_nanos
