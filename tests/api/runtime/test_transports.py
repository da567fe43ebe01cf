"""Both ways to call a service answer alike: in process and over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.errors import FarthingError
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import StatusRow, error_info, peer_failure, rich_status
from google.rpc import error_details_pb2

SCOPE = "organizations/acme"


class NotThere(FarthingError):
    def __init__(self, budget_id: str) -> None:
        super().__init__(f"no budget {budget_id}", budget_id=budget_id)
        self.retry_after_s = 1.5


class Budget(budget_pb2_grpc.BudgetServiceServicer):
    """Answers just enough to see what the transports make of it."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.metadata: dict[str, Any] = {}

    async def GetBudget(self, request: Any, context: Any) -> Any:
        self.metadata = dict(context.invocation_metadata() or ())
        if request.budget_id == "missing":
            raise NotThere("missing")
        if request.budget_id == "broken":
            raise RuntimeError("the secret is 42")
        if request.budget_id == "slow":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        remaining = context.time_remaining()
        return budget_pb2.GetBudgetResponse(budget=budget_pb2.Budget(budget_id=request.budget_id, version=int(remaining or -1)))


class Router(router_pb2_grpc.RouterServiceServicer):
    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.read = 0

    async def CalibrateCascade(self, requests: Any, context: Any) -> Any:
        """Reads all examples, or fails or hangs on one of a task that says so."""
        try:
            async for request in requests:
                self.read += 1
                for example in request.examples.examples:
                    if example.task == "break":
                        raise NotThere("in the stream")
                    if example.task == "enough":
                        return router_pb2.CalibrateCascadeResponse(repeated=True)
                    if example.task == "hang":
                        await asyncio.sleep(30)
        finally:
            self.closed.set()
        calibration = router_pb2.Calibration(examples=self.read, version=int(context.time_remaining() or -1))
        return router_pb2.CalibrateCascadeResponse(calibration=calibration)

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for number in range(1000):
                if number == 3 and request.task == "break":
                    raise NotThere("mid-stream")
                if number == 3 and request.task == "end":
                    return
                yield router_pb2.StreamGenerateResponse(delta=router_pb2.StreamGenerateResponse.Delta(content=str(number)))
                await asyncio.sleep(0)
        finally:
            self.closed.set()


TABLE = {NotThere: StatusRow(grpc.StatusCode.NOT_FOUND, "BUDGET_NOT_FOUND", quota=True)}


@pytest.fixture
def called(api: Any) -> Any:
    @asynccontextmanager
    async def host(deadline_s: float = 30.0) -> AsyncIterator[Any]:
        budget, router = Budget(), Router()
        peers = {
            "budget": ServiceBinding(
                "farthing.budget.v1.BudgetService",
                budget_pb2_grpc.add_BudgetServiceServicer_to_server,
                budget,
                TABLE,
                deadline_s,
            ),
            "router": ServiceBinding(
                "farthing.router.v1.RouterService",
                router_pb2_grpc.add_RouterServiceServicer_to_server,
                router,
                TABLE,
                deadline_s,
            ),
        }
        async with api(peers=peers) as channel_of:
            stubs = (
                budget_pb2_grpc.BudgetServiceStub(channel_of("budget")),
                router_pb2_grpc.RouterServiceStub(channel_of("router")),
            )
            yield (*stubs, budget, router)

    return host


def get(budget_id: str) -> Any:
    return budget_pb2.GetBudgetRequest(scope=SCOPE, budget_id=budget_id)


def stream(task: str) -> Any:
    request = router_pb2.StreamGenerateRequest(request_id="b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1", scope=SCOPE, task=task)
    request.messages.add(role="user", content="hello")
    request.route.candidates.add(model="m")
    request.route.calls_max = 1
    return request


def spec(request_id: str = "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1") -> Any:
    made = router_pb2.CalibrationSpec(request_id=request_id, scope=SCOPE, strong_model="m", saving_min=0.5)
    return router_pb2.CalibrateCascadeRequest(spec=made)


def example(task: str = "", *, answers: int = 1) -> Any:
    request = router_pb2.CalibrateCascadeRequest()
    made = request.examples.examples.add(prompt="2 + 2", task=task)
    for number in range(answers):
        made.answers.add(model=f"m{number}", text="4", score=1)
    return request


async def test_an_answer_comes_back(called: Any) -> None:
    async with called() as (budget, *_):
        answer = await budget.GetBudget(get("b1"))
        assert answer.budget.budget_id == "b1"


async def test_a_domain_error_becomes_its_rich_status(called: Any) -> None:
    async with called() as (budget, *_):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await budget.GetBudget(get("missing"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        status = rich_status(caught.value)
        assert status is not None
        info = error_info(status)
        assert info is not None
        assert (info.reason, dict(info.metadata)) == ("BUDGET_NOT_FOUND", {"budget_id": "missing"})
        kinds = [detail.type_url.rsplit(".", 1)[-1] for detail in status.details]
        assert kinds == ["ErrorInfo", "QuotaFailure", "RetryInfo"]
        retry = error_details_pb2.RetryInfo()
        status.details[2].Unpack(retry)
        assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)
        failure = peer_failure(caught.value, peer="budget")
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "BUDGET_NOT_FOUND")


async def test_an_unexpected_error_is_internal_and_keeps_its_text_to_itself(called: Any) -> None:
    async with called() as (budget, *_):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await budget.GetBudget(get("broken"))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "42" not in str(caught.value.details())


async def test_a_request_that_breaks_a_rule_is_refused_with_the_field(called: Any) -> None:
    async with called() as (budget, *_):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await budget.GetBudget(budget_pb2.GetBudgetRequest(scope="acme", budget_id="b1"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        status = rich_status(caught.value)
        assert status is not None
        bad = error_details_pb2.BadRequest()
        status.details[1].Unpack(bad)
        assert [violation.field for violation in bad.field_violations] == ["scope"]


async def test_a_method_that_is_not_there_is_unimplemented(called: Any) -> None:
    async with called() as (budget, *_):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await budget.ListBudgets(budget_pb2.ListBudgetsRequest(scope=SCOPE))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_callers_deadline_ends_the_call_and_reaches_the_handler(called: Any) -> None:
    async with called() as (budget, _, servicer, _router):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await budget.GetBudget(get("slow"), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.cancelled.wait(), 5)
        answer = await budget.GetBudget(get("b1"), timeout=100)
        assert 90 <= answer.budget.version <= 100


async def test_a_call_without_a_deadline_gets_the_services_own(called: Any) -> None:
    async with called(deadline_s=0.05) as (budget, *_):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await budget.GetBudget(get("slow"))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_caller_who_gives_up_cancels_the_handler(called: Any) -> None:
    async with called() as (budget, _, servicer, _router):

        async def call() -> None:
            await budget.GetBudget(get("slow"))

        task = asyncio.create_task(call())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_metadata_reaches_the_handler(called: Any) -> None:
    async with called() as (budget, _, servicer, _router):
        await budget.GetBudget(get("b1"), metadata=(("x-request-id", "r-1"),))
        assert servicer.metadata["x-request-id"] == "r-1"


async def test_a_stream_arrives_in_order_and_ends(called: Any) -> None:
    async with called() as (_, router, *_rest):
        pieces = [event.delta.content async for event in router.StreamGenerate(stream("end"))]
        assert pieces == ["0", "1", "2"]


async def test_an_error_in_the_middle_of_a_stream_comes_after_its_pieces(called: Any) -> None:
    async with called() as (_, router, *_rest):
        pieces = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for event in router.StreamGenerate(stream("break")):
                pieces.append(event.delta.content)
        assert pieces == ["0", "1", "2"]
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_cancelling_a_stream_closes_its_handler(called: Any) -> None:
    async with called() as (_, router, _budget, servicer):
        call = router.StreamGenerate(stream(""))

        async def read_two() -> None:
            count = 0
            async for _event in call:
                count += 1
                if count == 2:
                    break

        await read_two()
        call.cancel()
        await asyncio.wait_for(servicer.closed.wait(), 5)


async def test_a_stream_of_requests_is_answered_once_whichever_kind_of_iterator_brings_it(called: Any) -> None:
    async with called() as (_, router, _budget, servicer):
        answer = await router.CalibrateCascade([spec(), example(), example()], timeout=100)
        assert (answer.calibration.examples, servicer.read) == (3, 3)
        assert 90 <= answer.calibration.version <= 100

        async def later() -> AsyncIterator[Any]:
            yield spec()
            await asyncio.sleep(0)
            yield example()

        answer = await router.CalibrateCascade(later())
        assert servicer.read == 5


async def test_every_request_of_a_stream_that_is_answered_once_is_checked(called: Any) -> None:
    async with called() as (_, router, _budget, servicer):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.CalibrateCascade([spec(), example(), example(answers=0), example()])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        status = rich_status(caught.value)
        assert status is not None
        bad = error_details_pb2.BadRequest()
        status.details[1].Unpack(bad)
        assert [violation.field for violation in bad.field_violations] == ["examples.examples[0].answers"]
        assert servicer.read == 2


async def test_a_domain_error_ends_a_stream_of_requests_with_its_status(called: Any) -> None:
    async with called() as (_, router, _budget, _servicer):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.CalibrateCascade([spec(), example("break"), example()])
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        status = rich_status(caught.value)
        assert status is not None
        info = error_info(status)
        assert info is not None
        assert info.reason == "BUDGET_NOT_FOUND"


async def test_a_handler_may_answer_before_it_has_read_every_request(called: Any) -> None:
    async with called() as (_, router, _budget, servicer):
        answer = await router.CalibrateCascade([spec(), example("enough"), example()])
        assert answer.repeated
        assert servicer.read == 2


async def test_a_deadline_ends_a_stream_of_requests_and_its_handler(called: Any) -> None:
    async with called() as (_, router, _budget, servicer):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.CalibrateCascade([spec(), example("hang")], timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.closed.wait(), 5)


async def test_a_stream_of_requests_without_a_deadline_gets_the_services_own(called: Any) -> None:
    async with called(deadline_s=0.1) as (_, router, *_rest):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router.CalibrateCascade([spec(), example("hang")])
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_caller_who_gives_up_a_stream_of_requests_cancels_its_handler(called: Any) -> None:
    async with called() as (_, router, _budget, servicer):

        async def call() -> None:
            await router.CalibrateCascade([spec(), example("hang")])

        task = asyncio.create_task(call())
        while servicer.read < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(servicer.closed.wait(), 5)
