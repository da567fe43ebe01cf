"""The error budget through the stub: reports, what does not come back, suspension and the way back, lists and certificates."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.chat.v1 import chat_pb2
from farthing_runtime.status import error_info, rich_status

SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"
SEMANTIC, MISS = cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC, cache_pb2.LOOKUP_OUTCOME_MISS
CACHED, ASKED, OTHERWISE = "How do I reset my password?", "How can I reset my password?", "how could I reset my password"
ANSWER = "Press Forgot password."


def request(prompt: str, **fields: Any) -> Any:
    made = cache_pb2.CacheRequest(**{"scope": SCOPE, "model_policy": "auto", **fields})
    made.messages.add(role="user", content=prompt)
    return made


async def store(stub: Any, prompt: str, answer: str = ANSWER) -> Any:
    said = chat_pb2.Answer(content=answer, finish_reason="stop")
    return await stub.StoreAnswer(
        cache_pb2.StoreAnswerRequest(request=request(prompt), answer=said, model="small", semantic=True)
    )


async def look_up(stub: Any, prompt: str, **fields: Any) -> Any:
    values = {"mode": cache_pb2.LOOKUP_MODE_SEMANTIC, "allow_check": True, **fields}
    return await stub.LookUpAnswer(cache_pb2.LookUpAnswerRequest(request=request(prompt), **values))


def report(hit_id: str, **fields: Any) -> Any:
    return cache_pb2.ReportHitRequest(**{"request_id": str(uuid.uuid4()), "scope": SCOPE, "hit_id": hit_id, **fields})


WRONG = {"verdict": cache_pb2.HIT_VERDICT_WRONG}


async def budget(stub: Any) -> Any:
    return await stub.GetErrorBudget(cache_pb2.GetErrorBudgetRequest(scope="organizations/acme"))


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return caught.value.code(), info.reason


async def test_a_hit_by_meaning_says_why_it_may_be_trusted(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        await store(stub, CACHED)
        found = await look_up(stub, ASKED)
        assert found.outcome == SEMANTIC
        assert found.hit_id
        certificate = found.certificate
        assert certificate.probability >= certificate.probability_min > 0.9
        assert 0 < certificate.wrong_upper_ppm <= certificate.error_budget_ppm == 10_000
        assert (certificate.evidence, certificate.category[:4]) == ("default", "how-")
        tight = await look_up(stub, ASKED, error_budget_ppm=100)
        assert (tight.outcome, tight.certificate.error_budget_ppm) == (MISS, 100)
        wide = await look_up(stub, ASKED, error_budget_ppm=900_000)
        assert wide.certificate.error_budget_ppm == 10_000
        assert not (await look_up(stub, ASKED, dry_run=True)).hit_id


async def test_case_23_a_bad_hit_is_evicted_and_does_not_come_back(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        await store(stub, CACHED)
        found = await look_up(stub, ASKED)
        bad = report(found.hit_id, **WRONG)
        said = await stub.ReportHit(bad)
        assert (said.verdict, said.evicted) == (cache_pb2.HIT_VERDICT_WRONG, True)
        assert await stub.ReportHit(bad) == said
        assert (await look_up(stub, CACHED)).outcome == MISS
        await store(stub, CACHED)
        for prompt in (ASKED, ASKED.lower(), OTHERWISE):
            again = await look_up(stub, prompt)
            assert (again.outcome, again.reason) == (MISS, "reported wrong"), prompt
        assert (await look_up(stub, CACHED)).outcome == cache_pb2.LOOKUP_OUTCOME_HIT_EXACT
        other = cache_pb2.ReportHitRequest()
        other.CopyFrom(bad)
        other.reason = "another"
        assert await refused(stub.ReportHit(other)) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_hits_are_listed_with_what_is_known_of_them_and_belong_to_their_own(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        await store(stub, CACHED)
        found = await look_up(stub, ASKED)
        for stranger in ("organizations/other", SCOPE.replace("ann", "bob")):
            assert await refused(stub.ReportHit(report(found.hit_id, scope=stranger, **WRONG))) == (
                grpc.StatusCode.NOT_FOUND,
                "HIT_UNKNOWN",
            )
        fresh = chat_pb2.Answer(content="press forgot password")
        compared = await stub.ReportHit(
            report(found.hit_id, fresh_answer=fresh, source=cache_pb2.VERDICT_SOURCE_CHECK, scope="organizations/acme")
        )
        assert (compared.verdict, compared.agreement, compared.evicted) == (cache_pb2.HIT_VERDICT_RIGHT, 1.0, False)
        feedback = await stub.ReportHit(report(found.hit_id, source=cache_pb2.VERDICT_SOURCE_FEEDBACK, **WRONG))
        assert feedback.verdict == cache_pb2.HIT_VERDICT_RIGHT  # who has compared knows better
        [listed] = (await stub.ListHits(cache_pb2.ListHitsRequest(scope="organizations/acme"))).hits
        assert (listed.asked, listed.cached, listed.hit_id) == (ASKED, CACHED, found.hit_id)
        assert (listed.source, listed.agreement) == (cache_pb2.VERDICT_SOURCE_CHECK, 1.0)
        for _ in range(2):
            await look_up(stub, ASKED)
        await asyncio.sleep(0)
        first = await until(lambda: stub.ListHits(cache_pb2.ListHitsRequest(scope="organizations/acme", page_size=2)), 2)
        page = cache_pb2.ListHitsRequest(scope="organizations/acme", page_size=2, page_token=first.next_page_token)
        assert len((await stub.ListHits(page)).hits) == 1


async def until(ask: Any, count: int) -> Any:
    """An answer, once it has a next page: hits are written down a moment after they were served."""
    async with asyncio.timeout(10):
        while True:
            answer = await ask()
            if len(answer.hits) >= count and answer.next_page_token:
                return answer
            await asyncio.sleep(0.02)


async def test_an_entry_that_is_wrong_in_itself_is_evicted_by_its_key(api: Any) -> None:
    async with api("cache") as channel_of:
        stub = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        key = (await store(stub, CACHED)).key
        said = await stub.ReportHit(
            cache_pb2.ReportHitRequest(request_id=str(uuid.uuid4()), scope=SCOPE, entry_key=key, **WRONG)
        )
        assert said.evicted
        assert (await look_up(stub, CACHED)).outcome == MISS


async def test_wrong_hits_suspend_hits_by_meaning_and_clean_comparisons_bring_them_back(api: Any) -> None:
    async with api("cache", environment={"FARTHING_CACHE_REFRESH_S": "0.05"}) as channel_of:
        stub = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        for number in range(40):
            # The same words but for their case: as sure as anything can be.
            await store(stub, f"How do I open door {number} please?")
            found = await look_up(stub, f"HOW DO I OPEN DOOR {number} PLEASE?")
            if found.outcome == MISS:
                break
            await stub.ReportHit(report(found.hit_id, **WRONG))
        row = (await budget(stub)).rows[0]
        assert row.suspended
        assert row.wrong_ppm > 10_000
        refused_hit = await look_up(stub, "HOW DO I OPEN DOOR 99 PLEASE?")
        assert refused_hit.outcome == MISS
        await store(stub, CACHED)
        async with asyncio.timeout(60):
            while (await budget(stub)).rows[0].suspended:
                for number in range(100):
                    prompt = f"{CACHED}{' ' * (number + 1)}"
                    if (await look_up(stub, prompt)).outcome == MISS:
                        await store(stub, prompt)
                await stub.InvalidateEntries(cache_pb2.InvalidateEntriesRequest(scope="organizations/acme", all=True))
                await store(stub, CACHED)
        back = await look_up(stub, CACHED.upper())
        assert back.outcome == SEMANTIC
