"""What was learned from answers, at work on whole requests: feedback moves them, and a budget ahead of its time buys less."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
EASY, HARD, SCOPE, complete_request = _suite.EASY, _suite.HARD, _suite.SCOPE, _suite.complete_request

OFF = 'policy: {cache: {mode: "off"}, privacy: {mask: false}}'
LEARNED = """\
  rules:
    - {match: {tasks: [chat]}, action: {strategy: learned, models: [small, large], usd_nanos_per_quality_point: 10000000}}
"""


async def answered_by(stub: Any, **fields: Any) -> tuple[str, str]:
    """The id of a request that was answered, and the model that answered it."""
    request = complete_request(EASY, task="chat", **fields)
    return request.request_id, (await stub.Complete(request)).model


async def opinion(stub: Any, request_id: str, score: float) -> Any:
    """Somebody's opinion; what was answered in another replica a moment ago is known after its next write."""
    given = {"request_id": str(uuid.uuid4()), "scope": "organizations/acme", "answered_request_id": request_id, "score": score}
    for _ in range(100):
        try:
            return await stub.RecordFeedback(router_pb2.RecordFeedbackRequest(**given))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            await asyncio.sleep(0.02)
    raise AssertionError("the answer never became known")


async def test_feedback_moves_requests_of_a_learned_rule_to_the_model_that_answers_well(whole: Callable[..., Any]) -> None:
    async with whole(more=f"{LEARNED}{OFF}") as channel_of:
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
        router = router_pb2_grpc.RouterServiceStub(channel_of("router"))
        for model, score in (("small", 0.0), ("large", 1.0)):
            for _ in range(30):
                request_id, served = await answered_by(stub, model=model)
                assert served == model
                taken = await opinion(router, request_id, score)
                assert (taken.model, taken.quality) == (model, score)
        bad = Counter([(await answered_by(stub))[1] for _ in range(20)])
        assert bad["large"] == 20
        for _ in range(120):
            request_id, _ = await answered_by(stub, model="small")
            await opinion(router, request_id, 1.0)
        explained = await router.ExplainRoute(_plan())
        known = {each.model: each for each in explained.considerations}
        assert known["small"].quality_source == "feedback"
        assert 0.7 < known["small"].predicted_quality < known["large"].predicted_quality <= 1
        decided = await router.ListDecisions(router_pb2.ListDecisionsRequest(scope=SCOPE, strategy="learned"))
        assert {each.requested_model for each in decided.decisions} <= {"farthing/auto"}


def _plan() -> Any:
    request = complete_request(EASY)
    plan = router_pb2.PlanRouteRequest(scope=SCOPE, task="chat", messages=request.messages, input_tokens={"o200k": 100})
    return router_pb2.ExplainRouteRequest(plan=plan)


async def test_a_budget_far_ahead_of_its_time_serves_the_cheap_answer_that_it_would_have_escalated(
    whole: Callable[..., Any],
) -> None:
    async with whole(more=OFF) as channel_of:
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel_of("orchestrator"))
        budget = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        first = await stub.Complete(complete_request(HARD))
        assert first.model == "large"
        # A year that began this month, and nearly all of its money is held when it is young.
        terms = budget_pb2.PeriodTerms(fiscal_start_month=datetime.now(UTC).month)
        create = {"request_id": str(uuid.uuid4()), "scope": "organizations/acme", "period": budget_pb2.PERIOD_YEAR}
        estimate = 1_000 * first.receipt.cost_usd_nanos
        await budget.CreateBudget(budget_pb2.CreateBudgetRequest(**create, limit_usd_nanos=estimate, period_terms=terms))
        spend = {"request_id": str(uuid.uuid4()), "scope": SCOPE, "amount_usd_nanos": estimate * 19 // 20}
        await budget.ReserveBudget(budget_pb2.ReserveBudgetRequest(**spend))
        served = [(await stub.Complete(complete_request(HARD))).model for _ in range(3)]
        assert served[0] == "large", "nobody knew yet how the budget stands"
        assert served[1:] == ["small", "small"]
