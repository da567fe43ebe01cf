"""What befalls the cache's stores befalls no caller: each answer comes, the receipt says how, and afterwards the cache is itself again."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_runtime.postgres import Cluster
from redis.asyncio import Redis

from tests.api.orchestrator.conftest import complete_request, serving_upstream

MISS = cache_pb2.LOOKUP_OUTCOME_MISS
REST = ("budget", "optimizer", "router", "privacy", "orchestrator")
REFUSE_WRITES = """
    CREATE FUNCTION cache.full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON cache.entries EXECUTE FUNCTION cache.full_disk();
"""


@pytest.fixture
async def server(session_dir: Path) -> AsyncIterator[Cluster]:
    """A Postgres of the cache's own."""
    cluster = Cluster(session_dir / f"cf-{uuid.uuid4().hex[:8]}")
    with cluster.in_use():
        await asyncio.to_thread(cluster.start)
        yield cluster
        await asyncio.to_thread(cluster.stop_if_last)


class Faulty:
    """The suite with the cache in a host of its own, on stores that a test may break."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def ask(self, prompt: str) -> Any:
        """The receipt of a request, which is answered whatever happens."""
        answer = await self._stub.Complete(complete_request(prompt, model="dear"), timeout=30)
        assert answer.answer.content == " abc" * 20
        return answer.receipt

    async def repaired(self, prompt: str) -> None:
        """Returns when what is asked is remembered, as it always was."""
        async with asyncio.timeout(20):
            while (receipt := await self.ask(prompt)).cache_outcome == MISS or receipt.caching.joined:
                await asyncio.sleep(0.05)


async def test_no_fault_of_the_caches_stores_reaches_a_caller_and_each_mends_itself(
    suite: Any, server: Cluster, session_dir: Path, start_redis: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    socket = session_dir / f"cf-{uuid.uuid4().hex[:8]}.sock"
    redis = start_redis(socket)
    stores = {"database_url": server.url("farthing"), "redis_url": f"unix://{socket}"}
    async with serving_upstream(tmp_path) as (_, path):
        path.write_text(path.read_text().replace('mode: "off"', 'mode: "exact"'))
        async with suite("cache", config_file=path, **stores) as cache:
            elsewhere = {"FARTHING_PEERS": f"cache={cache.grpc_address}"}
            async with suite(*REST, config_file=path, environment=elsewhere) as running:
                at = Faulty(orchestrator_pb2_grpc.OrchestratorServiceStub(running.mesh.channel("orchestrator")))
                await at.repaired("flushed")
                async with Redis.from_url(f"unix://{socket}") as client:
                    await client.flushall()
                assert (await at.ask("flushed")).cache_outcome != MISS  # it is in Postgres

                redis.terminate()
                await asyncio.to_thread(redis.wait)
                assert (await at.ask("flushed")).cache_outcome != MISS
                await at.ask("while redis is away")
                redis = start_redis(socket)
                await at.repaired("after redis was away")

                connection = await asyncpg.connect(stores["database_url"])
                await connection.execute(REFUSE_WRITES)
                assert (await at.ask("while the disk is full")).cache_outcome == MISS
                await connection.execute("DROP FUNCTION cache.full_disk CASCADE")
                await connection.close()
                await at.repaired("while the disk is full")

                await asyncio.to_thread(server.stop_if_last)
                receipt = await at.ask("while postgres is away")
                assert (receipt.cache_outcome, receipt.caching.reason) == (MISS, "store unavailable")
                step = next(each for each in receipt.steps if each.name == orchestrator_pb2.STEP_NAME_LOOK_UP)
                assert "store unavailable" in step.note
                await asyncio.to_thread(server.start)
                await at.repaired("while postgres is away")
    redis.terminate()
    await asyncio.to_thread(redis.wait)
