"""What requests want of the router's choice, through the whole suite: overrides, the policy, the model's name, the receipt, the cache."""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
EASY = _suite.EASY
POLICY = "policy: {routing: {calls_max: 2, cost_usd_nanos_max: 30000000}, cache: {mode: exact}}\n"


async def completed(channel_of: Any, *, model: str = "", **overrides: Any) -> Any:
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
    given = orchestrator_pb2.PolicyOverrides(**overrides) if overrides else None
    return await stub.Complete(_suite.complete_request(EASY, model=model, overrides=given))


async def test_what_matters_most_decides_and_the_receipt_says_what_did(whole: Any) -> None:
    async with whole(more=POLICY) as channel_of:
        best = await completed(channel_of, model="farthing/auto:quality")
        assert (best.model, best.receipt.routing.strategy) == ("large", "quality")
        assert "quality matters most" in best.receipt.routing.reason
        # An answer to one wish is no answer to another, also where the model's name is the only difference.
        cheap = await completed(channel_of, model="farthing/auto:cheap")
        assert (cheap.model, cheap.receipt.cache_outcome) == ("open", cache_pb2.LOOKUP_OUTCOME_MISS)
        usual = await completed(channel_of)
        assert (usual.model, usual.receipt.routing.strategy) == ("small", "cascade")
        again = await completed(channel_of, optimize_for=router_pb2.OPTIMIZE_FOR_QUALITY)
        assert (again.model, again.receipt.cache_outcome) == ("large", cache_pb2.LOOKUP_OUTCOME_HIT_EXACT)
        assert not again.receipt.HasField("routing")


async def test_a_rule_stands_on_the_receipt_and_a_request_stays_within_its_policy(whole: Any) -> None:
    async with whole(more=POLICY) as channel_of:
        router = router_pb2_grpc.RouterServiceStub(channel_of("router"))
        action = router_pb2.RuleAction(strategy=router_pb2.RULE_STRATEGY_CHEAPEST, models=["small"])
        rule = router_pb2.Rule(scope="organizations/acme", action=action)
        kept = (await router.CreateRule(router_pb2.CreateRuleRequest(request_id=str(uuid.uuid4()), rule=rule))).rule
        routing = (await completed(channel_of)).receipt.routing
        assert (routing.strategy, routing.rule_id, routing.rule_version) == ("cheapest", kept.rule_id, 1)
        assert routing.complexity > 0
        for overrides, problem in (
            ({"calls_max": 3}, "overrides.calls_max"),
            ({"cost_usd_nanos_max": 10**9}, "overrides.cost_usd_nanos_max"),
            ({"cost_usd_nanos_max": 1}, "nanodollars, more than 1"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await completed(channel_of, **overrides)
            assert problem in (caught.value.details() or "")
