"""The cache through its stub: isolation, similarity, expiry, invalidation, replicas, and a store that is gone."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import grpc
import numpy as np
import pytest
from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.chat.v1 import chat_pb2

SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"
HIT_EXACT, HIT_SEMANTIC, MISS = (
    cache_pb2.LOOKUP_OUTCOME_HIT_EXACT,
    cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC,
    cache_pb2.LOOKUP_OUTCOME_MISS,
)
SEMANTIC = cache_pb2.LOOKUP_MODE_SEMANTIC


def request(prompt: str = "How do I reset my password?", **fields: Any) -> Any:
    made = cache_pb2.CacheRequest(**{"scope": SCOPE, "model_policy": "auto", **fields})
    made.messages.add(role="system", content="Be brief.")
    made.messages.add(role="user", content=prompt)
    made.parameters.temperature = 0.2
    return made


def store(stub: Any, asked: Any, **fields: Any) -> Any:
    answer = chat_pb2.Answer(content="Press Forgot password.", finish_reason="stop")
    values = {"answer": answer, "model": "small", "cost_usd_nanos": 7, "semantic": True}
    return stub.StoreAnswer(cache_pb2.StoreAnswerRequest(request=asked, **{**values, **fields}))


def look_up(stub: Any, asked: Any, mode: int = SEMANTIC) -> Any:
    return stub.LookUpAnswer(cache_pb2.LookUpAnswerRequest(request=asked, mode=mode))


def stub_of(channel_of: Any) -> Any:
    return cache_pb2_grpc.CacheServiceStub(channel_of("cache"))


async def test_an_answer_comes_back_whole(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        answer = chat_pb2.Answer(extra_json='{"tool_calls":[{"id":"c"}]}', finish_reason="tool_calls")
        usage = chat_pb2.TokenUsage(input_tokens=9, output_tokens=4)
        await store(stub, request(), answer=answer, usage=usage, tags=["faq"])
        found = await look_up(stub, request())
        assert found.outcome == HIT_EXACT
        assert (found.entry.answer, found.entry.usage, list(found.entry.tags)) == (answer, usage, ["faq"])


async def test_a_miss_hands_on_the_embedding_where_one_was_computed_anyway(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        assert (await look_up(stub, request())).embedding == b""  # nothing to compare with, so nothing was computed
        await store(stub, request())
        missed = await look_up(stub, request("Where do bears sleep in winter?"))
        assert missed.outcome == MISS
        vector = np.frombuffer(missed.embedding, dtype="<f2").astype(float)
        assert len(vector) == 384
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=0.01)
        assert (await look_up(stub, request())).embedding == b""


def variations() -> dict[str, Any]:
    def change(**fields: Any) -> Any:
        return request(**fields)

    system, tools, warmer, earlier = request(), request(), request(), request()
    system.messages[0].content = "Be long."
    tools.parameters.tools_json = '[{"type":"function","function":{"name":"f"}}]'
    warmer.parameters.temperature = 0.9
    earlier.messages.insert(1, chat_pb2.ChatMessage(role="user", content="I am on a phone."))
    return {
        "organisation": change(scope="organizations/other/workspaces/search/projects/ranker/users/ann"),
        "model policy": change(model_policy="large"),
        "sharing": change(sharing=cache_pb2.SHARING_SCOPE_WORKSPACE),
        "system": system,
        "tools": tools,
        "parameters": warmer,
        "earlier turns": earlier,
    }


@pytest.mark.parametrize("difference", variations())
async def test_nothing_crosses_a_partition(api: Any, difference: str) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        await store(stub, request())
        assert (await look_up(stub, request())).outcome == HIT_EXACT
        assert (await look_up(stub, variations()[difference])).outcome == MISS


@pytest.mark.parametrize(("sharing", "crosses"), [(1, True), (2, False), (3, False)])
async def test_sharing_decides_who_else_is_served(api: Any, sharing: int, crosses: bool) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        await store(stub, request(sharing=sharing))
        other = request(sharing=sharing, scope="organizations/acme/workspaces/ads/projects/p/users/bob")
        assert ((await look_up(stub, other)).outcome == HIT_EXACT) is crosses


async def test_the_same_in_other_words_is_served_and_a_near_miss_is_not(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        for prompt in ("How do I reset my password?", "How do I turn on dark mode?", "What do 5 seats cost?"):
            await store(stub, request(prompt))
        same = await look_up(stub, request("How can I reset my password?"))
        assert same.outcome == HIT_SEMANTIC
        assert same.similarity > 0.9
        assert (await look_up(stub, request("How can I reset my password?"), cache_pb2.LOOKUP_MODE_EXACT)).outcome == MISS
        for near in ("How do I turn off dark mode?", "What do 50 seats cost?", "How do I boil an egg?"):
            assert (await look_up(stub, request(near))).outcome == MISS, near


async def test_parameters_that_change_nothing_do_not_matter(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        streamed = request()
        streamed.parameters.extra_json = '{"stream": true, "user": "u1", "metadata": {"a": "b"}}'
        await store(stub, request())
        assert (await look_up(stub, streamed)).outcome == HIT_EXACT


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("content_parts_json", "nested"),
        ("content_parts_json", "values"),
        ("extra_json", "not JSON"),
        ("tags", "control characters"),
    ],
)
async def test_hostile_requests_are_refused_by_name_and_harm_nobody(api: Any, field: str, problem: str) -> None:
    texts = {"nested": "[" * 1_000_000 + "]" * 9_000_000, "values": "[" + "1," * 4_900_000 + "1]", "not JSON": "{" * 10_000}
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        hostile, tags = request(), []
        if field == "tags":
            tags = ["a\x00b"]
        else:
            setattr(hostile.messages[-1], field, texts[problem])
        asked, fine = store(stub, hostile, tags=tags), store(stub, request())
        refused, stored = await asyncio.gather(asked, fine, return_exceptions=True)
        assert (refused.code(), problem in refused.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert field in refused.details()
        assert stored.stored
        assert (await look_up(stub, request())).outcome == HIT_EXACT


async def test_an_entry_is_forgotten_when_its_time_is_up(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        await store(stub, request(), ttl_s=1)
        assert (await look_up(stub, request())).outcome == HIT_EXACT
        async with asyncio.timeout(10):
            while (await look_up(stub, request())).outcome != MISS:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", [{"tags": ["faq"]}, {"model": "small"}, {"all": True}, {"keys": "own"}])
async def test_entries_are_forgotten_on_request_and_a_dry_run_only_counts(api: Any, how: dict[str, Any]) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        key = (await store(stub, request(), tags=["faq"])).key
        await store(stub, request("Something else entirely?"), model="large")
        chosen = {"keys": [key]} if how.get("keys") else how
        count = 2 if how.get("all") else 1
        for dry_run in (True, False):
            done = await stub.InvalidateEntries(
                cache_pb2.InvalidateEntriesRequest(scope="organizations/acme", dry_run=dry_run, **chosen)
            )
            assert done.entries == count
            assert ((await look_up(stub, request())).outcome == MISS) is not dry_run


async def test_one_replica_forgets_what_another_was_told_to(suite: Any) -> None:
    async with suite("cache") as one, suite("cache") as other:
        first, second = (cache_pb2_grpc.CacheServiceStub(each.mesh.channel("cache")) for each in (one, other))
        await store(first, request())
        assert (await look_up(second, request())).outcome == HIT_EXACT
        await first.InvalidateEntries(cache_pb2.InvalidateEntriesRequest(scope="organizations/acme", all=True))
        async with asyncio.timeout(10):
            while (await look_up(second, request())).outcome != MISS:
                await asyncio.sleep(0.05)


async def test_replicas_share_what_is_hot_in_redis(suite: Any, redis_url: str) -> None:
    async with suite("cache", redis_url=redis_url) as one:
        stub = cache_pb2_grpc.CacheServiceStub(one.mesh.channel("cache"))
        await store(stub, request())
        assert (await look_up(stub, request())).outcome == HIT_EXACT
        await stub.InvalidateEntries(cache_pb2.InvalidateEntriesRequest(scope="organizations/acme", all=True))
        assert (await look_up(stub, request())).outcome == MISS


async def test_statistics_count_look_ups_by_what_they_came_to(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = stub_of(channel_of)
        await look_up(stub, request())
        await store(stub, request())
        for _ in range(3):
            await look_up(stub, request())
        stats = await stub.GetCacheStats(cache_pb2.GetCacheStatsRequest(scope="organizations/acme"))
        assert (stats.entries, stats.lookups, stats.hits_exact, stats.misses, stats.avoided_usd_nanos) == (1, 4, 3, 1, 21)


async def test_without_its_database_a_look_up_is_a_miss_that_says_so(suite: Any, postgres: Any, database_url: str) -> None:
    import asyncpg

    async with suite("cache") as running:
        stub = cache_pb2_grpc.CacheServiceStub(running.mesh.channel("cache"))
        connection = await asyncpg.connect(postgres.url("postgres"))
        name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        found = await look_up(stub, copy.deepcopy(request()))
        assert (found.outcome, found.reason) == (MISS, "store unavailable")
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        async with asyncio.timeout(15):
            while (await look_up(stub, request())).reason == "store unavailable":
                await asyncio.sleep(0.1)
        await connection.close()
