"""What is learned of the lengths of answers, as the real Postgres keeps it and as replicas share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import datetime

import asyncpg
import pytest
from farthing_budget.refusals import StoreUnavailable
from farthing_budget.sharing import Sharing, sharing
from farthing_budget.sizing.bins import bin_of
from farthing_budget.sizing.counts import Counts
from farthing_budget.sizing.learner import Learner, StreamKey, stream_key
from farthing_budget.sizing.pool import bound
from farthing_budget.store import Shared
from farthing_budget.store.lengths import PostgresLengths
from farthing_runtime.postgres import open_pool

PRICE = 10_000_000_000
KEY = stream_key(
    scope="organizations/acme/workspaces/w/projects/p", model="large", task="chat", input_tokens=400, tokens_max=4_096
)
FOREVER_S = 3_600.0


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="budget", size_max=6) as opened:
        yield opened


def teach(learner: Learner, tokens: int, *, count: int = 1, key: StreamKey = KEY) -> None:
    for _ in range(count):
        learner.started(key)
        learner.moved(key, 0, bin_of(tokens))
        learner.ended(key, bin_of(tokens))


def taught(tokens: int, count: int, *, key: StreamKey = KEY) -> dict[StreamKey, Counts]:
    learner = Learner()
    teach(learner, tokens, count=count, key=key)
    return learner.take_fresh()


def size_of(learner: Learner, *, key: StreamKey = KEY) -> int:
    return bound(learner.risk(key, 0, tokens_max=4_096, price=PRICE))


async def kept(pool: asyncpg.Pool) -> Mapping[StreamKey, Counts]:
    return (await PostgresLengths(pool).exchange({}, after=None)).counts


async def test_what_is_added_is_read_by_everybody_and_adds_up(pool: asyncpg.Pool) -> None:
    one, other = PostgresLengths(pool), PostgresLengths(pool)
    first = await one.exchange(taught(50, 10), after=None)
    second = await other.exchange(taught(50, 5), after=None)
    whole = taught(50, 15)
    assert set(first.counts) == set(second.counts) == set(whole) == set(KEY.line)
    for key, counts in second.counts.items():
        assert counts.left[0] == pytest.approx(whole[key].left[0])
        assert counts.ended[1] == pytest.approx(whole[key].ended[1])


async def test_only_what_changed_is_read_again(pool: asyncpg.Pool) -> None:
    store, other_key = PostgresLengths(pool), KEY._replace(scope="organizations/other", model="small")
    await store.exchange(taught(50, 1), after=None)
    await pool.execute("UPDATE answer_lengths SET changed_at = changed_at - interval '1 minute'")
    latest = (await store.exchange({}, after=None)).latest
    await store.exchange(taught(50, 1, key=other_key), after=None)
    await pool.execute("UPDATE answer_lengths SET changed_at = changed_at + interval '1 minute' WHERE organization = 'other'")
    found = await store.exchange({}, after=latest)
    assert set(other_key.line) <= set(found.counts)
    assert (await store.exchange({}, after=found.latest)).counts.keys() == set(other_key.line)


async def test_replicas_that_add_at_the_same_time_lose_nothing(pool: asyncpg.Pool) -> None:
    keys = [KEY._replace(input_bucket=bucket) for bucket in range(8)]
    stores = [PostgresLengths(pool) for _ in range(6)]

    async def add(store: PostgresLengths, turn: int) -> None:
        fresh: dict[StreamKey, Counts] = {}
        for key in keys[turn % 3 :] + keys[: turn % 3]:
            for at, counts in taught(50, 1, key=key).items():
                fresh.setdefault(at, Counts()).add(counts)
        await store.exchange(fresh, after=None)

    await asyncio.gather(*(add(store, turn) for turn in range(4) for store in stores))
    found = await kept(pool)
    for key in keys:
        assert found[key].left[0] == pytest.approx(taught(50, 24, key=key)[key].left[0])


async def test_of_each_organisation_only_the_keys_changed_last_are_kept(pool: asyncpg.Pool) -> None:
    store = PostgresLengths(pool, keys_max=12)
    elsewhere = KEY._replace(scope="organizations/other")
    await store.exchange(taught(50, 1, key=elsewhere), after=None)
    for number in range(20):
        await store.exchange(taught(50, 1, key=KEY._replace(input_bucket=number)), after=None)
    rows = await pool.fetch("SELECT organization, count(*) AS rows FROM answer_lengths GROUP BY organization")
    assert {row["organization"]: row["rows"] for row in rows} == {"acme": 12, "other": 3}
    found = await kept(pool)
    assert KEY._replace(input_bucket=19) in found
    assert KEY._replace(input_bucket=0) not in found


async def test_a_new_process_begins_with_what_was_learned_before_it(pool: asyncpg.Pool) -> None:
    before, after = Learner(), Learner()
    async with sharing(before, PostgresLengths(pool), interval_s=FOREVER_S):
        teach(before, 50, count=500)
    async with sharing(after, PostgresLengths(pool), interval_s=FOREVER_S):
        assert size_of(after) == size_of(before) < size_of(Learner()) / 5


async def test_a_crash_loses_no_more_than_what_was_learned_since_the_last_turn(pool: asyncpg.Pool) -> None:
    learner = Learner()
    turns = Sharing(learner, PostgresLengths(pool))
    teach(learner, 50, count=300)
    await turns.turn()
    teach(learner, 50, count=7)
    survivor = Learner()
    await Sharing(survivor, PostgresLengths(pool)).turn()
    lost = taught(50, 300)
    assert (await kept(pool))[KEY].left[0] == pytest.approx(lost[KEY].left[0])
    assert size_of(survivor) < size_of(Learner()) / 5


async def test_replicas_hear_what_the_others_saw(pool: asyncpg.Pool) -> None:
    async with AsyncExitStack() as stack:
        learners = [Learner() for _ in range(3)]
        turns = [Sharing(learner, PostgresLengths(pool)) for learner in learners]
        for learner in learners:
            await stack.enter_async_context(sharing(learner, PostgresLengths(pool), interval_s=FOREVER_S))
        for learner in learners:
            teach(learner, 50, count=100)
        alone = size_of(learners[0])
        for _ in range(2):
            for turn in turns:
                await turn.turn()
        assert size_of(learners[0]) == size_of(learners[1]) == size_of(learners[2]) <= alone
    assert (await kept(pool))[KEY].left[0] == pytest.approx(taught(50, 300)[KEY].left[0])


async def test_longer_answers_that_every_replica_found_are_believed_once(pool: asyncpg.Pool) -> None:
    store = PostgresLengths(pool)
    await store.exchange(taught(50, 300), after=None)
    before = (await kept(pool))[KEY]
    for _ in range(3):
        await store.exchange({KEY: Counts(epoch=1)}, after=None)
    after = (await kept(pool))[KEY]
    assert after.epoch == 1
    assert after.ended[0][0] / after.left[0][0] == pytest.approx(0.5 * before.ended[0][0] / before.left[0][0])


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\x01" * 700])
async def test_what_cannot_be_read_is_forgotten_and_learned_afresh(pool: asyncpg.Pool, rubbish: bytes) -> None:
    store = PostgresLengths(pool)
    await store.exchange(taught(50, 300), after=None)
    await pool.execute("UPDATE answer_lengths SET counts = $1 WHERE input_bucket = $2", rubbish, KEY.input_bucket)
    learner = Learner()
    async with sharing(learner, store, interval_s=FOREVER_S):
        assert KEY not in await kept(pool)
        teach(learner, 50, count=2)
    assert (await kept(pool))[KEY].left[0] == pytest.approx(taught(50, 2)[KEY].left[0])


async def test_rubbish_does_not_stand_in_the_way_of_who_adds(pool: asyncpg.Pool) -> None:
    store = PostgresLengths(pool)
    await store.exchange(taught(50, 300), after=None)
    await pool.execute("UPDATE answer_lengths SET counts = 'rubbish'")
    found = await store.exchange(taught(50, 2), after=None)
    assert found.counts[KEY].left[0] == pytest.approx(taught(50, 2)[KEY].left[0])


async def test_a_database_that_is_away_is_no_outage_and_costs_nothing_learned(database_url: str) -> None:
    learner = Learner()
    async with open_pool(database_url, schema="budget", size_max=2) as pool:
        store = PostgresLengths(pool)
        turns = Sharing(learner, store)
        teach(learner, 50, count=10)
        await pool.execute("ALTER TABLE answer_lengths RENAME TO lost")
        await turns.turn()
        await pool.execute("ALTER TABLE lost RENAME TO answer_lengths")
        teach(learner, 50, count=5)
        await turns.turn()
        assert (await kept(pool))[KEY].left[0] == pytest.approx(taught(50, 15)[KEY].left[0])
    with pytest.raises((StoreUnavailable, asyncpg.InterfaceError)):
        await store.exchange({}, after=None)


async def test_what_comes_in_while_it_is_shared_is_not_lost() -> None:
    learner = Learner()

    class Slow:
        """A store during whose exchange streams end."""

        async def exchange(self, fresh: Mapping[StreamKey, Counts], *, after: datetime | None) -> Shared:
            teach(learner, 50, count=3)
            return Shared(fresh, datetime.now().astimezone())

    teach(learner, 50, count=2)
    await Sharing(learner, Slow()).turn()
    assert learner.take_fresh()[KEY].left[0] == pytest.approx(taught(50, 3)[KEY].left[0])
    assert size_of(learner) < size_of(Learner())


async def test_more_keys_than_go_at_once_are_added_whole_and_without_a_deadlock(pool: asyncpg.Pool) -> None:
    keys = [KEY._replace(task=f"task {number}", input_bucket=number % 20) for number in range(150)]

    async def add(turn: int) -> None:
        fresh: dict[StreamKey, Counts] = {}
        for key in keys if turn % 2 else keys[turn::3]:
            for at, counts in taught(50, 1, key=key).items():
                fresh.setdefault(at, Counts()).add(counts)
        await PostgresLengths(pool).exchange(fresh, after=None)

    await asyncio.gather(*(add(turn) for turn in range(6)))
    found = await kept(pool)
    expected = [3 + sum(number >= turn and (number - turn) % 3 == 0 for turn in (0, 2, 4)) for number in range(150)]
    for key, times in zip(keys, expected, strict=True):
        assert found[key].left[0] == pytest.approx(taught(50, times, key=key)[key].left[0])
