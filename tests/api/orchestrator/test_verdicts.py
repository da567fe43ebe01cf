"""What the ledger says of a wish to spend, and what is made of it: other models, critical work, refusals that say what else may help."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2
from farthing.orchestrator.v1 import orchestrator_pb2

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
TOKEN, SCOPE, heard, refusal = _suite.TOKEN_USD_NANOS, _suite.SCOPE, _suite.heard, _suite.refusal
DEGRADE = budget_pb2.EXHAUSTION_ACTION_DEGRADE


@pytest.mark.parametrize("streamed", [False, True])
async def test_where_the_ledger_degrades_open_models_answer_and_the_receipt_says_why(desk: Any, streamed: bool) -> None:
    async with desk() as at:
        budget_id = await at.limit(1_000, limit_terms=budget_pb2.LimitTerms(soft_limit_percent=50))
        await at.spend(600)
        request = at.ask(model="")
        end = (await heard(at.stream(request)))[1] if streamed else await at.orchestrator.Complete(request)
        assert (end.model, end.receipt.cost_usd_nanos) == ("open", 0)
        decision = end.receipt.decision
        assert (decision.verdict, decision.reason) == (budget_pb2.VERDICT_DEGRADE, "SOFT_LIMIT")
        assert decision.allowed_class == budget_pb2.MODEL_CLASS_OPEN
        assert "MARK_CRITICAL" in [alternative.kind for alternative in decision.alternatives]
        await at.ended(request)
        assert (await at.budget(budget_id)).spent_usd_nanos == 600 * TOKEN


async def test_what_stood_in_for_want_of_money_is_not_remembered(desk: Any) -> None:
    async with desk() as at:
        await at.limit(1_000, limit_terms=budget_pb2.LimitTerms(soft_limit_percent=50))
        await at.spend(600)
        request = at.ask(model="")
        request.overrides.cache_mode = orchestrator_pb2.CACHE_MODE_EXACT
        answer = await at.orchestrator.Complete(request)
        steps = {step.name: step for step in answer.receipt.steps}
        assert steps[orchestrator_pb2.STEP_NAME_REMEMBER].outcome == orchestrator_pb2.STEP_OUTCOME_SKIPPED


async def test_a_named_model_is_not_swapped_for_an_open_one(desk: Any) -> None:
    async with desk() as at:
        await at.limit(1_000, limit_terms=budget_pb2.LimitTerms(soft_limit_percent=50))
        await at.spend(600)
        refused = await refusal(at.orchestrator.Complete(at.ask()))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_DEGRADED")
        assert (refused.facts["verdict"], refused.facts["cause"]) == ("DEGRADE", "SOFT_LIMIT")
        assert not at.upstream.bodies


async def test_an_exhausted_budget_says_which_until_when_and_what_else_could_be_done(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(1_000)
        await at.spend(900)
        refused = await refusal(at.orchestrator.Complete(at.ask()))
        assert (refused.reason, refused.facts["budget_id"], refused.facts["verdict"]) == ("BUDGET_EXHAUSTED", budget_id, "DENY")
        assert refused.facts["alternatives"].split(",") == ["OPEN_MODELS", "FEWER_OUTPUT_TOKENS", "MARK_CRITICAL", "WAIT"]
        assert 90 <= int(refused.facts["output_tokens_max"]) <= 100
        assert refused.retry_after_s is not None
        assert refused.retry_after_s > 0
        fewer = await at.orchestrator.Complete(at.ask(tokens_max=int(refused.facts["output_tokens_max"])))
        assert fewer.usage.output_tokens == 20


async def test_critical_work_goes_beyond_the_limit_and_no_further_than_the_budget_says(desk: Any) -> None:
    async with desk(policy="  tasks: {chat: {critical: true}, caption: {critical: false}}") as at:
        budget_id = await at.limit(1_000, limit_terms=budget_pb2.LimitTerms(critical_limit_percent=150))
        await at.spend(1_000)
        answer = await at.orchestrator.Complete(at.ask(model="", tokens_max=200))
        assert answer.model == "cheap"
        degraded = await at.orchestrator.Complete(at.ask(model="", tokens_max=200, task="caption"))
        assert (degraded.model, degraded.receipt.decision.reason) == ("open", "LIMIT")
        refused = await refusal(at.orchestrator.Complete(at.ask(tokens_max=600)))
        assert refused.reason == "BUDGET_EXHAUSTED"
        await at.usage(requests=3)
        assert (await at.budget(budget_id)).spent_usd_nanos <= 1_500 * TOKEN


async def test_work_of_which_nothing_is_said_stops_at_the_limit(desk: Any) -> None:
    async with desk() as at:
        await at.limit(100)
        await at.spend(100)
        assert (await refusal(at.orchestrator.Complete(at.ask(model="")))).reason == "BUDGET_EXHAUSTED"


async def test_a_request_may_be_marked_critical_only_where_the_policy_lets_it(desk: Any) -> None:
    async with desk() as at:
        request = at.ask()
        request.overrides.critical = True
        refused = await refusal(at.orchestrator.Complete(request))
        assert (refused.code, refused.facts["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "overrides.critical")
    async with desk(policy="  budget: {may_mark_critical: true}") as at:
        await at.limit(100)
        await at.spend(100)
        refused = await refusal(at.orchestrator.Complete(at.ask(tokens_max=50)))
        assert "MARK_CRITICAL" in refused.facts["alternatives"]
        request = at.ask(tokens_max=50)
        request.overrides.critical = True
        assert (await at.orchestrator.Complete(request)).usage.output_tokens == 20


async def test_a_budget_on_a_model_a_provider_or_a_tag_stops_what_it_is_for_and_nothing_else(desk: Any) -> None:
    async with desk() as at:
        for only in ({"model": "dear"}, {"provider": "spare"}, {"tag": "trial"}):
            await at.limit(1, selector=budget_pb2.BudgetSelector(**only))
        stopped = [at.ask(), at.ask(model="other"), at.ask(model="cheap", tags=["trial", "trial"])]
        for request in stopped:
            assert (await refusal(at.orchestrator.Complete(request))).reason == "BUDGET_EXHAUSTED"
        assert (await at.orchestrator.Complete(at.ask(model="cheap", tags=["paid"]))).usage.output_tokens == 20


@pytest.mark.parametrize(
    ("spent", "verdict", "reason"),
    [(0, "ALLOW", "FITS"), (600, "DEGRADE", "SOFT_LIMIT"), (1_000, "DENY", "LIMIT")],
)
async def test_an_estimate_gives_the_verdict_in_full(desk: Any, spent: int, verdict: str, reason: str) -> None:
    async with desk() as at:
        await at.limit(1_000, limit_terms=budget_pb2.LimitTerms(soft_limit_percent=50))
        if spent:
            await at.spend(spent)
        request = orchestrator_pb2.EstimateCostRequest(request=at.ask(tokens_max=100))
        estimate = await at.orchestrator.EstimateCost(request)
        assert (budget_pb2.Verdict.Name(estimate.verdict), estimate.decision.reason) == (f"VERDICT_{verdict}", reason)
        assert bool(estimate.decision.alternatives) == (verdict != "ALLOW")


async def rate_limit(at: Any, **limits: int) -> None:
    await at.ledger.CreateRateLimit(
        budget_pb2.CreateRateLimitRequest(request_id=str(uuid.uuid4()), scope="organizations/acme", **limits)
    )


async def test_a_rate_limit_refuses_before_anything_else_and_says_when_to_come_back(desk: Any) -> None:
    async with desk() as at:
        await rate_limit(at, requests_per_minute=2)
        answers = [await at.orchestrator.Complete(at.ask()) for _ in range(2)]
        step = answers[0].receipt.steps[0]
        assert (step.name, step.note) == (orchestrator_pb2.STEP_NAME_ADMIT, "1 requests left this minute")
        for refused in (await refusal(at.orchestrator.Complete(at.ask())), (await heard(at.stream(at.ask())))[1]):
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert refused.retry_after_s > 0
        assert len(at.upstream.bodies) == 2


async def test_tokens_are_corrected_to_what_was_used(desk: Any) -> None:
    async with desk() as at:
        await rate_limit(at, tokens_per_minute=2_000)
        left = []
        for _ in range(5):
            request = at.ask(tokens_max=900)
            answer = await at.orchestrator.Complete(request)
            await at.ended(request)
            left.append(answer.receipt.steps[0].note)
        assert len(set(left)) == 5, "each was admitted with 900 tokens and gave most of them back"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_place_is_given_back_however_a_request_ends(desk: Any, streamed: bool) -> None:
    async with desk(timeout_s=0.2) as at:
        await rate_limit(at, concurrent_requests=1)
        at.upstream.script |= {"other": "refuse", "cheap": "hang"}
        for model in ("dear", "other", "ghost", "cheap", "dear"):
            await let_in(at, model, streamed)


async def let_in(at: Any, model: str, streamed: bool) -> None:
    """A request that is let in, sooner or later: places are given back beside the answer's path."""
    async with asyncio.timeout(10):
        while True:
            if streamed:
                _, end = await heard(at.stream(at.ask(model=model)))
            else:
                try:
                    end = await at.orchestrator.Complete(at.ask(model=model))
                except grpc.aio.AioRpcError as error:
                    end = _suite.Refusal(error)
            if getattr(end, "reason", "") != "RATE_LIMITED":
                return
            await asyncio.sleep(0.01)


async def test_a_stream_that_is_left_gives_its_place_back(desk: Any) -> None:
    async with desk() as at:
        await rate_limit(at, concurrent_requests=1)
        at.upstream.script["dear"], at.upstream.pause_after = 200, 0
        call = at.stream(at.ask())
        reading = asyncio.ensure_future(anext(call.__aiter__()))
        await at.upstream.paused.wait()
        assert (await refusal(at.orchestrator.Complete(at.ask()))).reason == "RATE_LIMITED"
        reading.cancel()
        call.cancel()
        await asyncio.wait([reading])
        await let_in(at, "cheap", False)


async def test_a_request_id_that_comes_again_does_not_give_the_first_ones_place_back(desk: Any) -> None:
    async with desk() as at:
        await rate_limit(at, concurrent_requests=1)
        at.upstream.script["dear"] = "hang"
        request = at.ask()
        first = asyncio.ensure_future(at.orchestrator.Complete(request))
        await at.upstream.paused.wait()
        assert (await refusal(at.orchestrator.Complete(request))).reason == "REQUEST_ID_REUSED"
        assert (await refusal(at.orchestrator.Complete(at.ask()))).reason == "RATE_LIMITED"
        at.upstream.go.set()
        await first
        await let_in(at, "cheap", False)


async def test_usage_is_known_by_service_domain_key_and_tag(desk: Any) -> None:
    async with desk() as at:
        request = at.ask(service="crawler", domain="search", key_id="k-1", tags=["a", "b", "a"])
        await at.orchestrator.Complete(request)
        groups = ("service", "domain", "key")
        rows = await at.usage(group_by=[budget_pb2.UsageGroup.Value(f"USAGE_GROUP_{group.upper()}") for group in groups])
        assert [(row.service, row.domain, row.key_id) for row in rows] == [("crawler", "search", "k-1")]
        rows = await at.usage(group_by=[budget_pb2.USAGE_GROUP_TAG], requests=2)
        assert [row.tag for row in rows] == ["a", "b"]


@pytest.mark.parametrize("field", ["task", "service", "domain", "key_id"])
async def test_a_label_that_the_ledger_could_not_keep_is_refused_before_anything_is_bought(desk: Any, field: str) -> None:
    async with desk() as at:
        refused = await refusal(at.orchestrator.Complete(at.ask(**{field: "a\x00b"})))
        assert refused.facts["field"] == field
        assert not at.upstream.bodies
