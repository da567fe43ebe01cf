"""The client, asyncio and blocking, against a real gRPC server whose orchestrator says what each test tells it to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import grpc
import pytest
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_client import (
    BudgetExhausted,
    Farthing,
    FarthingFailure,
    FarthingSync,
    NotAllowed,
    RateLimited,
    RequestInvalid,
    StreamBroken,
    TimedOut,
    Unreachable,
    usd,
)
from farthing_core.errors import FarthingError
from farthing_runtime.hosting import running_suite
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import StatusRow

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


class Broke(FarthingError):
    retry_after_s = 7.5


class Limited(FarthingError):
    retry_after_s = 0.0


class Busy(FarthingError):
    pass


class Secret(FarthingError):
    pass


TABLE = {
    Broke: StatusRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED", quota=True),
    Limited: StatusRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", quota=True),
    Busy: StatusRow(grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE"),
    Secret: StatusRow(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_FORBIDDEN"),
}


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Echoes the last message; `failures` are raised first, one a call."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.failures: Iterator[Exception] = iter(())
        self.cancelled = asyncio.Event()

    def _begin(self, request: Any) -> None:
        self.seen.append(request)
        failure = next(self.failures, None)
        if failure is not None:
            raise failure

    async def Complete(self, request: Any, context: Any) -> Any:
        self._begin(request)
        if request.task == "slow":
            await asyncio.sleep(5)
        return finished(request)

    async def StreamComplete(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._begin(request.request)
        try:
            for word in request.request.messages[-1].content.split():
                delta = orchestrator_pb2.StreamCompleteResponse.Delta(content=word, model="small")
                yield orchestrator_pb2.StreamCompleteResponse(delta=delta)
            if request.request.task == "endless":
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if request.request.task == "breaks":
            raise Busy("the provider hung up")
        if request.request.task != "unfinished":
            yield orchestrator_pb2.StreamCompleteResponse(finished=finished(request.request))

    async def EstimateCost(self, request: Any, context: Any) -> Any:
        self._begin(request.request)
        answer = orchestrator_pb2.EstimateCostResponse(likely_usd_nanos=5, worst_case_usd_nanos=9, verdict=1, cache_outcome=1)
        answer.route.candidates.add(model="small", role=1)
        answer.budget_left.free_usd_nanos = 100
        return answer


def finished(request: Any) -> Any:
    answer = orchestrator_pb2.CompleteResponse(model="small", extra_json='{"system_fingerprint": "fp"}')
    answer.answer.content = request.messages[-1].content
    answer.answer.finish_reason = "stop"
    answer.answer.extra_json = '{"tool_calls": [{"id": "c1"}]}'
    answer.usage.input_tokens = 10
    receipt = answer.receipt
    receipt.request_id, receipt.scope, receipt.cost_usd_nanos, receipt.baseline_usd_nanos = (
        request.request_id,
        request.scope,
        3,
        10,
    )
    receipt.saving.route_usd_nanos, receipt.cache_outcome, receipt.cache_similarity = 7, 3, 0.97
    receipt.budget_left.free_usd_nanos = 42
    receipt.steps.add(name=2, outcome=1, note="similar", duration_us=12)
    receipt.steps.add(name=99, outcome=1)
    receipt.attempts.add(model="small", provider="p", outcome=1, confidence=0.5, cost_usd_nanos=3)
    return answer


@pytest.fixture
async def server(host_settings: Callable[..., Any]) -> AsyncIterator[tuple[Orchestrator, str]]:
    orchestrator = Orchestrator()
    binding = ServiceBinding(
        "farthing.orchestrator.v1.OrchestratorService",
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
        orchestrator,
        TABLE,
    )
    async with running_suite(host_settings(), (), extra_bindings={"orchestrator": [binding]}) as suite:
        yield orchestrator, suite.grpc_address


async def test_an_answer_comes_with_its_receipt(server: Any) -> None:
    orchestrator, address = server
    async with Farthing(address, scope="organizations/acme") as farthing:
        completion = await farthing.complete("hello", model="small")
    receipt = completion.receipt
    assert (completion.text, completion.model, completion.finish_reason) == ("hello", "small", "stop")
    assert completion.tool_calls == [{"id": "c1"}]
    assert completion.extra == {"system_fingerprint": "fp"}
    assert (receipt.scope, receipt.cost_usd_nanos, receipt.saved_usd_nanos) == ("organizations/acme", 3, 7)
    assert receipt.saved_by == {"cache": 0, "prompt": 0, "route": 7}
    assert (receipt.cache, receipt.cache_similarity, receipt.budget_left_usd_nanos) == ("semantic", 0.97, 42)
    assert [(step.name, step.outcome) for step in receipt.steps] == [("look_up", "done"), ("99", "done")]
    assert receipt.attempts[0].confidence == 0.5
    assert receipt.request_id == orchestrator.seen[0].request_id
    assert usd(receipt.cost_usd_nanos) == Decimal("0.000000003")


async def test_everything_that_may_be_said_reaches_the_suite(server: Any) -> None:
    orchestrator, address = server
    request_id = str(uuid.uuid4())
    parts = [{"type": "text", "text": "look"}]
    async with Farthing(address) as farthing:
        await farthing.complete(
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ann"}],
            scope="organizations/acme",
            task="caption",
            tier="free",
            tags=["a"],
            temperature=0.0,
            output_tokens_max=7,
            stop="END",
            seed=0,
            tools=TOOLS,
            extra={"logit_bias": {"5": 1}},
            cache="off",
            cache_ttl_s=60,
            providers=["p"],
            request_id=request_id,
        )
    seen = orchestrator.seen[0]
    assert (seen.request_id, seen.scope, seen.task, seen.tier, list(seen.tags)) == (
        request_id,
        "organizations/acme",
        "caption",
        "free",
        ["a"],
    )
    assert seen.model == "farthing/auto"
    assert (seen.messages[1].content, seen.messages[1].content_parts_json) == ("", '[{"type": "text", "text": "look"}]')
    assert seen.messages[1].extra_json == '{"name": "ann"}'
    assert seen.parameters.HasField("temperature")
    assert seen.parameters.HasField("seed")
    assert not seen.parameters.HasField("top_p")
    assert (seen.parameters.output_tokens_max, list(seen.parameters.stop)) == (7, ["END"])
    assert '"weather"' in seen.parameters.tools_json
    assert seen.parameters.extra_json == '{"logit_bias": {"5": 1}}'
    assert seen.overrides.cache_mode == orchestrator_pb2.CACHE_MODE_OFF
    assert (seen.overrides.cache_ttl_s, list(seen.overrides.allowed_providers)) == (60, ["p"])


async def test_a_stream_gives_pieces_and_then_the_whole(server: Any) -> None:
    _, address = server
    async with Farthing(address) as farthing, farthing.stream("one two three") as stream:
        with pytest.raises(StreamBroken):
            _ = stream.completion
        assert [piece.text async for piece in stream] == ["one", "two", "three"]
        assert stream.completion.receipt.saved_usd_nanos == 7


async def test_a_stream_that_is_left_early_ends_the_call(server: Any) -> None:
    orchestrator, address = server
    async with Farthing(address) as farthing:
        async with farthing.stream("one two", task="endless") as stream:
            async for piece in stream:
                assert piece.text == "one"
                break
        async with asyncio.timeout(5):
            await orchestrator.cancelled.wait()


async def test_a_stream_that_fails_or_stops_short_raises_after_its_pieces(server: Any) -> None:
    _, address = server
    async with Farthing(address) as farthing:
        for task, kind in (("breaks", Unreachable), ("unfinished", StreamBroken)):
            pieces = []
            with pytest.raises(kind):
                async with farthing.stream("one two", task=task) as stream:
                    async for piece in stream:
                        pieces.append(piece.text)
            assert pieces == ["one", "two"]


async def test_refusals_are_exceptions_with_code_reason_and_facts(server: Any) -> None:
    orchestrator, address = server
    async with Farthing(address) as farthing:
        orchestrator.failures = iter(
            [Broke("no room", budget="b1"), Limited("slow"), Secret("no"), Busy("later"), RuntimeError("bug")]
        )
        with pytest.raises(BudgetExhausted, match="no room") as broke:
            await farthing.complete("x")
        assert (broke.value.code, broke.value.reason, broke.value.facts) == (
            "RESOURCE_EXHAUSTED",
            "BUDGET_EXHAUSTED",
            {"budget": "b1"},
        )
        assert broke.value.retry_after_s == 7.5
        with pytest.raises(RateLimited) as limited:
            await farthing.complete("x", service="crawler", domain="search", critical=True)
        seen = orchestrator.seen[-1]
        assert (seen.service, seen.domain, seen.overrides.critical) == ("crawler", "search", True)
        assert limited.value.retry_after_s is None, "zero says that waiting does not help"
        with pytest.raises(NotAllowed):
            await farthing.complete("x")
        with pytest.raises(Unreachable):
            await farthing.complete("x")
        with pytest.raises(FarthingFailure) as bug:
            await farthing.complete("x")
        assert (bug.value.code, bug.value.retry_after_s) == ("INTERNAL", None)
        with pytest.raises(RequestInvalid) as invalid:
            await farthing.complete("x", scope="acme")
        assert invalid.value.field == "scope"
        with pytest.raises(TimedOut):
            await farthing.complete("x", task="slow", timeout_s=0.05)
    async with Farthing("127.0.0.1:1") as nobody:
        with pytest.raises(Unreachable):
            await nobody.complete("x", timeout_s=5)


async def test_only_what_is_safe_is_tried_again(server: Any) -> None:
    orchestrator, address = server
    async with Farthing(address) as farthing:
        orchestrator.failures = iter([Busy("1"), Busy("2")])
        estimate = await farthing.estimate("x")
        assert (estimate.models, estimate.likely_usd_nanos, estimate.verdict, estimate.cache) == (
            ("small",),
            5,
            "allow",
            "miss",
        )
        assert len(orchestrator.seen) == 3
        orchestrator.failures = iter([Busy("1"), Busy("2"), Busy("3")])
        with pytest.raises(Unreachable, match="3"):
            await farthing.estimate("x")
        orchestrator.seen.clear()
        orchestrator.failures = iter([Busy("1")])
        with pytest.raises(Unreachable):
            await farthing.complete("x")
        orchestrator.failures = iter([Broke("no")])
        with pytest.raises(BudgetExhausted):
            await farthing.estimate("x")
        assert len(orchestrator.seen) == 2


async def test_blocking_code_gets_the_same(server: Any) -> None:
    orchestrator, address = server
    orchestrator.failures = iter([Busy("1")])

    def use() -> None:
        with FarthingSync(address, scope="organizations/acme") as farthing:
            assert farthing.estimate("x").worst_case_usd_nanos == 9
            assert farthing.complete("hello").receipt.scope == "organizations/acme"
            with farthing.stream("one two") as stream:
                assert [piece.text for piece in stream] == ["one", "two"]
                assert stream.completion.text == "one two"
            with pytest.raises(StreamBroken), farthing.stream("one", task="unfinished") as stream:
                assert [piece.text for piece in stream] == ["one"]
            with pytest.raises(RequestInvalid) as invalid:
                farthing.complete("x", temperature=9)
            assert invalid.value.field == "parameters.temperature"
            with pytest.raises(TimedOut):
                farthing.complete("x", task="slow", timeout_s=0.05)

    await asyncio.to_thread(use)
    assert len(orchestrator.seen) == 6


async def test_a_cache_mode_that_does_not_exist_is_told_at_once() -> None:
    async with Farthing() as farthing:
        with pytest.raises(ValueError, match="semantic"):
            await farthing.complete("x", cache="always")  # type: ignore[typeddict-item]
