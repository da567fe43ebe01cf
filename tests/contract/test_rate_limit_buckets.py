"""What every keeper of rate-limit buckets promises: in memory, in Redis, and in a Redis that is a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from farthing_budget.buckets import Admission, Admitted, Charge, Kind, buckets_of
from farthing_budget.rate_limits import RateLimit, RateLimited
from farthing_budget.refusals import RequestIdReused
from farthing_budget.store.memory import MemoryBuckets
from farthing_budget.store.redis import open_buckets
from farthing_core.clock import ManualClock
from farthing_runtime.redis_client import open_redis
from redis import Redis

START = datetime(2026, 3, 15, 12, tzinfo=UTC)


class House:
    """Buckets as two replicas have them (in memory they are one), on one clock."""

    def __init__(self, clock: ManualClock, one: Any, other: Any) -> None:
        self.clock = clock
        self.one = one
        self.other = other

    async def take(self, *limits: RateLimit, tokens: int = 0, request_id: str = "", ttl_s: int = 600) -> Admitted:
        answer: Admitted = await self.one.take(ask(*limits, tokens=tokens, request_id=request_id, ttl_s=ttl_s))
        return answer

    async def refused(self, *limits: RateLimit, tokens: int = 0, request_id: str = "") -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            await self.take(*limits, tokens=tokens, request_id=request_id)
        return caught.value

    async def finish(self, request_id: str, tokens: int | None = None) -> None:
        await self.one.finish("acme", request_id, tokens)


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    clock = ManualClock(START)
    if request.param == "memory":
        memory = MemoryBuckets(clock, buckets_max=1_000, admissions_max=10_000)
        yield House(clock, memory, memory)
        return
    url = request.getfixturevalue(request.param)
    client = open_redis(url, timeout_s=10.0)
    await client.flushall()
    await client.aclose()
    async with open_buckets(url, clock, timeout_s=10.0) as one, open_buckets(url, clock, timeout_s=10.0) as other:
        yield House(clock, one, other)


def limit(
    scope: str = "organizations/acme", *, rpm: int = 0, tpm: int = 0, concurrent: int = 0, burst_s: int = 60
) -> RateLimit:
    return RateLimit("acme", str(uuid.uuid4()), scope, "", rpm, tpm, concurrent, burst_s)


def ask(*limits: RateLimit, tokens: int = 0, request_id: str = "", ttl_s: int = 600, organization: str = "acme") -> Admission:
    charges = [Charge(each, tokens if each.kind is Kind.TOKENS else 1) for given in limits for each in buckets_of(given)]
    body = f"{tokens}/{ttl_s}".encode()
    return Admission(organization, request_id or str(uuid.uuid4()), body, charges, ttl_s)


async def admitted_of(replicas: Sequence[Any], count: int, *limits: RateLimit, tokens: int = 0) -> int:
    """Of so many callers at once, spread over replicas, how many get through."""
    answers = await asyncio.gather(
        *(replicas[number % len(replicas)].take(ask(*limits, tokens=tokens)) for number in range(count)),
        return_exceptions=True,
    )
    assert all(isinstance(answer, Admitted | RateLimited) for answer in answers)
    return sum(isinstance(answer, Admitted) for answer in answers)


async def test_requests_per_minute_come_back_one_by_one(house: House) -> None:
    rule = limit(rpm=60, burst_s=10)
    assert [(await house.take(rule)).requests_left for _ in range(10)] == list(range(9, -1, -1))
    error = await house.refused(rule)
    assert (error.facts["kind"], error.facts["limit"], error.facts["left"]) == ("REQUESTS", "60", "0")
    assert error.retry_after_s == 1.0
    house.clock.advance(0.999999)
    assert (await house.refused(rule)).retry_after_s == 0.000001
    house.clock.advance(0.000001)
    assert (await house.take(rule)).requests_left == 0
    house.clock.advance(3_600)
    assert (await house.take(rule)).requests_left == 9


async def test_tokens_are_taken_at_admission(house: House) -> None:
    rule = limit(tpm=6_000)
    assert (await house.take(rule, tokens=5_000)).tokens_left == 1_000
    error = await house.refused(rule, tokens=1_001)
    assert (error.facts["kind"], error.facts["left"], error.retry_after_s) == ("TOKENS", "1000", 0.01)
    assert (await house.take(rule, tokens=1_000)).tokens_left == 0
    house.clock.advance(30)
    assert (await house.take(rule, tokens=0)).tokens_left == 3_000


async def test_what_was_asked_fits_exactly_when_the_refusal_says(house: House) -> None:
    rule = limit(tpm=7, burst_s=60)
    await house.take(rule, tokens=7)
    wait_s = (await house.refused(rule, tokens=3)).retry_after_s
    house.clock.advance(wait_s - 0.000001)
    await house.refused(rule, tokens=3)
    house.clock.advance(0.000001)
    await house.take(rule, tokens=3)


async def test_concurrency_is_given_back_at_the_end(house: House) -> None:
    rule, ids = limit(concurrent=2), [str(uuid.uuid4()) for _ in range(2)]
    for request_id in ids:
        await house.take(rule, request_id=request_id)
    error = await house.refused(rule)
    assert (error.facts["kind"], error.facts["limit"], error.facts["left"], error.retry_after_s) == ("CONCURRENCY", "2", "0", 1)
    await house.other.finish("acme", ids[0], None)
    await house.take(rule)
    await house.refused(rule)


async def test_a_crash_gives_concurrency_back_when_its_time_is_over(house: House) -> None:
    rule = limit(concurrent=1)
    await house.take(rule, ttl_s=30)
    house.clock.advance(29.9)
    await house.refused(rule)
    house.clock.advance(0.1)
    late = str(uuid.uuid4())
    await house.take(rule, ttl_s=30, request_id=late)
    house.clock.advance(40)
    await house.take(rule, ttl_s=30)
    await house.finish(late)  # its place was given away already: this must not give back another's
    await house.refused(rule)


async def test_a_name_used_again_holds_its_place_for_its_whole_time(house: House) -> None:
    rule, request_id = limit(concurrent=1), str(uuid.uuid4())
    await house.take(rule, request_id=request_id, ttl_s=3_600)
    await house.finish(request_id)
    house.clock.advance(700)
    await house.take(rule, request_id=request_id, ttl_s=3_600)
    house.clock.advance(3_000)
    await house.refused(rule)
    house.clock.advance(600)
    await house.take(rule)


async def test_unused_tokens_come_back(house: House) -> None:
    rule, request_id = limit(tpm=1_000), str(uuid.uuid4())
    await house.take(rule, tokens=800, request_id=request_id)
    await house.finish(request_id, 100)
    assert (await house.take(rule, tokens=900)).tokens_left == 0


async def test_tokens_stay_as_they_were_taken_when_nobody_says_what_was_used(house: House) -> None:
    rule, request_id = limit(tpm=1_000), str(uuid.uuid4())
    await house.take(rule, tokens=800, request_id=request_id)
    await house.finish(request_id)
    assert (await house.refused(rule, tokens=201)).facts["left"] == "200"


async def test_a_bucket_that_was_forgotten_has_nothing_to_give_back(redis_url: str) -> None:
    clock, rule = ManualClock(START), limit(tpm=1_000)
    memory = MemoryBuckets(clock, buckets_max=1, admissions_max=100)
    async with open_buckets(redis_url, clock, timeout_s=10.0) as redis:
        for keeper in (memory, redis):
            admission = ask(rule, tokens=800)
            await keeper.take(admission)
            await keeper.take(ask(limit(tpm=5)))  # pushes the other out where there is room for one
            with Redis.from_url(redis_url) as client:
                client.delete(*client.keys("*:bucket:*") or ["none"])
            await keeper.finish("acme", admission.request_id, 100)
            assert (await keeper.take(ask(rule, tokens=600))).tokens_left == 400


async def test_an_overdraft_is_paid_back_by_the_following_minute(house: House) -> None:
    rule, request_id = limit(tpm=1_000), str(uuid.uuid4())
    await house.take(rule, tokens=100, request_id=request_id)
    await house.finish(request_id, 1_600)
    error = await house.refused(rule, tokens=0)
    assert (error.facts["left"], error.retry_after_s) == ("0", 36.0)
    house.clock.advance(60)
    assert (await house.take(rule, tokens=400)).tokens_left == 0


async def test_no_overdraft_outlasts_an_hour_whatever_was_reported(house: House) -> None:
    rule, request_id = limit(tpm=1_000), str(uuid.uuid4())
    await house.take(rule, tokens=100, request_id=request_id)
    await house.finish(request_id, 9_007_199_254_740_991)
    assert (await house.refused(rule, tokens=0)).retry_after_s == 3_600.0
    house.clock.advance(3_600)
    await house.take(rule, tokens=0)


async def test_tokens_that_have_drained_already_do_not_come_back_again(house: House) -> None:
    """Were they, an hour of requests that end together would let an hour's worth of tokens through at once."""
    rule, ids = limit(tpm=1_000), [str(uuid.uuid4()) for _ in range(10)]
    for request_id in ids:
        await house.take(rule, tokens=1_000, request_id=request_id, ttl_s=3_600)
        house.clock.advance(60)
    let_through = 0
    for request_id in ids:
        await house.finish(request_id, 0)
        try:
            await house.take(rule, tokens=1_000)
        except RateLimited:
            continue
        let_through += 1_000
    assert let_through == 1_000


async def test_all_limits_take_or_none_does(house: House) -> None:
    wide, narrow = limit(rpm=100, tpm=1_000), limit("organizations/acme/workspaces/w", tpm=100, concurrent=1)
    assert await house.take(wide, narrow, tokens=60) == Admitted(True, 99, 40)
    error = await house.refused(wide, narrow, tokens=60)
    assert (error.facts["rate_limit_id"], error.facts["scope"]) == (narrow.rate_limit_id, narrow.scope)
    assert await house.take(wide, tokens=0) == Admitted(True, 98, 940)


async def test_the_limit_that_has_to_be_waited_for_longest_is_named(house: House) -> None:
    soon, late = limit(rpm=60, burst_s=1), limit(rpm=6, burst_s=10)
    await house.take(soon, late)
    error = await house.refused(soon, late)
    assert (error.facts["rate_limit_id"], error.retry_after_s) == (late.rate_limit_id, 10.0)


async def test_a_repeated_admission_is_counted_once_for_ten_minutes(house: House) -> None:
    rule, request_id = limit(rpm=10, tpm=100, concurrent=5), str(uuid.uuid4())
    first = await house.take(rule, tokens=40, request_id=request_id)
    again = await asyncio.gather(*(house.other.take(ask(rule, tokens=40, request_id=request_id)) for _ in range(20)))
    assert set(again) == {first} == {Admitted(True, 9, 60)}
    await house.finish(request_id, 40)
    house.clock.advance(599)
    assert await house.take(rule, tokens=40, request_id=request_id) == first
    assert (await house.take(rule, tokens=0)).requests_left == 9
    house.clock.advance(2)
    await house.take(rule, tokens=50, request_id=request_id)


async def test_a_request_id_is_good_for_one_body(house: House) -> None:
    rule, request_id = limit(tpm=100), str(uuid.uuid4())
    await house.take(rule, tokens=40, request_id=request_id)
    with pytest.raises(RequestIdReused):
        await house.take(rule, tokens=41, request_id=request_id)


async def test_a_refused_admission_may_be_tried_again_under_its_name(house: House) -> None:
    rule, request_id = limit(rpm=60, burst_s=1), str(uuid.uuid4())
    await house.take(rule)
    await house.refused(rule, request_id=request_id)
    house.clock.advance(1)
    await house.take(rule, request_id=request_id)


async def test_a_repeated_end_does_nothing_twice(house: House) -> None:
    rule, request_id = limit(tpm=1_000, concurrent=2), str(uuid.uuid4())
    await house.take(rule, tokens=400, request_id=request_id)
    await house.take(rule, tokens=400)
    await asyncio.gather(*(replica.finish("acme", request_id, 100) for replica in (house.one, house.other) * 10))
    assert (await house.take(rule, tokens=0)).tokens_left == 500
    await house.refused(rule)


async def test_who_gives_up_while_asking_and_says_so_holds_nothing(house: House) -> None:
    rule = limit(concurrent=20)
    admissions = [ask(rule) for _ in range(200)]
    asking = [asyncio.create_task(house.one.take(each)) for each in admissions]
    for _ in range(2):
        await asyncio.sleep(0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*(house.one.finish("acme", each.request_id, None) for each in admissions))
    await asyncio.gather(*asking, return_exceptions=True)
    assert await admitted_of((house.one, house.other), 64, rule) == 20


async def test_an_end_that_nobody_knows_is_let_be(house: House) -> None:
    await house.finish(str(uuid.uuid4()), 5)


async def test_organisations_do_not_share_what_they_are_asked_together(house: House) -> None:
    rules = {f"org{number}": limit(concurrent=1) for number in range(30)}
    for expected in (30, 0):
        asked = [house.one.take(ask(rule, organization=name)) for name, rule in rules.items()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, Admitted) for answer in answers) == expected


async def test_an_admission_of_another_organisation_is_not_ended(house: House) -> None:
    rule, request_id = limit(concurrent=1), str(uuid.uuid4())
    await house.take(rule, request_id=request_id)
    await house.one.finish("globex", request_id, None)
    await house.refused(rule)


@pytest.mark.parametrize("callers", [64, 1_000])
async def test_racing_callers_never_pass_a_limit(house: House, callers: int) -> None:
    replicas = (house.one, house.other)
    assert await admitted_of(replicas, callers, limit(rpm=20)) == 20
    assert await admitted_of(replicas, callers, limit(tpm=2_000), tokens=100) == 20
    assert await admitted_of(replicas, callers, limit(concurrent=20)) == 20
    wide = limit(rpm=callers, tpm=10_000_000, concurrent=callers)
    assert await admitted_of(replicas, callers, wide, limit(rpm=20, tpm=5_000, concurrent=50), tokens=100) == 20
    assert (await house.take(wide, tokens=0)).requests_left == callers - 21


@pytest.mark.parametrize("rate", [1, 7, 999_999, 60_000_000, 1_000_000_007, 999_999_999_999])
@pytest.mark.parametrize("burst_s", [1, 60, 3_600])
async def test_limits_of_every_size_are_exact(house: House, rate: int, burst_s: int) -> None:
    rule = limit(tpm=rate, burst_s=burst_s)
    (bucket,) = buckets_of(rule)
    whole = bucket.capacity // bucket.unit
    assert whole == max(1, rate * burst_s // 60)
    assert (await house.take(rule, tokens=whole)).tokens_left == 0
    error = await house.refused(rule, tokens=1)
    house.clock.advance(max(error.retry_after_s, bucket.tick_us / 1e6))
    await house.take(rule, tokens=1)


async def test_clocks_of_replicas_may_differ(house: House) -> None:
    """Time that one has counted is not counted again by another whose clock is behind."""
    rule = limit(rpm=60, burst_s=1)
    await house.take(rule)
    house.clock.jump(house.clock.now() + timedelta(seconds=5))
    moved = 0
    for _ in range(10):
        for seconds in (-5, 5):
            house.clock.jump(house.clock.now() + timedelta(seconds=seconds))
            try:
                await house.take(rule)
            except RateLimited:
                continue
            moved += 1
    assert moved <= 1


async def test_a_clock_that_is_set_back_locks_nobody_out(house: House) -> None:
    rule = limit(rpm=60, burst_s=1)
    await house.take(rule)
    house.clock.jump(START - timedelta(days=1))
    with contextlib.suppress(RateLimited):
        await house.take(rule)
    house.clock.advance(1)
    await house.take(rule)


async def test_memory_and_redis_decide_alike(redis_url: str) -> None:
    """The arithmetic is written twice: once in Python, once in Lua."""
    clock = ManualClock(START)
    chance = random.Random(20_260_315)
    rules = [
        limit(rpm=90, tpm=10_000, burst_s=7),
        limit(tpm=333_333, concurrent=6),
        limit(rpm=1_000_000_000, tpm=77_777_777_777, burst_s=3_600),
    ]
    memory, open_ids = MemoryBuckets(clock, buckets_max=1_000, admissions_max=100_000), list[str]()
    async with open_buckets(redis_url, clock, timeout_s=10.0) as redis:
        for _ in range(3_000):
            clock.advance(chance.choice([0, 0.000_001, 0.01, 0.3, 2, 20]))
            if open_ids and chance.random() < 0.45:
                request_id = chance.choice(open_ids)
                used = chance.choice([None, 0, 10, 900, 5_000, 80_000, 10**15])
                for keeper in (memory, redis):
                    await keeper.finish("acme", request_id, used)
                continue
            chosen = chance.sample(rules, chance.randint(1, 3))
            admission = ask(*chosen, tokens=chance.choice([0, 1, 50, 700, 1_100]), ttl_s=chance.choice([5, 60, 600]))
            answers = [await outcome(keeper, admission) for keeper in (memory, redis)]
            assert answers[0] == answers[1]
            if isinstance(answers[0], Admitted):
                open_ids = [*open_ids[-20:], admission.request_id]


async def outcome(keeper: Any, admission: Admission) -> Any:
    try:
        return await keeper.take(admission)
    except RateLimited as error:
        return error.facts, error.retry_after_s


async def test_everything_in_redis_expires_and_carries_its_organisation(redis_url: str) -> None:
    admission = ask(limit(rpm=10, tpm=100, concurrent=3), tokens=5, ttl_s=900)
    async with open_buckets(redis_url, ManualClock(START), timeout_s=10.0) as buckets:
        with Redis.from_url(redis_url) as client:
            for act, expected in ((buckets.take(admission), 4), (buckets.finish("acme", admission.request_id, 1), 3)):
                await act
                keys = client.keys("*")
                assert len(keys) == expected
                assert all(b"{acme}" in key for key in keys)
                assert all(0 < client.ttl(key) <= 960 for key in keys)


async def test_memory_keeps_what_is_open_and_forgets_the_oldest() -> None:
    clock = ManualClock(START)
    buckets = MemoryBuckets(clock, buckets_max=100, admissions_max=100)
    held, places = ask(limit(concurrent=1)), limit(concurrent=1_000)
    await buckets.take(held)
    for _ in range(1_000):
        admission = ask(limit(rpm=10), places)
        await buckets.take(admission)
        await buckets.finish("acme", admission.request_id, None)
    await buckets.take(held)  # still known
    assert len(buckets._levels) <= 100
    assert len(buckets._records) <= 100
    assert len(buckets._ends) <= 2_000
    for _ in range(300):
        await buckets.take(ask(places))
    assert len(buckets._records) == len(buckets._leases) == 100
    assert sum(buckets._running.values()) == 100
    clock.advance(601)
    await buckets.finish("acme", "nobody", None)
    assert not buckets._running
    assert not buckets._leases
