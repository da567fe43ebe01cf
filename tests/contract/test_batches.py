"""What batches promise, on every provider's Batch API and on a real Postgres."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest
from farthing.chat.v1 import chat_pb2
from farthing_core.clock import ManualClock
from farthing_core.ids import random_uuid
from farthing_router.deployments.declared import Deployment
from farthing_router.store.batches import PostgresBatches
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.anthropic_batch import AnthropicBatches
from farthing_router.upstreams.batch_calls import Ended, WrittenBatch, WrittenCall
from farthing_router.upstreams.batch_runs import Office
from farthing_router.upstreams.batches import Batches
from farthing_router.upstreams.exchange import HttpApi, open_session
from farthing_router.upstreams.openai_batch import OpenAIBatches
from farthing_router.wires import BatchEntry, Wire
from farthing_runtime.postgres import open_pool

from tests.fake_providers.batch_server import FakeBatchProvider

APIS: dict[str, Callable[[HttpApi], Any]] = {
    "openai": OpenAIBatches,
    "azure": lambda api: OpenAIBatches(api, azure=True),
    "anthropic": AnthropicBatches,
}
ENTRY = BatchEntry(turnaround_s=60.0, linger_s=0.05, poll_s=0.02)


@dataclass
class Stage:
    """A provider, where batches are written down, and what makes calls and batches over both."""

    provider: FakeBatchProvider
    pool: asyncpg.Pool
    clock: ManualClock
    batches: Callable[..., Batches]
    deployment: Callable[..., Deployment]

    def call(self, says: str, *, timeout_s: float = 20.0, organization: str = "acme", **entry: Any) -> Call:
        conversation = [chat_pb2.ChatMessage(role="user", content=says)]
        deployment = self.deployment(**entry)
        return Call(deployment, conversation, chat_pb2.Parameters(), 50, timeout_s, f"r-{says}", organization, "small")

    async def outcomes(self) -> dict[str, tuple[str, int]]:
        rows = await self.pool.fetch("SELECT request_id, outcome, cost_usd_nanos FROM batch_calls")
        return {row["request_id"]: (row["outcome"], row["cost_usd_nanos"]) for row in rows}

    async def until(self, outcomes: dict[str, tuple[str, int]]) -> None:
        """Waits until the calls have ended so."""
        async with asyncio.timeout(10):
            while await self.outcomes() != outcomes:
                await asyncio.sleep(0.01)


@pytest.fixture(params=APIS)
async def stage(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Stage]:
    clock = ManualClock()
    async with (
        FakeBatchProvider().running() as provider,
        open_pool(database_url, schema="router", size_max=4) as pool,
        open_session(connections_max=10) as session,
    ):

        def deployment(**entry: Any) -> Deployment:
            wire = Wire(name=request.param, batch=ENTRY.model_copy(update=entry))
            base_url = f"http://127.0.0.1:{provider.port}" + ("/v1" if request.param == "openai" else "")
            return Deployment("batches", base_url, "m", "sk-secret", 60.0, 0, wire)

        def made(written: asyncpg.Pool = pool) -> Batches:
            office = Office(PostgresBatches(written), lambda batch, call, answer: (10, 3, 77), clock, Random(1))
            apis = {request.param: APIS[request.param](HttpApi(session))}
            return Batches(apis, office=office, new_id=random_uuid, find=lambda model, name: deployment())

        yield Stage(provider, pool, clock, made, deployment)


async def test_calls_that_come_together_go_out_together_and_each_gets_its_own_answer(stage: Stage) -> None:
    async with stage.batches().running() as batches:
        found = await asyncio.gather(*(batches.complete(stage.call(f"{number}")) for number in range(5)))
    assert [each.content for each in found] == ["0", "1", "2", "3", "4"]
    assert len(stage.provider.requests) == 1
    assert await stage.outcomes() == {f"r-{number}": ("delivered", 0) for number in range(5)}


async def test_an_answer_of_a_batch_is_charged_as_one_whatever_it_says_of_itself(stage: Stage) -> None:
    async with stage.batches().running() as batches:
        found = await batches.complete(stage.call("hi"))
    assert found.usage is not None
    assert (found.usage.charged_tier(""), found.usage.input_tokens, found.usage.output_tokens) == ("batch", 10, 3)


async def test_an_answer_is_streamed_in_one_piece(stage: Stage) -> None:
    async with stage.batches().running() as batches:
        items = [item async for item in batches.stream(stage.call("hi"))]
    assert items[0] == UpstreamPiece("hi", "")
    assert isinstance(items[1], UpstreamAnswer)


async def test_calls_of_different_organisations_never_share_a_batch(stage: Stage) -> None:
    async with stage.batches().running() as batches:
        await asyncio.gather(*(batches.complete(stage.call("hi", organization=name)) for name in ("acme", "other")))
    assert len(stage.provider.requests) == 2


async def test_a_full_batch_goes_out_before_its_time(stage: Stage) -> None:
    async with stage.batches().running() as batches:
        await asyncio.gather(*(batches.complete(stage.call(f"{number}", calls_max=2, linger_s=0.1)) for number in range(5)))
    assert sorted(len(each) for each in stage.provider.requests.values()) == [1, 2, 2]


async def test_a_call_that_failed_fails_alone(stage: Stage) -> None:
    stage.provider.leaves_out = {3}
    async with stage.batches().running() as batches:
        said = ("fine", "is bad", "expires", "is missing")
        fine, bad, expired, missing = await asyncio.gather(
            *(batches.complete(stage.call(each)) for each in said), return_exceptions=True
        )
    assert isinstance(fine, UpstreamAnswer)
    assert isinstance(bad, UpstreamRejected)
    for error in (expired, missing):
        assert isinstance(error, UpstreamFailed)
        assert (error.kind, error.retryable, error.may_be_billed) == (FailureKind.EXPIRED, False, False)
    assert {name: outcome for name, (outcome, _) in (await stage.outcomes()).items()} == {
        "r-fine": "delivered",
        "r-is bad": "failed",
        "r-expires": "failed",
        "r-is missing": "failed",
    }


async def test_a_batch_that_the_provider_takes_not_at_all_is_billed_to_nobody(stage: Stage) -> None:
    stage.provider.rejects_all = True
    async with stage.batches().running() as batches:
        with pytest.raises((UpstreamFailed, UpstreamRejected)) as caught:
            await batches.complete(stage.call("hi"))
    assert not getattr(caught.value, "may_be_billed", False)
    assert (await stage.outcomes())["r-hi"][0] == "failed"


async def test_a_provider_that_breaks_down_while_it_is_sent_fails_its_callers_at_once(stage: Stage) -> None:
    stage.provider.broken["submit"] = 1
    async with stage.batches().running() as batches:
        with pytest.raises(UpstreamFailed) as caught:
            await batches.complete(stage.call("hi"))
    assert (caught.value.kind, caught.value.retryable) == (FailureKind.SERVER_ERROR, True)


@pytest.mark.parametrize("kind", ["state", "results"])
async def test_a_provider_that_breaks_down_later_is_asked_again(stage: Stage, kind: str) -> None:
    stage.provider.broken[kind] = 3
    async with stage.batches().running() as batches:
        assert (await batches.complete(stage.call("hi"))).content == "hi"


async def test_a_caller_who_waits_no_more_leaves_the_others_and_its_answer_is_recorded(stage: Stage) -> None:
    stage.provider.released.clear()
    async with stage.batches().running() as batches:
        stays = asyncio.create_task(batches.complete(stage.call("stays")))
        with pytest.raises(UpstreamFailed) as caught:
            await batches.complete(stage.call("goes", timeout_s=1.0))
        assert (caught.value.kind, caught.value.may_be_billed) == (FailureKind.TIMEOUT, True)
        assert stage.provider.cancelled == []
        stage.provider.released.set()
        assert (await stays).content == "stays"
        await stage.until({"r-stays": ("delivered", 0), "r-goes": ("recorded", 77)})


async def test_when_the_last_caller_leaves_the_provider_is_told_to_stop(stage: Stage) -> None:
    stage.provider.released.clear()
    async with stage.batches().running() as batches:
        leaving = asyncio.create_task(batches.complete(stage.call("goes", poll_s=60.0)))
        async with asyncio.timeout(10):
            while not stage.provider.requests or not await stage.pool.fetchval(
                "SELECT count(*) FROM batches WHERE provider_batch_id <> ''"
            ):
                await asyncio.sleep(0.01)
        leaving.cancel()
        async with asyncio.timeout(10):
            while not stage.provider.cancelled:
                await asyncio.sleep(0.01)
    assert stage.provider.cancelled == ["batch-0"]


async def test_who_leaves_before_anything_was_sent_owes_nothing(stage: Stage) -> None:
    async with stage.batches().running() as batches:
        with pytest.raises(UpstreamFailed) as caught:
            await batches.complete(stage.call("goes", linger_s=0.3, timeout_s=0.05))
        assert (caught.value.kind, caught.value.may_be_billed) == (FailureKind.TIMEOUT, False)
        assert (await batches.complete(stage.call("next"))).content == "next"
    assert [len(each) for each in stage.provider.requests.values()] == [1]


async def test_a_router_that_stops_leaves_its_batch_to_the_next_one(stage: Stage) -> None:
    stage.provider.released.clear()
    async with stage.batches().running() as batches:
        waiting = asyncio.create_task(batches.complete(stage.call("hi")))
        async with asyncio.timeout(10):
            while not await stage.pool.fetchval("SELECT count(*) FROM batches WHERE provider_batch_id <> ''"):
                await asyncio.sleep(0.01)
    with pytest.raises(UpstreamFailed) as caught:
        await waiting
    assert caught.value.may_be_billed
    assert await stage.outcomes() == {"r-hi": ("waiting", 0)}
    stage.provider.released.set()
    async with stage.batches().running(take_up_s=0.05):
        await asyncio.sleep(0.2)
        assert await stage.outcomes() == {"r-hi": ("waiting", 0)}  # somebody may still look after it
        stage.clock.advance(3600)
        await stage.until({"r-hi": ("recorded", 77)})
    assert len(stage.provider.requests) == 1


async def test_a_result_that_cannot_be_read_may_be_billed(stage: Stage) -> None:
    stage.provider.garbles = True
    async with stage.batches().running() as batches:
        with pytest.raises(UpstreamFailed) as caught:
            await batches.complete(stage.call("hi"))
    assert (caught.value.kind, caught.value.may_be_billed) == (FailureKind.GARBAGE, True)


async def test_a_batch_whose_name_was_never_written_down_is_found_by_its_mark_or_lost(stage: Stage) -> None:
    stage.provider.released.clear()
    async with stage.batches().running() as batches:
        waiting = asyncio.create_task(batches.complete(stage.call("hi")))
        async with asyncio.timeout(10):
            while not await stage.pool.fetchval("SELECT count(*) FROM batches WHERE provider_batch_id <> ''"):
                await asyncio.sleep(0.01)
    with pytest.raises(UpstreamFailed):
        await waiting
    await stage.pool.execute("UPDATE batches SET provider_batch_id = ''")
    stage.provider.released.set()
    stage.clock.advance(3600)
    marked = stage.deployment().wire.name != "anthropic"
    async with stage.batches().running(take_up_s=0.05):
        await stage.until({"r-hi": ("recorded", 77) if marked else ("lost", 0)})


async def test_a_batch_that_does_not_end_is_given_up_and_may_be_billed(stage: Stage) -> None:
    stage.provider.released.clear()
    async with stage.batches().running() as batches:
        waiting = asyncio.create_task(batches.complete(stage.call("hi")))
        async with asyncio.timeout(10):
            while not stage.provider.seen["state"]:
                await asyncio.sleep(0.01)
        stage.clock.advance(60 + 3600 + 1)
        with pytest.raises(UpstreamFailed) as caught:
            await waiting
    assert (caught.value.kind, caught.value.may_be_billed) == (FailureKind.EXPIRED, True)


async def test_what_cannot_be_written_down_is_not_sent(stage: Stage, database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as away:
        pass
    batches = stage.batches(away)
    async with batches.running(take_up_s=3600):
        with pytest.raises(UpstreamFailed) as caught:
            await batches.complete(stage.call("hi"))
    assert (caught.value.retryable, caught.value.may_be_billed) == (True, False)
    assert stage.provider.requests == {}


NOW = datetime(2026, 11, 27, tzinfo=UTC)


def written(**changes: Any) -> WrittenBatch:
    calls = tuple(WrittenCall(random_uuid(), f"r-{number}", 100) for number in range(2))
    made = WrittenBatch("acme", random_uuid(), "small", "batches", "", NOW, NOW + timedelta(days=1), calls)
    return replace(made, **changes)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresBatches]:
    async with open_pool(database_url, schema="router", size_max=8) as pool:
        yield PostgresBatches(pool)


async def test_a_batch_is_taken_up_by_one_when_its_lease_has_run_out(store: PostgresBatches) -> None:
    batch = written()
    await store.open(batch, lease_until=NOW + timedelta(minutes=1))
    await store.submitted(batch, provider_batch_id="b-1")
    later = NOW + timedelta(hours=1)
    assert await store.take_up(now=NOW, lease_until=later, batches_max=10) == []
    await store.renew(batch, lease_until=NOW + timedelta(minutes=5))
    assert await store.take_up(now=NOW + timedelta(minutes=2), lease_until=later, batches_max=10) == []
    taken = await asyncio.gather(
        *(store.take_up(now=NOW + timedelta(minutes=6), lease_until=later, batches_max=10) for _ in range(8))
    )
    (found,) = [each for some in taken for each in some]
    assert replace(found, calls=tuple(sorted(found.calls, key=lambda call: call.request_id))) == replace(
        batch, provider_batch_id="b-1"
    )


async def test_the_first_outcome_of_a_call_stands_and_what_nobody_names_is_lost(store: PostgresBatches) -> None:
    batch = written()
    await store.open(batch, lease_until=NOW)
    first, second = batch.calls
    await store.close(batch, [Ended(first.custom_id, False, "", 10, 3, 77)], now=NOW)
    await store.close(batch, [Ended(each.custom_id, True, "", 0, 0, 0) for each in batch.calls], now=NOW)
    rows = await store._pool.fetch("SELECT custom_id, outcome, cost_usd_nanos FROM batch_calls")
    assert {row["custom_id"]: (row["outcome"], row["cost_usd_nanos"]) for row in rows} == {
        first.custom_id: ("recorded", 77),
        second.custom_id: ("lost", 0),
    }
    assert await store.take_up(now=NOW + timedelta(days=1), lease_until=NOW, batches_max=10) == []


async def test_batches_that_ended_a_season_ago_are_forgotten(store: PostgresBatches) -> None:
    batch = written()
    await store.open(batch, lease_until=NOW)
    await store.close(batch, (), now=NOW)
    await store.take_up(now=NOW + timedelta(days=89), lease_until=NOW, batches_max=10)
    assert await store._pool.fetchval("SELECT count(*) FROM batch_calls") == 2
    await store.take_up(now=NOW + timedelta(days=91), lease_until=NOW, batches_max=10)
    assert await store._pool.fetchval("SELECT count(*) FROM batch_calls") == 0


def test_a_line_holds_the_request_as_the_wire_has_it() -> None:
    wire = Wire(name="openai", batch=ENTRY)
    deployment = Deployment("p", "http://h/v1", "m", "", 5.0, 0, wire)
    call = Call(
        deployment, [chat_pb2.ChatMessage(role="user", content="hi")], chat_pb2.Parameters(temperature=0.5), 50, 1.0, "r"
    )
    line = json.loads(OpenAIBatches(HttpApi(None)).line(call, custom_id="c"))  # type: ignore[arg-type]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "temperature": 0.5}
    assert line == {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body}
