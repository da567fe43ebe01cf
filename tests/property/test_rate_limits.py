"""Whatever callers do, over any stretch of time no more is let through than the burst and what came free in that time."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from farthing_budget.buckets import Admission, Charge, Kind, buckets_of
from farthing_budget.rate_limits import RateLimit, RateLimited
from farthing_budget.store.memory import MemoryBuckets
from farthing_core.clock import ManualClock
from hypothesis import given
from hypothesis import strategies as st

Step = tuple[str, int]


@dataclass
class Ran:
    """A request that was let through, until it ended."""

    request_id: str
    at_s: int
    until_s: int
    asked: int
    used: int
    ended: bool = False


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 90)),
        st.tuples(st.just("ask"), st.integers(0, 700)),
        st.tuples(st.just("end"), st.integers(0, 100)),
    ),
    min_size=1,
    max_size=60,
)
rules = st.builds(
    lambda rpm, tpm, concurrent, burst_s: RateLimit("acme", "r", "organizations/acme", "", rpm, tpm, concurrent, burst_s),
    rpm=st.integers(1, 50),
    tpm=st.integers(1, 1_500),
    concurrent=st.integers(1, 6),
    burst_s=st.integers(1, 180),
)


async def run(rule: RateLimit, given_steps: list[Step], ttl_s: int) -> list[Ran]:
    clock = ManualClock()
    buckets = MemoryBuckets(clock, buckets_max=100, admissions_max=10_000)
    done: list[Ran] = []
    elapsed_s = 0
    for kind, number in given_steps:
        running = [each for each in done if not each.ended]
        if kind == "wait":
            clock.advance(number)
            elapsed_s += number
        elif kind == "ask":
            charges = [Charge(each, number if each.kind is Kind.TOKENS else 1) for each in buckets_of(rule)]
            request_id = str(uuid.uuid4())
            try:
                await buckets.take(Admission("acme", request_id, b"", charges, ttl_s))
            except RateLimited:
                continue
            done.append(Ran(request_id, elapsed_s, elapsed_s + ttl_s, number, number))
        elif running:
            ran = running[number % len(running)]
            ran.ended, ran.until_s = True, min(elapsed_s, ran.until_s)
            known = elapsed_s < ran.at_s + max(ttl_s, 600)
            ran.used = ran.asked * (number % 11) // 10 if known else ran.asked
            await buckets.finish("acme", ran.request_id, ran.used)
    return done


@given(rules, steps, st.sampled_from([30, 600]))
async def test_no_stretch_of_time_sees_more_than_the_limits_allow(rule: RateLimit, given_steps: list[Step], ttl_s: int) -> None:
    done = await run(rule, given_steps, ttl_s)
    for first in range(len(done)):
        for last in range(first, len(done)):
            stretch_s = done[last].at_s - done[first].at_s
            between = done[first : last + 1]
            assert len(between) * 60 <= max(60, rule.requests_per_minute * rule.burst_s) + rule.requests_per_minute * stretch_s
            used = sum(each.used for each in between)
            assert used * 60 <= max(60, rule.tokens_per_minute * rule.burst_s) + rule.tokens_per_minute * stretch_s
    for each in done:
        at_once = sum(
            other.at_s <= each.at_s and (other.until_s > each.at_s or other is each) for other in done[: done.index(each) + 1]
        )
        assert at_once <= rule.concurrent_requests


@given(st.integers(1, 10**12), st.integers(1, 3_600), st.integers(0, 10**6), st.integers(0, 70))
async def test_whoever_is_alone_gets_back_all_that_was_not_used(rate: int, burst_s: int, asked: int, waited_s: int) -> None:
    """As if only what was used had been taken in the first place."""
    rule = RateLimit("acme", "r", "organizations/acme", "", 0, rate, 0, burst_s)
    (bucket,) = buckets_of(rule)
    most = bucket.capacity // bucket.unit
    asked, used = min(asked, most), min(asked, most) // 3
    left = []
    for taken, corrected in ((asked, used), (used, used)):
        clock = ManualClock()
        buckets = MemoryBuckets(clock, buckets_max=100, admissions_max=100)
        await buckets.take(Admission("acme", "one", b"", [Charge(bucket, taken)], 86_400))
        clock.advance(waited_s)
        await buckets.finish("acme", "one", corrected)
        left.append((await buckets.take(Admission("acme", "two", b"", [Charge(bucket, 0)], 600))).tokens_left)
    assert left[0] == left[1]
