"""Checks of hits by meaning: a fresh answer is bought beside, charged and compared, and the receipt says so."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_orchestrator.fresh_answers import check_id

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
ALWAYS = {"FARTHING_CACHE_CHECK_PPM": "1000000"}


async def stored(cache: Any) -> None:
    """Waits until the first answer is remembered, which happens beside it."""
    async with asyncio.timeout(10):
        while not (await cache.GetCacheStats(cache_pb2.GetCacheStatsRequest(scope="organizations/acme"))).entries:
            await asyncio.sleep(0.02)


async def judged(cache: Any) -> Any:
    """The hit, once something is known of it."""
    async with asyncio.timeout(10):
        while True:
            hits = (await cache.ListHits(cache_pb2.ListHitsRequest(scope="organizations/acme"))).hits
            if hits and hits[0].verdict:
                return hits[0]
            await asyncio.sleep(0.02)


async def test_a_checked_hit_is_served_at_once_and_compared_with_an_answer_that_is_bought_beside(whole: Any) -> None:
    async with whole(environment=ALWAYS) as channel_of:
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
        cache = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        await orchestrator.Complete(_suite.complete_request(_suite.EASY, model="small"))
        await stored(cache)
        request = _suite.complete_request(_suite.ALIKE, model="small")
        answered = await orchestrator.Complete(request)
        receipt = answered.receipt
        assert receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC
        assert (receipt.cost_usd_nanos, receipt.caching.checked, receipt.caching.reason) == (0, True, "similar")
        certificate = receipt.caching.certificate
        assert certificate.probability >= certificate.probability_min
        assert certificate.error_budget_ppm == 10_000
        assert [step.note for step in receipt.steps if step.name == orchestrator_pb2.STEP_NAME_SHADOW] == [
            "check: a fresh answer is bought to compare the hit with"
        ]
        hit = await judged(cache)
        assert (hit.hit_id, hit.verdict, hit.agreement) == (receipt.caching.hit_id, cache_pb2.HIT_VERDICT_RIGHT, 1.0)
        ledger = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        asked = budget_pb2.GetReservationRequest(request_id=check_id(request.request_id), scope=request.scope)
        async with asyncio.timeout(10):
            while (held := await ledger.GetReservation(asked)).reservation.state != budget_pb2.RESERVATION_STATE_SETTLED:
                await asyncio.sleep(0.02)
        assert held.reservation.settled_usd_nanos > 0


@pytest.mark.parametrize("section", ["checks: false", "error_budget: 0.00001"])
async def test_the_policy_forbids_checks_and_tightens_the_budget(whole: Any, section: str) -> None:
    more = f"policy: {{cache: {{mode: semantic, {section}}}}}\n"
    async with whole(environment=ALWAYS, more=more) as channel_of:
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
        cache = cache_pb2_grpc.CacheServiceStub(channel_of("cache"))
        await orchestrator.Complete(_suite.complete_request(_suite.EASY, model="small"))
        await stored(cache)
        receipt = (await orchestrator.Complete(_suite.complete_request(_suite.ALIKE, model="small"))).receipt
        assert not receipt.caching.checked
        tight = section.startswith("error")
        assert (receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_MISS) is tight
        assert receipt.caching.certificate.error_budget_ppm == (10 if tight else 10_000)
