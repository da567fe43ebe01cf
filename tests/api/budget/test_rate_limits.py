"""Rate limits through the generated stub, over both transports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.rpc import error_details_pb2

ORGANIZATION = "organizations/acme"
WORKSPACE = f"{ORGANIZATION}/workspaces/search"
USER = f"{WORKSPACE}/projects/ranker/users/ann"
COLLEAGUE = f"{WORKSPACE}/projects/ranker/users/bob"


def new_id() -> str:
    return str(uuid.uuid4())


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


def rule(scope: str = ORGANIZATION, **values: Any) -> Any:
    return budget_pb2.CreateRateLimitRequest(**{"request_id": new_id(), "scope": scope, **values})


def ask(scope: str = USER, **values: Any) -> Any:
    return budget_pb2.AdmitRequestRequest(**{"request_id": new_id(), "scope": scope, **values})


def end(asked: Any, **values: Any) -> Any:
    return budget_pb2.FinishRequestRequest(request_id=asked.request_id, scope=asked.scope, **values)


class Refusal:
    """What a call was refused with."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        status = rich_status(error)
        assert status is not None
        info = error_info(status)
        assert info is not None
        self.code, self.reason, self.facts, self.text = error.code(), info.reason, dict(info.metadata), error.details() or ""
        self.retry_after_s: float | None = None
        for detail in status.details:
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                self.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9


async def refusal(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Refusal(caught.value)


async def test_without_limits_everything_goes_on(api: Any) -> None:
    async with api("budget") as channel_of:
        stub, asked = stub_of(channel_of), ask(model="small", tokens=10**12)
        answer = await stub.AdmitRequest(asked)
        assert not answer.limited
        assert not answer.HasField("requests_left")
        assert not answer.HasField("tokens_left")
        await stub.FinishRequest(end(asked, tokens=5))


async def test_requests_tokens_and_concurrency_are_limited(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (
            await stub.CreateRateLimit(rule(requests_per_minute=6, tokens_per_minute=600, concurrent_requests=2))
        ).rate_limit
        assert (made.scope, made.model, made.burst_s, made.requests_per_minute) == (ORGANIZATION, "", 60, 6)
        first, second = ask(tokens=300), ask(COLLEAGUE, tokens=100)
        answer = await stub.AdmitRequest(first)
        assert (answer.limited, answer.requests_left, answer.tokens_left) == (True, 5, 300)
        assert (await stub.AdmitRequest(second)).requests_left == 4

        full = await refusal(stub.AdmitRequest(ask()))
        assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert (full.facts["kind"], full.facts["limit"], full.facts["left"]) == ("CONCURRENCY", "2", "0")
        assert full.retry_after_s == 1
        await stub.FinishRequest(end(first, tokens=450))
        over = await refusal(stub.AdmitRequest(ask(tokens=500)))
        assert (over.facts["kind"], over.facts["rate_limit_id"], over.facts["scope"]) == (
            "TOKENS",
            made.rate_limit_id,
            ORGANIZATION,
        )
        assert over.retry_after_s is not None
        assert 30 < over.retry_after_s <= 45
        await stub.AdmitRequest(ask())

        await stub.CreateRateLimit(rule(USER, requests_per_minute=1, model="large"))
        await stub.FinishRequest(end(second))
        await stub.AdmitRequest(ask(model="large"))
        out = await refusal(stub.AdmitRequest(ask(model="large")))
        assert (out.facts["kind"], out.facts["scope"], out.facts["limit"]) == ("REQUESTS", USER, "1")
        assert out.retry_after_s is not None
        assert 30 < out.retry_after_s <= 60


async def test_a_limit_may_be_for_one_model(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await stub.CreateRateLimit(rule(requests_per_minute=1, model="large"))
        assert (await stub.AdmitRequest(ask(model="large"))).limited
        refused = await refusal(stub.AdmitRequest(ask(model="large")))
        assert (refused.facts["model"], refused.facts["kind"]) == ("large", "REQUESTS")
        for model in ("small", "", "LARGE"):
            assert not (await stub.AdmitRequest(ask(model=model))).limited
        await stub.CreateRateLimit(rule(requests_per_minute=1))
        assert (await stub.AdmitRequest(ask(model="small"))).requests_left == 0
        await refusal(stub.AdmitRequest(ask()))


async def test_limits_of_every_ancestor_apply_and_those_of_others_do_not(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        places = [ORGANIZATION, WORKSPACE, f"{WORKSPACE}/projects/ranker", USER]
        for allowed, place in zip((40, 30, 20, 10), places, strict=True):
            await stub.CreateRateLimit(rule(place, requests_per_minute=allowed))
        assert (await stub.AdmitRequest(ask(USER))).requests_left == 9
        assert (await stub.AdmitRequest(ask(COLLEAGUE))).requests_left == 18
        assert (await stub.AdmitRequest(ask(WORKSPACE))).requests_left == 27
        assert (await stub.AdmitRequest(ask(f"{ORGANIZATION}/workspaces/other"))).requests_left == 36
        assert not (await stub.AdmitRequest(ask("organizations/globex"))).limited


async def test_of_many_at_once_exactly_as_many_get_through_as_fit(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await stub.CreateRateLimit(rule(requests_per_minute=10**6))
        await stub.CreateRateLimit(rule(WORKSPACE, concurrent_requests=20))
        answers = await asyncio.gather(*(stub.AdmitRequest(ask()) for _ in range(200)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(refused) == 180
        assert {Refusal(each).reason for each in refused} == {"RATE_LIMITED"}


async def test_repeats_are_counted_once(api: Any) -> None:
    async with api("budget") as channel_of:
        stub, asked = stub_of(channel_of), ask(tokens=100)
        await stub.CreateRateLimit(rule(requests_per_minute=10, tokens_per_minute=1_000, concurrent_requests=1))
        answers = await asyncio.gather(*(stub.AdmitRequest(asked) for _ in range(5)))
        assert {answer.requests_left for answer in answers} == {9}
        asked.request_id = asked.request_id.upper()
        assert (await stub.AdmitRequest(asked)).requests_left == 9
        for _ in range(3):
            await stub.FinishRequest(end(asked, tokens=50))
        assert 950 <= (await stub.AdmitRequest(ask())).tokens_left <= 1_000
        asked.tokens = 101
        refused = await refusal(stub.AdmitRequest(asked))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_more_tokens_than_ever_come_at_once_is_no_reason_to_wait(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await stub.CreateRateLimit(rule(tokens_per_minute=600, burst_s=10))
        refused = await refusal(stub.AdmitRequest(ask(tokens=101)))
        assert (refused.code, refused.reason, refused.retry_after_s) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "BURST_EXCEEDED",
            None,
        )
        assert (refused.facts["asked"], refused.facts["burst"]) == ("101", "100")
        assert "can never fit" in refused.text
        assert (await stub.AdmitRequest(ask(tokens=100))).tokens_left == 0


async def test_the_same_request_makes_one_rate_limit(api: Any) -> None:
    async with api("budget") as channel_of:
        stub, asked = stub_of(channel_of), rule(requests_per_minute=5)
        first, again = await asyncio.gather(stub.CreateRateLimit(asked), stub.CreateRateLimit(asked))
        assert first == again
        reused = rule(requests_per_minute=6)
        reused.request_id = asked.request_id
        assert (await refusal(stub.CreateRateLimit(reused))).reason == "REQUEST_ID_REUSED"
        exists = await refusal(stub.CreateRateLimit(rule(tokens_per_minute=5)))
        assert (exists.code, exists.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RATE_LIMIT_EXISTS")
        await stub.CreateRateLimit(rule(tokens_per_minute=5, model="large"))
        where = {"scope": USER, "rate_limit_id": first.rate_limit.rate_limit_id}
        await stub.DeleteRateLimit(budget_pb2.DeleteRateLimitRequest(**where))
        assert (await refusal(stub.CreateRateLimit(asked))).reason == "RATE_LIMIT_NOT_FOUND"


async def test_a_limit_limits_something(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        refused = await refusal(stub.CreateRateLimit(rule(burst_s=5)))
        assert (refused.code, refused.facts["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "requests_per_minute")
        for wrong in (
            rule(requests_per_minute=-1),
            rule(burst_s=3_601, requests_per_minute=1),
            rule("acme", requests_per_minute=1),
        ):
            assert (await refusal(stub.CreateRateLimit(wrong))).code is grpc.StatusCode.INVALID_ARGUMENT
        assert (await refusal(stub.CreateRateLimit(rule(model="a\x00b", requests_per_minute=1)))).facts["field"] == "model"


async def test_rate_limits_are_listed_in_pages_from_a_scope_down(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await stub.CreateRateLimit(rule(requests_per_minute=1))
        for number in range(5):
            await stub.CreateRateLimit(rule(WORKSPACE, requests_per_minute=1, model=f"model-{number}"))
        await stub.CreateRateLimit(rule(USER, requests_per_minute=1))
        await stub.CreateRateLimit(rule("organizations/acme2", requests_per_minute=1))
        found, token = [], ""
        while True:
            asked = budget_pb2.ListRateLimitsRequest(scope=WORKSPACE, page_size=2, page_token=token)
            page = await stub.ListRateLimits(asked)
            assert len(page.rate_limits) <= 2
            found += [(each.scope, each.model) for each in page.rate_limits]
            token = page.next_page_token
            if not token:
                break
        assert found == [*((WORKSPACE, f"model-{number}") for number in range(5)), (USER, "")]
        wrong = budget_pb2.ListRateLimitsRequest(scope=WORKSPACE, page_token="WyJhIl0=")
        assert (await refusal(stub.ListRateLimits(wrong))).facts["field"] == "page_token"


async def test_a_deleted_limit_does_not_limit(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        made = (await stub.CreateRateLimit(rule(requests_per_minute=1))).rate_limit
        await stub.AdmitRequest(ask())
        await refusal(stub.AdmitRequest(ask()))
        foreign = budget_pb2.DeleteRateLimitRequest(scope="organizations/globex", rate_limit_id=made.rate_limit_id)
        gone = await refusal(stub.DeleteRateLimit(foreign))
        assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "RATE_LIMIT_NOT_FOUND")
        where = budget_pb2.DeleteRateLimitRequest(scope=ORGANIZATION, rate_limit_id=made.rate_limit_id)
        await stub.DeleteRateLimit(where)
        assert not (await stub.AdmitRequest(ask())).limited
        assert (await refusal(stub.DeleteRateLimit(where))).reason == "RATE_LIMIT_NOT_FOUND"
