"""Entries under the organisation's key: nothing readable at rest, and what happens when the key is another, gone or out of reach."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import pytest
from farthing.budget.v1 import budget_pb2_grpc
from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.chat.v1 import chat_pb2
from farthing.privacy.v1 import privacy_pb2, privacy_pb2_grpc
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.settings import SettingsInvalid
from farthing_runtime.status import error_info, rich_status

SCOPE = "organizations/acme"
EXACT, SEMANTIC, MISS = (
    cache_pb2.LOOKUP_OUTCOME_HIT_EXACT,
    cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC,
    cache_pb2.LOOKUP_OUTCOME_MISS,
)
QUESTION, ANSWER = "How do I reset my zanzibar password?", "Press the zanzibar button."
MARKER = b"zanzibar"
SHORT = {"FARTHING_PRIVACY_LEASE_S": "1"}


@dataclass(frozen=True)
class Running:
    suite: Any
    cache: Any
    privacy: Any


@asynccontextmanager
async def hosted(suite: Any, **options: Any) -> AsyncIterator[Running]:
    """Cache and privacy, with a ledger that nobody asks."""
    add = budget_pb2_grpc.add_BudgetServiceServicer_to_server
    ledger = ServiceBinding("farthing.budget.v1.BudgetService", add, budget_pb2_grpc.BudgetServiceServicer(), {})
    async with suite("privacy", "cache", peers={"budget": ledger}, **options) as running:
        channel = running.mesh.channel("cache")
        yield Running(running, cache_pb2_grpc.CacheServiceStub(channel), privacy_pb2_grpc.PrivacyServiceStub(channel))


def request(prompt: str = QUESTION) -> Any:
    made = cache_pb2.CacheRequest(scope=SCOPE, model_policy="auto")
    made.messages.add(role="user", content=prompt)
    return made


async def store(stub: Any, prompt: str = QUESTION) -> Any:
    answer = chat_pb2.Answer(content=ANSWER, finish_reason="stop")
    return await stub.StoreAnswer(
        cache_pb2.StoreAnswerRequest(request=request(prompt), answer=answer, model="small", cost_usd_nanos=7, semantic=True)
    )


async def look_up(stub: Any, prompt: str = QUESTION) -> Any:
    return await stub.LookUpAnswer(cache_pb2.LookUpAnswerRequest(request=request(prompt), mode=cache_pb2.LOOKUP_MODE_SEMANTIC))


async def missed(stub: Any, prompt: str = QUESTION) -> str:
    """Why a look-up misses, as soon as it does."""
    async with asyncio.timeout(15):
        while (found := await look_up(stub, prompt)).outcome != MISS:
            await asyncio.sleep(0.05)
    return str(found.reason)


async def dump(database_url: str) -> bytes:
    """Every row of every table of the suite, as text."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN ('cache', 'privacy')"
        )
        rows = [row[0] for table in tables for row in await connection.fetch(f"SELECT t::text FROM {table['name']} t")]
    finally:
        await connection.close()
    text = "\n".join(rows)
    # bytea is shown in hexadecimal, so the marker is looked for there, too.
    return (text + "\n" + text.replace(MARKER.hex(), MARKER.decode())).encode()


async def test_neither_postgres_nor_redis_holds_a_word_of_it(suite: Any, database_url: str, redis_url: str) -> None:
    from redis.asyncio import Redis

    async def found_in_redis() -> list[bool]:
        async with Redis.from_url(redis_url) as client:
            values = [await client.get(key) async for key in client.scan_iter("farthing:cache:*:????????*")]
        return [MARKER in value for value in values if value]

    async with hosted(suite, redis_url=redis_url) as running:
        await store(running.cache)
        assert (await look_up(running.cache)).entry.answer.content == ANSWER
        assert (await look_up(running.cache, "How can I reset my zanzibar password?")).outcome == SEMANTIC
        assert await found_in_redis() == [False]
        assert MARKER not in await dump(database_url)
    # The same search finds it where nothing is sealed, so it does search.
    async with hosted(suite, redis_url=redis_url, environment={"FARTHING_CACHE_SEAL": "off"}) as running:
        assert (await look_up(running.cache)).outcome == MISS
        await store(running.cache)
        assert (await look_up(running.cache)).outcome == EXACT
        assert True in await found_in_redis()
        assert MARKER in await dump(database_url)


async def test_rows_that_were_swapped_or_changed_are_misses_that_mend_themselves(suite: Any, database_url: str) -> None:
    other = "What colour is the sky at noon?"
    async with hosted(suite, environment={"FARTHING_CACHE_HOT_BYTES_MAX": "0"}) as running:
        await store(running.cache)
        await store(running.cache, other)
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "UPDATE cache.entries e SET payload = o.payload FROM cache.entries o WHERE o.key <> e.key AND o.model = e.model"
        )
        assert await missed(running.cache) == "cannot be read"
        assert await connection.fetchval("SELECT count(*) FROM cache.entries") == 1
        await store(running.cache)
        assert (await look_up(running.cache)).outcome == EXACT
        await connection.close()


async def test_erasing_the_key_erases_the_cache_in_every_replica(suite: Any, database_url: str) -> None:
    async with hosted(suite, environment={**SHORT, "FARTHING_CACHE_SWEEP_INTERVAL_S": "0.2"}) as one, hosted(suite) as other:
        await store(one.cache)
        assert [(await look_up(each.cache)).outcome for each in (one, other)] == [EXACT, EXACT]
        erased = await one.privacy.EraseKeys(privacy_pb2.EraseKeysRequest(scope=SCOPE, purpose="cache", actor="ann"))
        assert erased.erased == 1
        for each in (one, other):
            await missed(each.cache)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await store(one.cache)
        status = rich_status(refused.value)
        assert status is not None
        info = error_info(status)
        assert info is not None
        assert info.reason == "KEYS_ERASED"
        connection = await asyncpg.connect(database_url)
        async with asyncio.timeout(15):
            while await connection.fetchval("SELECT count(*) FROM cache.entries"):
                await asyncio.sleep(0.05)
        await connection.close()


async def test_a_rotation_keeps_what_is_there_readable_in_every_replica(suite: Any) -> None:
    other = "What colour is the sky at noon?"
    async with hosted(suite, environment=SHORT) as one, hosted(suite) as two:
        await store(one.cache)
        await one.privacy.RotateKeys(privacy_pb2.RotateKeysRequest(request_id=str(uuid.uuid4()), scope=SCOPE))
        async with asyncio.timeout(15):
            while True:
                await store(two.cache, other)
                if (await look_up(one.cache, other)).outcome == EXACT and (await look_up(two.cache)).outcome == EXACT:
                    break


async def test_another_master_key_makes_misses_and_refuses_to_store(suite: Any, database_url: str) -> None:
    async with hosted(suite) as running:
        await store(running.cache)
    wrong = {"FARTHING_PRIVACY_MASTER_KEYS": "other:" + base64.b64encode(b"w" * 32).decode()}
    async with hosted(suite, environment=wrong) as running:
        assert await missed(running.cache) == "cannot be read"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await store(running.cache, "What colour is the sky at noon?")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM cache.entries") == 1  # kept: its key may come back
    await connection.close()


async def test_without_the_privacy_service_hits_go_on_until_the_lease_ends_and_nothing_is_stored_in_the_clear(
    suite: Any, database_url: str
) -> None:
    async with hosted(suite, environment={"FARTHING_PRIVACY_LEASE_S": "2"}) as running:
        await store(running.cache)
        running.suite.mesh.channel("privacy")._server.remove_service("farthing.privacy.v1.PrivacyService")
        assert (await look_up(running.cache)).outcome == EXACT
        assert await missed(running.cache) == "cannot be read"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await store(running.cache, "Where is zanzibar?")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert MARKER not in await dump(database_url)


@pytest.mark.parametrize(("peers", "field"), [({}, "FARTHING_PEERS"), ({"privacy": "127.0.0.1:1"}, "FARTHING_INTERNAL_TOKEN")])
async def test_a_cache_that_can_have_no_keys_does_not_start(
    host_settings: Any, database_url: str, peers: dict[str, str], field: str
) -> None:
    from farthing_runtime.catalog import targets_named
    from farthing_runtime.hosting import running_suite

    with pytest.raises(SettingsInvalid) as refused:
        async with running_suite(host_settings(database_url=database_url, peers=peers), targets_named(("cache",))):
            pass
    assert refused.value.field == field
