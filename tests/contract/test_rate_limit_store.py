"""What every keeper of rate limits promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from farthing_budget import rate_limits
from farthing_budget.known_limits import KnownLimits
from farthing_budget.rate_limits import (
    RateLimit,
    RateLimitDraft,
    RateLimitExists,
    RateLimitNotFound,
    RateLimitsTooMany,
)
from farthing_budget.refusals import RequestIdReused
from farthing_budget.store import rate_limits as store_module
from farthing_budget.store.rate_limits import PostgresRateLimits
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope
from farthing_runtime.postgres import open_pool

ACME = "organizations/acme"
START = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.fixture
async def pools(database_url: str) -> AsyncIterator[list[asyncpg.Pool]]:
    """Two processes' pools on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_pool(database_url, schema="budget", size_max=4)) for _ in range(2)]


@pytest.fixture
async def stores(pools: list[asyncpg.Pool]) -> list[PostgresRateLimits]:
    return [PostgresRateLimits(pool, ManualClock(START)) for pool in pools]


def draft(scope: str = ACME, *, model: str = "", rpm: int = 10, request_id: str = "") -> RateLimitDraft:
    limit = RateLimit(parse_scope(scope).organization, str(uuid.uuid4()), scope, model, rpm, 0, 0, 60)
    return RateLimitDraft(limit, request_id or str(uuid.uuid4()), f"{scope}{model}{rpm}".encode(), START)


async def test_a_limit_comes_back_as_it_was_made(stores: list[PostgresRateLimits]) -> None:
    one, other = stores
    asked = draft(model="large")
    made = await one.create(asked)
    assert made == asked.limit
    assert await other.list_from(parse_scope(ACME), after=None, count_max=10) == [made]
    assert (await other.limits_of("acme"))[1] == [made]
    assert await other.limits_of("globex") == (0, [])


async def test_racing_creators_make_one(stores: list[PostgresRateLimits]) -> None:
    asked = draft()
    same = await asyncio.gather(*(stores[number % 2].create(replace(asked, limit=draft().limit)) for number in range(8)))
    assert len({each.rate_limit_id for each in same}) == 1
    verdicts = await asyncio.gather(
        *(stores[number % 2].create(draft(model="large", rpm=number + 1)) for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, RateLimit) for each in verdicts) == 1
    assert sum(isinstance(each, RateLimitExists) for each in verdicts) == 7


async def test_a_request_id_is_good_for_one_body(stores: list[PostgresRateLimits]) -> None:
    asked = draft()
    await stores[0].create(asked)
    with pytest.raises(RequestIdReused):
        await stores[1].create(draft(rpm=11, request_id=asked.request_id))
    with pytest.raises(RateLimitExists):
        await stores[1].create(draft(rpm=11))


async def test_a_place_is_free_again_after_its_limit_is_deleted(stores: list[PostgresRateLimits]) -> None:
    one, other = stores
    asked = draft()
    made = await one.create(asked)
    with pytest.raises(RateLimitNotFound):
        await other.delete("globex", made.rate_limit_id)
    await other.delete("acme", made.rate_limit_id)
    with pytest.raises(RateLimitNotFound):
        await one.delete("acme", made.rate_limit_id)
    with pytest.raises(RateLimitNotFound):
        await one.create(asked)
    again = await one.create(draft())
    assert (await other.limits_of("acme"))[1] == [again]


async def test_an_organisation_has_only_so_many(stores: list[PostgresRateLimits], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rate_limits, store_module):
        monkeypatch.setattr(module, "LIMITS_MAX", 3)
    made = [await stores[0].create(draft(model=f"m{number}")) for number in range(3)]
    with pytest.raises(RateLimitsTooMany):
        await stores[0].create(draft(model="m3"))
    with pytest.raises(RateLimitExists):
        await stores[0].create(draft(model="m2", rpm=5))
    await stores[0].create(draft("organizations/globex"))
    await stores[0].delete("acme", made[0].rate_limit_id)
    await stores[0].create(draft(model="m3"))


async def test_changes_are_seen_in_their_order(stores: list[PostgresRateLimits], pools: list[asyncpg.Pool]) -> None:
    """A change that commits late is not hidden behind one that was made after it and committed first."""
    one, other = stores
    seen = await one.last_epoch()
    async with pools[0].acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        made = draft("organizations/early").limit
        await connection.execute(
            "INSERT INTO rate_limits VALUES ($1, $2, $3, '', 1, 0, 0, 60, $4, 'x', now())",
            made.organization,
            made.rate_limit_id,
            made.scope,
            str(uuid.uuid4()),
        )
        late = asyncio.create_task(other.create(draft("organizations/late")))
        done, _ = await asyncio.wait([late], timeout=0.2)
        assert not done
        assert await one.changed_since(seen, count_max=10) == []
        await transaction.commit()
    await late
    names = [name for name, _ in await one.changed_since(seen, count_max=10)]
    assert names == ["early", "late"]
    (first,) = await one.changed_since(seen, count_max=1)
    assert [name for name, _ in await one.changed_since(first[1], count_max=10)] == ["late"]


async def test_another_process_hears_of_changes(stores: list[PostgresRateLimits]) -> None:
    one, other = stores
    known = KnownLimits(other, places_max=100)
    async with known.watching(interval_s=0.01):
        assert not (await known.of("acme")).buckets
        made = await one.create(draft())
        await until(known, buckets=1)
        await one.delete("acme", made.rate_limit_id)
        await until(known, buckets=0)


async def until(known: KnownLimits, *, buckets: int) -> None:
    for _ in range(1_000):
        if len((await known.of("acme")).buckets) == buckets:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the change was never heard of")


async def test_many_limits_are_listed_page_by_page(stores: list[PostgresRateLimits], pools: list[asyncpg.Pool]) -> None:
    await pools[0].execute(
        "INSERT INTO rate_limits SELECT 'acme', n::text, 'organizations/acme/workspaces/w' || n, '', 1, 0, 0, 60, "
        "gen_random_uuid(), 'x', now() FROM generate_series(1, 2000) n"
    )
    found: list[RateLimit] = []
    after: tuple[str, str] | None = None
    while page := await stores[1].list_from(parse_scope(ACME), after=after, count_max=500):
        found += page
        after = page[-1].scope, page[-1].model
    assert len({each.rate_limit_id for each in found}) == 2_000
    assert [each.scope for each in found] == sorted(each.scope for each in found)
    assert len((await stores[1].limits_of("acme"))[1]) == 2_000
