"""Cost against quality and dependence on providers, through the router's stub, from what calls left behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import running_replay

SCOPE = "organizations/acme"
CATALOG = """\
version: 1
providers:
  big: {{base_url: "{url}", api_key_optional: true, retries: 0}}
  other: {{base_url: "{url}", api_key_optional: true, retries: 0}}
models:
  main: {{provider: big, price: {{input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "10"}}}}
  cheap: {{provider: big, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "1"}}}}
  spare: {{provider: other, price: {{input_usd_per_million_tokens: "4", output_usd_per_million_tokens: "4"}}}}
  narrow: {{provider: other, context_window_tokens: 40, price: {{input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "1"}}}}
routing: {{fallbacks: {{cheap: [spare]}}}}
"""
RECORDINGS = Recordings(
    [Recorded(model, "question", f"An answer of {model} that is long enough.", 100, 50) for model in ("main", "cheap", "spare")]
)


@pytest.fixture
async def router(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    for name in ("PERFORMANCE_FLUSH_S", "DECISIONS_FLUSH_S", "OUTCOMES_WRITE_S"):
        monkeypatch.setenv(f"FARTHING_ROUTER_{name}", "0.02")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_replay(RECORDINGS, None))
        path = tmp_path / "farthing.yaml"
        path.write_text(CATALOG.format(url=url))
        channel_of = await stack.enter_async_context(api("router", config_file=path))
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


async def ask(stub: Any, model: str, *, scope: str = SCOPE, score: float | None = None) -> None:
    messages, request_id = [chat_pb2.ChatMessage(role="user", content="question")], str(uuid.uuid4())
    route = (await stub.PlanRoute(router_pb2.PlanRouteRequest(scope=scope, messages=messages, task="chat", model=model))).route
    given: Any = {"request_id": request_id, "scope": scope, "route": route, "messages": messages, "task": "chat"}
    await stub.Generate(router_pb2.GenerateRequest(**given))
    if score is not None:
        opinion: Any = {"request_id": str(uuid.uuid4()), "answered_request_id": request_id, "scope": scope, "score": score}
        await stub.RecordFeedback(router_pb2.RecordFeedbackRequest(**opinion))


async def analysed(stub: Any, method: str, request: Any, until: Any) -> Any:
    """An analysis, once it knows of all that was asked."""
    async with asyncio.timeout(10):
        while not until(answer := await getattr(stub, method)(request)):
            await asyncio.sleep(0.02)
    return answer


async def test_models_and_policies_stand_on_the_plane_with_what_nothing_beats_marked(router: Any) -> None:
    for model, score in (("main", 0.5), ("main", 0.5), ("cheap", 0.25), ("spare", 0.75)):
        await ask(router, model, score=score)
    await ask(router, "main", scope="organizations/globex", score=1.0)

    expected = {"main": (2, 0.5), "cheap": (1, 0.25), "spare": (1, 0.75), "fixed (policy)": (4, 0.5)}

    def complete(answer: Any) -> bool:
        return {each.name: (each.answers, each.quality) for each in answer.points} == expected

    answer = await analysed(router, "AnalyzeCostQuality", router_pb2.AnalyzeCostQualityRequest(scope=SCOPE), complete)
    found = {each.name: each for each in answer.points}
    assert [each.name for each in answer.points] == ["cheap", "spare", "fixed (policy)", "main"]
    assert [each.name for each in answer.points if each.on_pareto_front] == ["cheap", "spare"]
    assert found["main"].cost_usd_nanos_per_answer == 150 * 10_000
    assert found["spare"].quality == pytest.approx(0.75)
    assert found["spare"].quality_lower < 0.75 < found["spare"].quality_upper
    assert found["spare"].cost_usd_nanos_per_quality_point == 150 * 4_000 / 75
    assert found["fixed (policy)"].cost_usd_nanos_per_answer == 150 * (10_000 * 2 + 1_000 + 4_000) // 4
    assert found["fixed (policy)"].quality == pytest.approx(0.5)
    deeper = router_pb2.AnalyzeCostQualityRequest(scope=f"{SCOPE}/workspaces/w")
    assert not (await router.AnalyzeCostQuality(deeper)).points


async def test_dependence_is_measured_and_what_to_change_is_advised_with_figures_that_add_up(router: Any) -> None:
    for model in ("main", "main", "main", "cheap"):
        await ask(router, model)
    await ask(router, "spare", scope="organizations/globex")

    def complete(answer: Any) -> bool:
        return bool(answer.shares) and answer.risk > 0 and answer.attempts_hhi > 0 and len(answer.advice) > 0

    answer = await analysed(router, "AnalyzeDiversification", router_pb2.AnalyzeDiversificationRequest(scope=SCOPE), complete)
    (share,) = answer.shares
    assert (share.provider, share.cost_share, share.attempts_share) == ("big", 1.0, 1.0)
    assert (answer.hhi, answer.level, answer.attempts_hhi) == (10_000, "high", 10_000)
    assert 0 < share.unavailability < 0.01
    assert share.irreplaceable_share == 0
    first = answer.advice[0]
    assert (first.from_provider, first.to_model, first.task) == ("big", "spare", "chat")
    assert "spare (other)" in first.advice
    assert answer.risk - answer.risk_after_advice == pytest.approx(sum(each.risk_reduction for each in answer.advice))
    assert all(each.hhi_reduction > 0 for each in answer.advice)


async def test_an_organisation_that_asked_nothing_depends_on_nobody(router: Any) -> None:
    await ask(router, "main", scope="organizations/globex")
    answer = await router.AnalyzeDiversification(router_pb2.AnalyzeDiversificationRequest(scope="organizations/new"))
    assert (list(answer.shares), list(answer.advice), answer.hhi, answer.risk) == ([], [], 0, 0)
    assert not (await router.AnalyzeCostQuality(router_pb2.AnalyzeCostQualityRequest(scope="organizations/new"))).points
