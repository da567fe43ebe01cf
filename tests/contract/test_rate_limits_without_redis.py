"""Rate limits while Redis is stopped, frozen, full or empty: declared behaviour, no error without a name, recovery by itself."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from farthing_budget.buckets import Admission, Charge, Kind, buckets_of
from farthing_budget.rate_limits import BucketsAway, RateLimit, RateLimited
from farthing_budget.store.fallback import FallbackBuckets, NoBuckets
from farthing_budget.store.memory import MemoryBuckets
from farthing_budget.store.redis import open_buckets
from farthing_core.clock import ManualClock
from redis import Redis


class Server:
    """A redis-server of one test's own, that can be stopped and started."""

    def __init__(self, path: Path, start_redis: Callable[..., subprocess.Popen[bytes]]) -> None:
        self.url = f"unix://{path}"
        self._start = lambda: start_redis(path)
        self._process = self._start()

    def start(self) -> None:
        self._process = self._start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def configure(self, **values: str) -> None:
        with Redis.from_url(self.url) as client:
            for name, value in values.items():
                client.config_set(name.replace("_", "-"), value)


@pytest.fixture
def server(start_redis: Callable[..., subprocess.Popen[bytes]]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="farthing-redis-") as folder:
        running = Server(Path(folder) / "redis.sock", start_redis)
        yield running
        running.kill()


@pytest.fixture
async def buckets(server: Server) -> AsyncIterator[FallbackBuckets]:
    clock = ManualClock()
    own = MemoryBuckets(clock, buckets_max=1_000, admissions_max=1_000)
    async with open_buckets(server.url, clock, timeout_s=0.2) as shared:
        yield FallbackBuckets(shared, own)


def limit(*, rpm: int = 0, tpm: int = 0, concurrent: int = 0) -> RateLimit:
    return RateLimit("acme", str(uuid.uuid4()), "organizations/acme", "", rpm, tpm, concurrent, 60)


def ask(rule: RateLimit, *, tokens: int = 0) -> Admission:
    charges = [Charge(each, tokens if each.kind is Kind.TOKENS else 1) for each in buckets_of(rule)]
    return Admission("acme", str(uuid.uuid4()), b"body", charges, 600)


async def let_through(buckets: FallbackBuckets, rule: RateLimit, count: int) -> int:
    answers = await asyncio.gather(*(buckets.take(ask(rule)) for _ in range(count)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(each, RateLimited) for each in refused)
    return count - len(refused)


def full(server: Server) -> None:
    server.configure(maxmemory="1", maxmemory_policy="noeviction")


def refilled(server: Server) -> None:
    server.configure(maxmemory="0")


OUTAGES: dict[str, tuple[Callable[[Server], None], Callable[[Server], None]]] = {
    "stopped": (Server.kill, Server.start),
    "frozen": (lambda server: server.signal(signal.SIGSTOP), lambda server: server.signal(signal.SIGCONT)),
    "full": (full, refilled),
    "a replica that takes no writes": (
        lambda server: Redis.from_url(server.url).execute_command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: Redis.from_url(server.url).execute_command("REPLICAOF", "NO", "ONE"),
    ),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_this_process_goes_on_alone_and_comes_back_by_itself(
    server: Server, buckets: FallbackBuckets, outage: str
) -> None:
    begin, end = OUTAGES[outage]
    rule = limit(rpm=20)
    assert await let_through(buckets, rule, 15) == 15
    begin(server)
    assert await let_through(buckets, rule, 64) == 20  # buckets of its own, full ones
    assert buckets.admitted_alone == 20
    with pytest.raises(BucketsAway):
        await buckets.recover()
    end(server)
    await buckets.recover()
    # A frozen one does afterwards what it was asked before; a stopped one has forgotten all.
    assert await let_through(buckets, rule, 64) in {"stopped": {20}, "frozen": set(range(6))}.get(outage, {5})
    assert buckets.admitted_alone == 20


async def test_what_ends_during_an_outage_gives_its_concurrency_back_afterwards(
    server: Server, buckets: FallbackBuckets
) -> None:
    rule = limit(concurrent=2, tpm=1_000)
    before = [ask(rule, tokens=400) for _ in range(2)]
    for each in before:
        await buckets.take(each)
    server.signal(signal.SIGSTOP)
    alone = ask(rule, tokens=1_000)
    await buckets.take(alone)
    for each in before:
        await buckets.finish("acme", each.request_id, 100)
    server.signal(signal.SIGCONT)
    await buckets.recover()
    await buckets.finish("acme", alone.request_id, 1_000)
    answer = await buckets.take(ask(rule, tokens=300))
    assert answer.tokens_left == 500
    assert await let_through(buckets, rule, 5) == 1


async def test_an_admission_whose_answer_was_lost_holds_nothing_afterwards(server: Server) -> None:
    clock, rule = ManualClock(), limit(concurrent=1)
    own = MemoryBuckets(clock, buckets_max=9, admissions_max=9)
    await own.take(ask(rule))
    async with open_buckets(server.url, clock, timeout_s=0.2) as shared:
        buckets = FallbackBuckets(shared, own)
        await buckets.take(ask(limit(rpm=1)))  # Redis has the script now
        server.signal(signal.SIGSTOP)
        with pytest.raises(RateLimited):
            await buckets.take(ask(rule))  # refused here, and let through by Redis as soon as that goes on
        server.signal(signal.SIGCONT)
        await buckets.recover()
        await buckets.take(ask(rule))


async def test_a_redis_that_was_emptied_starts_with_full_buckets(server: Server, buckets: FallbackBuckets) -> None:
    rule = limit(rpm=20, concurrent=50)
    admission = ask(rule)
    await buckets.take(admission)
    assert await let_through(buckets, rule, 64) == 19
    with Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
    await buckets.finish("acme", admission.request_id, None)
    assert await let_through(buckets, rule, 64) == 20
    assert buckets.admitted_alone == 0


async def test_one_task_sees_to_the_recovery(server: Server, buckets: FallbackBuckets) -> None:
    rule = limit(rpm=1_000_000)
    async with buckets.recovering(retry_interval_s=0.01):
        for _ in range(2):
            server.kill()
            await buckets.take(ask(rule))
            server.start()
            alone = buckets.admitted_alone
            for _ in range(1_000):
                await buckets.take(ask(rule))
                if buckets.admitted_alone == alone:
                    break
                alone = buckets.admitted_alone
                await asyncio.sleep(0.005)
            else:
                raise AssertionError("waited for 5 s in vain")


async def test_who_would_rather_refuse_is_refused_by_name(server: Server) -> None:
    rule = limit(rpm=10)
    admission = ask(rule)
    async with open_buckets(server.url, ManualClock(), timeout_s=0.2) as shared:
        buckets = FallbackBuckets(shared, NoBuckets())
        await buckets.take(admission)
        server.kill()
        with pytest.raises(BucketsAway):
            await buckets.take(ask(rule))
        await buckets.finish("acme", admission.request_id, None)


async def test_a_connection_that_broke_unused_is_no_outage(server: Server, buckets: FallbackBuckets) -> None:
    rule = limit(rpm=10)
    await buckets.take(ask(rule))
    server.kill()
    server.start()
    await buckets.take(ask(rule))
    assert buckets.admitted_alone == 0
