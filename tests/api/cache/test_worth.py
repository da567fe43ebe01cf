"""What is kept, for how long, and what goes, through the stub."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.chat.v1 import chat_pb2

SCOPE = "organizations/acme/workspaces/search"
HIT, MISS = cache_pb2.LOOKUP_OUTCOME_HIT_EXACT, cache_pb2.LOOKUP_OUTCOME_MISS


def request(prompt: str) -> Any:
    made = cache_pb2.CacheRequest(scope=SCOPE, model_policy="auto")
    made.messages.add(role="user", content=prompt)
    return made


async def store(stub: Any, prompt: str, *, content: str = "An answer.", finish_reason: str = "stop", **fields: Any) -> Any:
    answer = chat_pb2.Answer(content=content, finish_reason=finish_reason)
    values = {"model": "small", "cost_usd_nanos": 7_000, "semantic": True, **fields}
    return await stub.StoreAnswer(cache_pb2.StoreAnswerRequest(request=request(prompt), answer=answer, **values))


async def outcome(stub: Any, prompt: str, mode: int = cache_pb2.LOOKUP_MODE_EXACT) -> int:
    found = await stub.LookUpAnswer(cache_pb2.LookUpAnswerRequest(request=request(prompt), mode=mode))
    return int(found.outcome)


@pytest.mark.parametrize(
    ("prompt", "fields", "ttl_s", "reason"),
    [
        ("What is the weather in Rome?", {}, 300, "time-sensitive: changes by the minute"),
        ("What is a quorum?", {}, 86_400, "a stable fact"),
        ("What is a quorum?", {"ttl_s_max": 604_800}, 604_800, "a stable fact"),
        ("What is the weather in Rome?", {"ttl_s": 7_200}, 7_200, "as asked"),
    ],
)
async def test_an_answer_is_kept_as_long_as_it_is_likely_to_be_true(
    suite: Any, prompt: str, fields: dict[str, int], ttl_s: int, reason: str
) -> None:
    async with suite("cache") as running:
        stub = cache_pb2_grpc.CacheServiceStub(running.mesh.channel("cache"))
        kept = await store(stub, prompt, **fields)
        found = await stub.LookUpAnswer(cache_pb2.LookUpAnswerRequest(request=request(prompt)))
        assert (kept.stored, kept.reason) == (True, reason)
        assert kept.expire_time == found.entry.expire_time
        assert found.entry.expire_time.seconds - found.entry.create_time.seconds == ttl_s


async def test_broken_answers_are_refused_whoever_brings_them_and_refusals_stay_where_they_are(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        broken = await store(stub, "Why?", finish_reason="content_filter")
        assert (broken.stored, broken.reason) == (False, "broken answer: it ended with content_filter")
        assert not (await store(stub, "Why?", content="")).stored
        assert await outcome(stub, "Why?") == MISS
        refused = await store(stub, "How do I pick a lock?", content="I'm sorry, but I can't help with that.")
        assert (refused.stored, refused.reason) == (True, "a refusal: kept for the same request only")
        assert await outcome(stub, "How do I pick a lock?") == HIT
        assert await outcome(stub, "How can I pick a lock?", cache_pb2.LOOKUP_MODE_SEMANTIC) == MISS


async def test_a_full_room_keeps_what_saves_most_and_turns_the_rest_away(suite: Any) -> None:
    environment = {"FARTHING_CACHE_ORGANIZATION_ENTRIES_MAX": "100", "FARTHING_CACHE_FLUSH_INTERVAL_S": "0.05"}
    async with suite("cache", environment=environment) as running:
        stub = cache_pb2_grpc.CacheServiceStub(running.mesh.channel("cache"))
        for number in range(110):
            await store(stub, f"Question number {number}?", cost_usd_nanos=1_000_000 * (number + 1), semantic=False)
        stats = cache_pb2.GetCacheStatsResponse()
        async with asyncio.timeout(20):
            while stats.entries + stats.evicted != 110 or stats.entries > 100:
                stats = await stub.GetCacheStats(cache_pb2.GetCacheStatsRequest(scope="organizations/acme"))
                await asyncio.sleep(0.02)
        assert (stats.entries >= 90, stats.payload_bytes_max) == (True, 1 << 30)
        assert await outcome(stub, "Question number 109?") == HIT
        cheap = await store(stub, "Another one?", cost_usd_nanos=1_000)
        assert (cheap.stored, cheap.reason) == (False, "worth less than what would have to go")
        assert (await store(stub, "A dear one?", cost_usd_nanos=10**9)).stored
        async with asyncio.timeout(20):
            while not stats.not_admitted:
                stats = await stub.GetCacheStats(cache_pb2.GetCacheStatsRequest(scope="organizations/acme"))
                await asyncio.sleep(0.02)
        assert stats.not_admitted == 1
