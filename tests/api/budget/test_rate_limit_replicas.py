"""Rate limits over several replicas, and with Redis or the database away: the acceptance of what is promised."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.postgres import Cluster
from farthing_runtime.status import error_info, rich_status

ORGANIZATION = "organizations/acme"
USER = f"{ORGANIZATION}/workspaces/search/projects/ranker/users/ann"


def stub_of(running: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))


def ask(scope: str = USER, **values: Any) -> Any:
    return budget_pb2.AdmitRequestRequest(request_id=str(uuid.uuid4()), scope=scope, **values)


def end(asked: Any, **values: Any) -> Any:
    return budget_pb2.FinishRequestRequest(request_id=asked.request_id, scope=asked.scope, **values)


async def create(stub: Any, **values: Any) -> Any:
    return await stub.CreateRateLimit(
        budget_pb2.CreateRateLimitRequest(request_id=str(uuid.uuid4()), scope=ORGANIZATION, **values)
    )


async def reasons(calls: list[Any]) -> list[str]:
    """Of calls at once, how each ended: the reason of its refusal, or nothing."""
    found = []
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, grpc.aio.AioRpcError):
            status = rich_status(answer)
            assert status is not None
            info = error_info(status)
            assert info is not None
            found.append(info.reason)
        else:
            assert not isinstance(answer, BaseException)
            found.append("")
    return found


async def until(holds: Callable[[], Any]) -> None:
    """Waits for what another task or process does."""
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.01)


async def test_two_replicas_over_one_redis_stay_exact(suite: Any, redis_url: str) -> None:
    async with suite("budget", redis_url=redis_url) as one:
        await create(stub_of(one), concurrent_requests=20, tokens_per_minute=1_000_000)
        async with suite("budget", redis_url=redis_url) as other:
            stubs = stub_of(one), stub_of(other)
            for _ in range(2):
                asked = [ask(tokens=100) for _ in range(200)]
                verdicts = await reasons([stubs[n % 2].AdmitRequest(each) for n, each in enumerate(asked)])
                assert sorted(verdicts) == [""] * 20 + ["RATE_LIMITED"] * 180
                through = [each for each, verdict in zip(asked, verdicts, strict=True) if not verdict]
                # Where a request was admitted does not matter to where it ends, nor how often that is said.
                await asyncio.gather(*(stub.FinishRequest(end(each, tokens=50)) for each in through for stub in stubs))
            left = (await stubs[1].AdmitRequest(ask())).tokens_left
            assert 1_000_000 - 40 * 50 <= left <= 1_000_000


async def test_a_limit_made_at_one_replica_applies_at_another_soon(suite: Any) -> None:
    async with suite("budget") as one, suite("budget") as other:
        assert not (await stub_of(other).AdmitRequest(ask())).limited
        made = (await create(stub_of(one), requests_per_minute=1_000_000)).rate_limit

        async def limited() -> bool:
            return bool((await stub_of(other).AdmitRequest(ask())).limited)

        async def unlimited() -> bool:
            return not await limited()

        await until(limited)
        where = budget_pb2.DeleteRateLimitRequest(scope=ORGANIZATION, rate_limit_id=made.rate_limit_id)
        await stub_of(one).DeleteRateLimit(where)
        await until(unlimited)


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_a_crash_gives_concurrency_back(suite: Any, redis_url: str, where: str) -> None:
    """The caller never says that its request ended; after `ttl_s` its place is free."""
    async with suite("budget", redis_url=redis_url if where == "redis" else "") as running:
        stub = stub_of(running)
        await create(stub, concurrent_requests=1)
        await stub.AdmitRequest(ask(ttl_s=1))
        assert await reasons([stub.AdmitRequest(ask())]) == ["RATE_LIMITED"]

        async def let_through() -> bool:
            return await reasons([stub.AdmitRequest(ask())]) == [""]

        await until(let_through)


@pytest.fixture
def own_redis(start_redis: Callable[..., subprocess.Popen[bytes]]) -> Iterator[Any]:
    """A Redis of one test's own, to stop and start."""
    with tempfile.TemporaryDirectory(prefix="farthing-redis-") as folder:
        path = Path(folder) / "redis.sock"
        running = [start_redis(path)]

        def stop() -> None:
            running[-1].kill()
            running[-1].wait(timeout=10)

        yield f"unix://{path}", stop, lambda: running.append(start_redis(path))
        stop()


async def test_redis_going_away_and_coming_back_is_no_callers_business(suite: Any, own_redis: Any) -> None:
    url, stop, start = own_redis
    async with suite("budget", redis_url=url, environment={"FARTHING_BUDGET_REDIS_RETRY_S": "0.01"}) as running:
        stub = stub_of(running)
        await create(stub, concurrent_requests=10)
        before = [ask() for _ in range(5)]
        assert await reasons([stub.AdmitRequest(each) for each in before]) == [""] * 5
        stop()
        alone = await reasons([stub.AdmitRequest(ask()) for _ in range(64)])
        assert sorted(alone) == [""] * 10 + ["RATE_LIMITED"] * 54
        assert await reasons([stub.FinishRequest(end(each)) for each in before]) == [""] * 5
        start()

        async def shared_again() -> bool:
            return await reasons([stub.AdmitRequest(ask())]) == [""]

        await until(shared_again)
        assert (await reasons([stub.AdmitRequest(ask()) for _ in range(64)])).count("") == 9


async def test_nothing_is_let_through_without_redis_where_that_is_wanted(suite: Any, own_redis: Any) -> None:
    url, stop, _ = own_redis
    async with suite("budget", redis_url=url, environment={"FARTHING_BUDGET_REDIS_AWAY": "refuse"}) as running:
        stub = stub_of(running)
        await create(stub, requests_per_minute=10)
        await stub.AdmitRequest(ask())
        stop()
        assert await reasons([stub.AdmitRequest(ask()) for _ in range(5)]) == ["RATE_LIMITS_UNAVAILABLE"] * 5
        assert not (await stub.AdmitRequest(ask("organizations/unlimited"))).limited


async def test_limits_that_are_known_need_no_database(suite: Any, session_dir: Path) -> None:
    cluster = Cluster(session_dir / f"own-{uuid.uuid4().hex[:8]}")
    with cluster.in_use():
        await asyncio.to_thread(cluster.start)
        async with suite("budget", database_url=cluster.url("farthing")) as running:
            stub = stub_of(running)
            await create(stub, requests_per_minute=2)
            await stub.AdmitRequest(ask())
            await asyncio.to_thread(cluster.stop_if_last)
            asked = [stub.AdmitRequest(ask()) for _ in range(2)] + [stub.AdmitRequest(ask("organizations/new"))]
            assert await reasons(asked) == ["", "RATE_LIMITED", "STORE_UNAVAILABLE"]
            await asyncio.to_thread(cluster.start)

            async def known_again() -> bool:
                return await reasons([stub.AdmitRequest(ask("organizations/new"))]) == [""]

            await until(known_again)
        await asyncio.to_thread(cluster.stop_if_last)
