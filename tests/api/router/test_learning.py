"""Feedback and quality through the stub."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import running_replay
from farthing_runtime.status import error_info, rich_status

SCOPE = "organizations/acme/workspaces/search"
CATALOG = """\
version: 1
providers: {{replay: {{base_url: "{url}", api_key_optional: true, retries: 1}}}}
models:
  small: {{provider: replay, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}}}
  large: {{provider: replay, price: {{input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "20"}}}}
"""
RECORDINGS = Recordings(
    [
        Recorded(model, prompt, answer, 10, 8)
        for model in ("small", "large")
        for prompt, answer in (
            ("What is 6 * 7?", "6 * 7 = 42. The answer is 42."),
            ("Say something.", "I cannot help with that."),
        )
    ]
)


@pytest.fixture
async def router(api: Any, tmp_path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_replay(RECORDINGS))
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        channel_of = await stack.enter_async_context(
            api("router", config_file=path, environment={"FARTHING_ROUTER_REFRESH_S": "0.05"})
        )
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


def conversation(prompt: str) -> list[Any]:
    return [chat_pb2.ChatMessage(role="user", content=prompt)]


async def answered(stub: Any, prompt: str = "What is 6 * 7?", *, model: str = "small", scope: str = SCOPE) -> str:
    request_id = str(uuid.uuid4())
    fields = {"scope": scope, "messages": conversation(prompt), "task": "sums"}
    plan = await stub.PlanRoute(
        router_pb2.PlanRouteRequest(model=model, input_tokens={"o200k": 10}, request_id=request_id, **fields)
    )
    await stub.Generate(router_pb2.GenerateRequest(request_id=request_id, route=plan.route, **fields))
    return request_id


def opinion(answered_request_id: str, **fields: Any) -> Any:
    given = {"request_id": str(uuid.uuid4()), "scope": SCOPE, **fields}
    return router_pb2.RecordFeedbackRequest(answered_request_id=answered_request_id, **given)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    info = error_info(status) if status is not None else None
    return caught.value.code(), info.reason if info is not None else ""


async def report(stub: Any, scope: str = SCOPE) -> Any:
    return await stub.GetQualityReport(router_pb2.GetQualityReportRequest(scope=scope))


async def test_an_opinion_counts_at_once_for_the_answer_and_for_its_model(router: Any) -> None:
    good = await router.RecordFeedback(opinion(await answered(router), thumb=router_pb2.THUMB_UP))
    bad = await router.RecordFeedback(opinion(await answered(router), score=0.0))
    assert (good.quality, good.model, good.repeated) == (1.0, "small", False)
    assert bad.quality == 0.0
    assert bad.model_quality < good.model_quality
    (found,) = (await report(router)).models
    assert (found.model, found.task, found.answers, found.opinions) == ("small", "sums", 2, 2)
    assert found.quality == pytest.approx(0.5)
    assert found.quality_lower < 0.5 < found.quality_upper
    assert [day.answers for day in found.days] == [2]


async def test_a_correction_is_compared_with_the_answer_of_which_only_a_fingerprint_is_kept(router: Any) -> None:
    right = await router.RecordFeedback(opinion(await answered(router), correction="42"))
    wrong = await router.RecordFeedback(opinion(await answered(router), correction="It is 43. The answer is 43."))
    assert (right.quality, wrong.quality) == (1.0, 0.0)


async def test_truth_outweighs_what_users_say(router: Any) -> None:
    request_id = await answered(router)
    await router.RecordFeedback(opinion(request_id, thumb=router_pb2.THUMB_UP))
    known = await router.RecordFeedback(opinion(request_id, score=0.0, source=router_pb2.FEEDBACK_SOURCE_TRUTH))
    later = await router.RecordFeedback(opinion(request_id, thumb=router_pb2.THUMB_UP))
    assert (known.quality, later.quality) == (0.0, 0.0)


async def test_the_same_feedback_twice_counts_once_and_another_under_its_id_is_refused(router: Any) -> None:
    request_id = await answered(router)
    first = opinion(request_id, score=1.0)
    assert not (await router.RecordFeedback(first)).repeated
    assert (await router.RecordFeedback(first)).repeated
    other = opinion(request_id, score=0.0, request_id=first.request_id)
    assert await refused(router.RecordFeedback(other)) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert (await report(router)).models[0].opinions == 1


async def test_only_answers_of_the_own_scope_take_feedback_and_strangers_learn_nothing(router: Any) -> None:
    request_id = await answered(router)
    unknown = (grpc.StatusCode.NOT_FOUND, "DECISION_UNKNOWN")
    for stranger in (
        opinion(str(uuid.uuid4()), score=1.0),
        opinion("no\x00thing", score=1.0),
        opinion(request_id, score=1.0, scope="organizations/other"),
        opinion(request_id, score=1.0, scope="organizations/acme/workspaces/sales"),
    ):
        assert await refused(router.RecordFeedback(stranger)) == unknown
    assert (await router.RecordFeedback(opinion(request_id, score=1.0, scope="organizations/acme"))).quality == 1.0
    assert not (await report(router, "organizations/other")).models
    assert not (await report(router, "organizations/acme/workspaces/sales")).models


async def test_a_score_is_made_of_parts_that_say_why(router: Any) -> None:
    async def score(answer: str, **fields: Any) -> Any:
        return await router.ScoreQuality(
            router_pb2.ScoreQualityRequest(
                scope=SCOPE,
                messages=conversation("What is 6 * 7?"),
                answer=chat_pb2.Answer(content=answer, finish_reason=fields.pop("finish_reason", "stop")),
                **fields,
            )
        )

    right = await score("6 * 7 = 42. The answer is 42.", reference="42", others=["It is 42.", "42"])
    wrong = await score("6 * 7 = 43. The answer is 43.", reference="42", others=["It is 42.", "42"])
    cut, empty, refusal = await score("6 * 7", finish_reason="length"), await score(""), await score("I cannot help with that.")
    prose = await score("It is 42.", parameters=chat_pb2.Parameters(response_format_json='{"type": "json_object"}'))
    assert right.score > 0.9
    for bad in (wrong, cut, empty, refusal, prose):
        assert bad.score < 0.4
        assert sum(part.weight for part in bad.parts) == pytest.approx(1.0)
    parts = {part.name: part.value for part in wrong.parts}
    assert (parts["reference"], parts["agreement"], parts["calculation"], parts["complete"]) == (0.0, 0.0, 0.0, 1.0)
    assert not right.calibrated


async def test_with_enough_opinions_scores_are_calibrated_on_them_and_their_correlation_is_reported(router: Any) -> None:
    """An organisation that likes refusals best gets scores that say so."""
    for number in range(60):
        likes = number % 2 == 0
        request_id = await answered(router, "Say something." if likes else "What is 6 * 7?")
        await router.RecordFeedback(opinion(request_id, score=float(likes)))
    asked = router_pb2.ScoreQualityRequest(
        scope=SCOPE,
        task="sums",
        messages=conversation("Say something."),
        answer=chat_pb2.Answer(content="I cannot help with that."),
    )
    scored = await router.ScoreQuality(asked)
    while not scored.calibrated:  # what was taken in is fitted beside requests
        await asyncio.sleep(0.01)
        scored = await router.ScoreQuality(asked)
    assert scored.opinions >= 40
    assert scored.score > 0.8
    found = await report(router)
    assert found.correlated_answers == 60
    assert found.correlation < 0  # as they were given at the time: rules like refusals least
    assert found.rank_correlation < 0
    stranger = await router.ScoreQuality(router_pb2.ScoreQualityRequest(**{**_fields(asked), "scope": "organizations/other"}))
    assert not stranger.calibrated


def _fields(message: Any) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


async def test_a_cheaper_model_is_recommended_with_what_it_rests_on_and_its_intervals(router: Any) -> None:
    for model in ("large", "small"):
        for _ in range(25):
            request_id = await answered(router, model=model)
            await router.RecordFeedback(opinion(request_id, score=1.0))
    asked = router_pb2.RecommendModelsRequest(scope=SCOPE, quality_loss_max=0.1)
    answer = await router.RecommendModels(asked)
    (found,) = answer.recommendations
    assert (found.task, found.model, found.recommended_model, found.requests) == ("sums", "large", "small", 25)
    assert found.saving_usd_nanos == round(found.cost_usd_nanos * 0.9)
    assert found.saving_usd_nanos_lower < found.saving_usd_nanos < found.saving_usd_nanos_upper < found.cost_usd_nanos
    assert found.quality_loss_lower < found.quality_loss < found.quality_loss_upper
    assert found.quality_loss < 0.1
    assert 0.5 < found.confidence < 1
    assert "25 opinions" in found.reason
    assert "try it in an experiment first" in found.reason
    (passed,) = answer.passed_over
    assert passed.startswith("sums at small: no model that may and can serve it is cheaper")
    elsewhere = await router.RecommendModels(router_pb2.RecommendModelsRequest(scope="organizations/other"))
    assert not elsewhere.recommendations
    assert not elsewhere.passed_over


async def test_a_model_that_feedback_shows_to_be_worse_is_passed_over_with_the_loss(router: Any) -> None:
    for model, score in (("large", 1.0), ("small", 0.0)):
        for _ in range(25):
            await router.RecordFeedback(opinion(await answered(router, model=model), score=score))
    answer = await router.RecommendModels(router_pb2.RecommendModelsRequest(scope=SCOPE))
    assert not answer.recommendations
    assert any(
        each.startswith("sums at large: every cheaper model loses more than 0.020; small least") for each in answer.passed_over
    )
