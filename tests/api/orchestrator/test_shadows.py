"""Shadows: what is bought beside an answer, for comparison only, is charged and told apart, and nobody hears of it."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_orchestrator.shadows import shadow_id
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import peer_failure

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
TOKEN, SCOPE, heard = _suite.TOKEN_USD_NANOS, _suite.SCOPE, _suite.heard
SHADOW = orchestrator_pb2.STEP_NAME_SHADOW
SETTLED = budget_pb2.RESERVATION_STATE_SETTLED
OTHERS = ("budget", "cache", "optimizer", "privacy", "orchestrator")


class ShadowingRouter(router_pb2_grpc.RouterServiceServicer):
    """The real router, with a drift check of `model` beside every plan."""

    def __init__(self, router: Any, model: str) -> None:
        self._router = router
        self.model = model
        self.shadowed: list[tuple[str, str]] = []
        self.served: list[Any] = []

    async def PlanRoute(self, request: Any, context: Any) -> Any:
        plan = await self._passed_on(self._router.PlanRoute(request))
        named = router_pb2.PlanRouteRequest()
        named.CopyFrom(request)
        named.model = self.model
        if plan.route.candidates[0].hosted:
            beside = (await self._passed_on(self._router.PlanRoute(named))).route
            plan.shadows.add(route=beside, cause="drift")
        return plan

    async def Generate(self, request: Any, context: Any) -> Any:
        if request.shadow_of:
            self.shadowed.append((request.request_id, request.shadow_of))
            self.served.append(request.served)
        return await self._passed_on(self._router.Generate(request, timeout=context.time_remaining()))

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async with aclosing(self._router.StreamGenerate(request).__aiter__()) as events:
            async for event in events:
                yield event

    async def ListModels(self, request: Any, context: Any) -> Any:
        return await self._router.ListModels(request)

    async def _passed_on(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise peer_failure(error, peer="router") from error


@pytest.fixture
def shadowed(api: Any, suite: Any, tmp_path: Path) -> Any:
    """Hosts the suite on an Upstream, where every request is shadowed by a model: `async with shadowed("dear") as (at, router):`."""

    @asynccontextmanager
    async def host(model: str = "dear", *, policy: str = "", **environment: str) -> AsyncIterator[tuple[Any, ShadowingRouter]]:
        async with AsyncExitStack() as stack:
            upstream, path = await stack.enter_async_context(_suite.serving_upstream(tmp_path, policy=policy))
            real = await stack.enter_async_context(suite("router", config_file=path))
            router = ShadowingRouter(router_pb2_grpc.RouterServiceStub(real.mesh.channel("router")), model)
            add = router_pb2_grpc.add_RouterServiceServicer_to_server
            peers = {"router": ServiceBinding("farthing.router.v1.RouterService", add, router, {})}
            channel_of = await stack.enter_async_context(api(*OTHERS, config_file=path, peers=peers, environment=environment))
            yield _suite.Desk(channel_of, upstream), router

    return host


def shadow_of(request: Any) -> Any:
    """The shadow of a request, as far as the ledger knows it."""
    return orchestrator_pb2.CompleteRequest(request_id=shadow_id(request.request_id, 0), scope=request.scope)


async def ended_beside(at: Any, request: Any) -> list[str]:
    """The kinds of the entries of the shadow's hold, once it was made and has ended."""
    async with asyncio.timeout(10):
        while True:
            try:
                return list(await at.ended(shadow_of(request)))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.01)


def notes(answered: Any) -> list[str]:
    """What a receipt says of shadows."""
    return [step.note for step in answered.receipt.steps if step.name == SHADOW]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_shadow_is_charged_and_told_apart_and_the_caller_hears_the_answer_that_was_asked_for(
    shadowed: Any, streamed: bool
) -> None:
    async with shadowed() as (at, router):
        budget_id = await at.limit(100_000)
        at.upstream.script |= {"cheap": 10, "dear": 30}
        request = at.ask(model="cheap")
        answered = (await heard(at.stream(request)))[1] if streamed else await at.orchestrator.Complete(request)
        assert (answered.model, answered.answer.content) == ("cheap", at.upstream.text * 10)
        assert answered.receipt.cost_usd_nanos == 10 * TOKEN // 10
        assert notes(answered) == ["drift: dear → other"]
        assert await ended_beside(at, request) == ["RESERVE", "SETTLE"]
        assert router.shadowed == [(shadow_id(request.request_id, 0), request.request_id)]
        (told,) = router.served
        assert (told.model, told.answer, told.cost_usd_nanos) == ("cheap", answered.answer, answered.receipt.cost_usd_nanos)
        rows = {row.model: row for row in await both_models(at)}
        assert [(rows[name].requests, rows[name].attempts) for name in ("cheap", "dear")] == [(1, 1), (0, 1)]
        dear = rows["dear"]
        assert (dear.cost_usd_nanos, dear.baseline_usd_nanos, dear.saving.route_usd_nanos) == (30 * TOKEN, 0, -30 * TOKEN)
        budget = await at.budget(budget_id)
        assert (budget.spent_usd_nanos, budget.held_usd_nanos) == (TOKEN + 30 * TOKEN, 0)


async def both_models(at: Any) -> Any:
    """Usage by model, once the request and its shadow are written down."""
    asked = budget_pb2.QueryUsageRequest(scope="organizations/acme", group_by=[budget_pb2.USAGE_GROUP_MODEL])
    async with asyncio.timeout(10):
        while len(rows := (await at.ledger.QueryUsage(asked)).rows) < 2:
            await asyncio.sleep(0.01)
    return rows


async def test_a_shadow_keeps_nobody_waiting_and_is_let_go_when_the_grace_is_over(shadowed: Any) -> None:
    async with asyncio.timeout(30):
        async with shadowed(FARTHING_ORCHESTRATOR_DEFERRED_GRACE_S="0.1") as (at, _):
            at.upstream.script["dear"] = "hang"
            request = at.ask(model="cheap")
            answered = await at.orchestrator.Complete(request)
            assert answered.model == "cheap"
            await at.upstream.paused.wait()
            hold = (await at.reservation(shadow_of(request))).reservation
            assert hold.state == budget_pb2.RESERVATION_STATE_DISPATCHED
        await at.upstream.hung_up.wait()


@pytest.mark.parametrize(
    "terms", [{}, {"limit_terms": budget_pb2.LimitTerms(on_exhaustion=budget_pb2.EXHAUSTION_ACTION_DEGRADE)}]
)
async def test_a_shadow_that_cannot_be_paid_is_left_out_and_no_cheaper_model_stands_in(
    shadowed: Any, terms: dict[str, Any]
) -> None:
    async with shadowed() as (at, _):
        await at.limit(100, **terms)
        request = at.ask(model="cheap")
        answered = await at.orchestrator.Complete(request)
        assert notes(answered) == ["drift: dear → other"]
    assert [body["model"] for body in at.upstream.bodies] == ["cheap"]


async def test_an_answer_that_open_models_gave_for_want_of_money_has_no_shadow(shadowed: Any) -> None:
    async with shadowed("open") as (at, _):
        terms = budget_pb2.LimitTerms(on_exhaustion=budget_pb2.EXHAUSTION_ACTION_DEGRADE)
        await at.limit(1, limit_terms=terms)
        request = at.ask(model="")
        answered = await at.orchestrator.Complete(request)
        assert answered.model == "open"
        assert notes(answered) in ([], ["none without a hold that was simply granted"])
    assert [body["model"] for body in at.upstream.bodies] == ["open"]


async def test_shadows_beyond_what_may_wait_are_dropped_and_the_receipt_says_so(shadowed: Any) -> None:
    limits = {"FARTHING_ORCHESTRATOR_SHADOWS_AT_ONCE_MAX": "1", "FARTHING_ORCHESTRATOR_SHADOWS_WAITING_MAX": "0"}
    async with shadowed(**limits) as (at, _):
        at.upstream.script["dear"] = "hang"
        first = await at.orchestrator.Complete(at.ask(model="cheap"))
        second = await at.orchestrator.Complete(at.ask(model="cheap"))
        assert (notes(first), notes(second)) == (["drift: dear → other"], ["1 dropped"])
        at.upstream.script["dear"] = 20
        at.upstream.go.set()
    assert [body["model"] for body in at.upstream.bodies].count("dear") == 1


async def test_shadows_that_still_wait_at_shutdown_are_not_begun(shadowed: Any) -> None:
    async with shadowed(FARTHING_ORCHESTRATOR_SHADOWS_AT_ONCE_MAX="1") as (at, _):
        at.upstream.script["dear"] = "hang"
        for _ in range(3):
            await at.orchestrator.Complete(at.ask(model="cheap"))
        await at.upstream.paused.wait()
        asyncio.get_running_loop().call_later(0.05, at.upstream.go.set)
    assert [body["model"] for body in at.upstream.bodies].count("dear") == 1


async def test_a_shadow_reads_the_prompt_without_what_is_personal(shadowed: Any) -> None:
    async with shadowed(policy="  privacy: {mask: true}") as (at, _):
        request = at.ask(model="cheap")
        request.messages[0].content = "Write to ann@example.com that the order has left."
        await at.orchestrator.Complete(request)
        await ended_beside(at, request)
    texts = {body["model"]: body["messages"][-1]["content"] for body in at.upstream.bodies}
    assert texts["dear"] == texts["cheap"] == "Write to [EMAIL_1] that the order has left."


async def test_the_cache_remembers_the_answer_and_not_its_shadow_and_what_it_serves_has_none(shadowed: Any) -> None:
    async with shadowed() as (at, _):
        at.upstream.script |= {"cheap": 10, "dear": 30}
        overrides = orchestrator_pb2.PolicyOverrides(cache_mode=orchestrator_pb2.CACHE_MODE_EXACT)
        first = at.ask(model="cheap", overrides=overrides)
        await at.orchestrator.Complete(first)
        await ended_beside(at, first)
        async with asyncio.timeout(10):
            while not (
                hit := await at.orchestrator.Complete(at.ask(model="cheap", overrides=overrides))
            ).receipt.cache_entry_key:
                await asyncio.sleep(0.01)
        assert (hit.answer.content, notes(hit)) == (at.upstream.text * 10, [])


async def test_a_shadow_that_is_refused_gives_its_money_back(shadowed: Any) -> None:
    async with shadowed() as (at, _):
        budget_id = await at.limit(100_000)
        at.upstream.script["dear"] = "refuse"
        request = at.ask(model="cheap")
        await at.orchestrator.Complete(request)
        assert await ended_beside(at, request) == ["RESERVE", "RELEASE"]
        assert (await at.budget(budget_id)).held_usd_nanos == 0
