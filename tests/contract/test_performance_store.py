"""What every store of performance promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from farthing_router.performance.cells import EVERYBODY, HISTOGRAMS, KINDS, Cell, CellKey, Flush, Minutes
from farthing_router.performance.sums import OutageMinutes, PerformanceStore, Range, Sums, SumsAsked
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.errands import Attempt, AttemptOutcome
from farthing_router.store import StoreUnavailable
from farthing_router.store.performance import PostgresPerformance, numbers
from farthing_runtime.postgres import open_pool

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def attempt(rng: random.Random) -> Attempt:
    outcome = rng.choice([AttemptOutcome.ACCEPTED] * 6 + [AttemptOutcome.FAILED, AttemptOutcome.CANCELLED])
    tokens = Tokens(input_tokens=rng.randrange(2_000), output_tokens=rng.randrange(900))
    kind = rng.choice(KINDS) if outcome is AttemptOutcome.FAILED else ""
    first_us = rng.choice((0, rng.randrange(1, 10**6)))
    return Attempt(
        "m", "p", "d", outcome, "", None, tokens, rng.randrange(10**9), rng.randrange(10**8), first_us, failure_kind=kind
    )


def cell(rng: random.Random, attempts: int = 5) -> Cell:
    made = Cell()
    for _ in range(attempts):
        made.take(attempt(rng))
    return made


def key(organization: str = "acme", at: datetime = NOON, model: str = "m", task: str = "chat", provider: str = "p") -> CellKey:
    return CellKey(organization, at, provider, model, f"{provider}/{model}", task)


def flush(*cells: tuple[CellKey, Cell], replica: str = "", sequence: int = 1, minutes: Any = ()) -> Flush:
    return Flush(replica or str(uuid.uuid4()), sequence, NOON, list(cells), list(minutes))


def asked(*group_by: str, start: datetime = NOON - DAY, end: datetime = NOON + DAY, **values: Any) -> SumsAsked:
    step = values.pop("step", None)
    return SumsAsked(values.pop("organization", "acme"), Range(start, end, step), group_by, **values)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> PerformanceStore:
    return PostgresPerformance(pool)


def same(found: Sums, counted: Cell) -> bool:
    counts = (
        "attempts",
        "failures",
        "cancelled",
        "down",
        "answers",
        "cost_usd_nanos",
        "input_tokens",
        "output_tokens",
        "input_tokens_max",
    )
    histograms = {
        name: {place: int(count) for place, count in enumerate(numbers(getattr(found, name))) if count} for name in HISTOGRAMS
    }
    return all(getattr(found, name) == getattr(counted, name) for name in counts) and all(
        histograms[name] == getattr(counted, name) for name in HISTOGRAMS
    )


async def test_what_was_counted_is_read_back_whole(store: PerformanceStore) -> None:
    counted = cell(random.Random(1), 400)
    await store.add(flush((key(), counted)))
    (found,) = await store.sums(asked())
    assert same(found, counted)


async def test_cells_of_one_kind_only_have_empty_histograms(store: PerformanceStore) -> None:
    failing, answering = Cell(), Cell()
    failing.take(Attempt("m", "p", "d", AttemptOutcome.FAILED, "", None, Tokens(), 0, 5, failure_kind="timeout"))
    answering.take(Attempt("m", "p", "d", AttemptOutcome.ACCEPTED, "", None, Tokens(output_tokens=5), 1, 5_000))
    replica = str(uuid.uuid4())
    await store.add(flush((key(), failing), replica=replica))
    (found,) = await store.sums(asked())
    assert (found.latency, found.first_token, found.pace) == (b"", b"", b"")
    assert int(numbers(found.kinds)[KINDS.index("timeout")]) == found.failures == 1
    await store.add(flush((key(), answering), replica=replica, sequence=2))
    (found,) = await store.sums(asked())
    assert (found.attempts, int(numbers(found.latency).sum()), int(numbers(found.kinds).sum())) == (2, 1, 1)


async def test_a_repeated_flush_adds_nothing_also_where_senders_race(store: PerformanceStore) -> None:
    counted = cell(random.Random(2), 50)
    minutes = Minutes({3: 2}, {3: 1})
    sent = flush((key(), counted), (key(task="ads"), counted), minutes=[(("acme", NOON, "p"), minutes)])
    await asyncio.gather(*(store.add(sent) for _ in range(8)))
    await store.add(sent)
    assert all(same(found, counted) for found in await store.sums(asked("task")))
    assert await store.outages("acme", start=NOON, end=NOON + HOUR) == [OutageMinutes("p", 1, 0)]
    older = replace(sent, sequence=0)
    await store.add(older)
    assert (await store.sums(asked()))[0].attempts == 100


async def test_racing_replicas_add_up_exactly(store: PerformanceStore) -> None:
    rng, total = random.Random(3), Cell()

    def cells() -> list[tuple[CellKey, Cell]]:
        made = []
        for model, task in {(f"m{rng.randrange(4)}", f"t{rng.randrange(4)}") for _ in range(9)}:
            counted = cell(rng)
            total.add(counted)
            made.append((key(model=model, task=task), counted))
        rng.shuffle(made)
        return made

    async def replica(turns: list[Flush]) -> None:
        for each in turns:
            await store.add(each)
            if rng.random() < 0.3:
                await store.add(each)

    names = [str(uuid.uuid4()) for _ in range(6)]
    await asyncio.gather(*(replica([flush(*cells(), replica=name, sequence=turn + 1) for turn in range(8)]) for name in names))
    for organization in ("acme", EVERYBODY):
        (found,) = await store.sums(asked(organization=organization))
        assert same(found, total)
        days = asked(organization=organization, start=NOON - timedelta(hours=12), end=NOON + timedelta(hours=12))
        assert same((await store.sums(days))[0], total)
    assert sum(each.attempts for each in await store.sums(asked("model", "task"))) == total.attempts


async def test_days_and_hours_say_the_same_whatever_the_range(store: PerformanceStore) -> None:
    rng, hourly = random.Random(4), {}
    cells = []
    for number in range(100):
        at = NOON + number * HOUR
        hourly[at] = cell(rng, 1)
        cells.append((key(at=at), hourly[at]))
    await store.add(flush(*cells))
    for first, last in ((0, 100), (5, 77), (12, 60), (13, 20), (11, 37)):
        start, end = NOON + first * HOUR, NOON + last * HOUR
        (whole,) = await store.sums(asked(start=start, end=end))
        steps = await store.sums(asked(start=start, end=end, step=7 * HOUR))
        expected = sum(each.cost_usd_nanos for at, each in hourly.items() if start <= at < end)
        assert whole.cost_usd_nanos == sum(each.cost_usd_nanos for each in steps) == expected
        assert [each.step for each in steps] == sorted({each.step for each in steps})
    midnight = NOON.replace(hour=0)
    days = await store.sums(asked(start=midnight, end=midnight + 3 * DAY + 5 * HOUR, step=DAY))
    assert [each.attempts for each in days] == [12, 24, 24, 5]


async def test_rows_are_told_apart_filtered_bounded_and_the_dearest_come_first(store: PerformanceStore) -> None:
    cells = []
    for number, (model, task, provider) in enumerate((("a", "x", "p"), ("a", "y", "q"), ("b", "x", "p"))):
        counted = Cell()
        for _ in range(number + 1):
            counted.take(Attempt(model, provider, "d", AttemptOutcome.ACCEPTED, "", None, Tokens(), 10, 1_000))
        cells.append((key(model=model, task=task, provider=provider), counted))
    await store.add(flush(*cells))

    async def costs(*group_by: str, **values: Any) -> list[tuple[str, ...]]:
        found = await store.sums(asked(*group_by, **values))
        return [(*(each.labels[name] for name in group_by), str(each.cost_usd_nanos)) for each in found]

    assert await costs("model") == [("a", "30"), ("b", "30")] or await costs("model") == [("b", "30"), ("a", "30")]
    assert await costs("provider") == [("p", "40"), ("q", "20")]
    assert await costs("provider", count_max=1) == [("p", "40")]
    assert await costs("task", only={"model": "a"}) == [("y", "20"), ("x", "10")]
    assert await costs("deployment", "task", only={"provider": "q", "task": "y"}) == [("q/a", "y", "20")]
    assert await costs(only={"model": "none"}) == []
    (plain,) = await store.sums(asked(histograms=False))
    assert (plain.attempts, plain.latency) == (6, b"")


async def test_nobody_sees_another_organisations_sums(store: PerformanceStore) -> None:
    rng = random.Random(6)
    mine, other = cell(rng), cell(rng, 9)
    minutes = [(("acme", NOON, "p"), Minutes({0: 1})), (("globex", NOON, "secret"), Minutes({0: 1}, {0: 1}))]
    await store.add(flush((key(), mine), (key("globex", model="secret"), other), minutes=minutes))
    assert [each.labels["model"] for each in await store.sums(asked("model"))] == ["m"]
    assert await store.sums(asked("model", organization="acm")) == []
    assert [each.provider for each in await store.outages("acme", start=NOON, end=NOON + HOUR)] == ["p"]


async def test_lines_are_everybodys_and_old_hours_fade(store: PerformanceStore) -> None:
    def answered(tokens: int, latency_us: int) -> Cell:
        made = Cell()
        made.take(Attempt("m", "p", "d", AttemptOutcome.ACCEPTED, "", None, Tokens(output_tokens=tokens), 0, latency_us))
        return made

    now = NOON + timedelta(minutes=30)
    old, ancient = NOON - 6 * HOUR + timedelta(minutes=30), NOON - 30 * HOUR
    await store.add(
        flush(
            (key("acme"), answered(100, 10**6)),
            (key("globex"), answered(100, 10**6)),
            (key("acme", at=old), answered(50, 2 * 10**6)),
            (key("acme", at=ancient), answered(9, 9 * 10**6)),
        )
    )
    lines = await store.lines(now=now)
    fresh = 2 * 0.5 ** (0.5 / 6)
    assert set(lines) == {("m", "chat")}
    assert lines["m", "chat"].paced == pytest.approx(fresh + 0.5)
    assert lines["m", "chat"].line_tokens == pytest.approx(fresh * 100 + 25)
    assert lines["m", "chat"].line_ms == pytest.approx(fresh * 1_000 + 1_000)


async def test_minutes_of_outage_are_those_in_which_most_calls_failed_over_all_replicas(store: PerformanceStore) -> None:
    place = ("acme", NOON, "p")
    one = Minutes({0: 4, 1: 1, 59: 2}, {0: 2, 1: 1})
    two = Minutes({0: 4, 1: 3, 2: 2}, {0: 3, 2: 2})
    for minutes in (one, two):
        await store.add(flush((key(), cell(random.Random(7))), minutes=[(place, minutes)]))
    # Minute 0: 5 of 8; minute 1: 1 of 4; minute 2: 2 of 2; minute 59: none.
    assert await store.outages("acme", start=NOON, end=NOON + HOUR) == [OutageMinutes("p", 4, 2)]
    assert await store.outages("acme", start=NOON + HOUR, end=NOON + DAY) == []


async def test_tasks_that_were_seen_are_told_the_most_used_first(store: PerformanceStore) -> None:
    rng = random.Random(8)
    await store.add(
        flush(
            (key(task="rare"), cell(rng, 1)),
            (key(task="often"), cell(rng, 9)),
            (key(at=NOON - 20 * DAY, task="old"), cell(rng)),
        )
    )
    known = await store.tasks(since=NOON - DAY, count_max=100)
    assert [task for organization, task in known if organization == "acme"] == ["often", "rare"]
    assert len(await store.tasks(since=NOON - DAY, count_max=1)) == 1


async def test_old_sums_go_a_bounded_number_at_a_time_hours_before_days(store: PerformanceStore) -> None:
    rng = random.Random(9)
    old = [(key(at=NOON - 3 * DAY + number * HOUR), cell(rng, 1)) for number in range(4)]
    await store.add(flush(*old, (key(), cell(rng, 1))))
    gone = [await store.forget(hours_before=NOON - DAY, days_before=NOON - 9 * DAY, count_max=10) for _ in range(5)]
    assert gone == [10, 10, 10, 2, 0]  # four hours at four levels, for acme and for everybody
    midnight = NOON.replace(hour=0) - 3 * DAY
    assert [each.attempts for each in await store.sums(asked(start=midnight, end=midnight + DAY))] == [4]
    assert await store.sums(asked(start=midnight, end=midnight + DAY, step=HOUR)) == []
    await store.forget(hours_before=NOON - DAY, days_before=NOON - DAY, count_max=99)
    assert await store.sums(asked(start=midnight, end=midnight + DAY)) == []


async def test_an_unreachable_database_is_a_named_failure(database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as pool:
        store = PostgresPerformance(pool)
        pool.terminate()
        with pytest.raises(StoreUnavailable):
            await store.sums(asked())
        with pytest.raises(StoreUnavailable):
            await store.add(flush((key(), cell(random.Random(1)))))
