"""Cases 21 and 24 from the field: streamed and plain requests share answers both ways, and a stampede of identical requests buys one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2

from tests.api.orchestrator.conftest import EVERYTHING, Desk, Refusal, heard, refusal, serving_upstream

HIT, MISS = cache_pb2.LOOKUP_OUTCOME_HIT_EXACT, cache_pb2.LOOKUP_OUTCOME_MISS
TASKS = "  tasks: {chat: {timeout_s: 60}}"


def turn_the_cache_on(path: Path) -> Path:
    path.write_text(path.read_text().replace('mode: "off"', 'mode: "exact"'))
    return path


@pytest.fixture
def counter(suite: Any, tmp_path: Path) -> Callable[..., Any]:
    """The suite with its cache on, in front of an Upstream: a desk for each replica."""

    @asynccontextmanager
    async def host(*, replicas: int = 1, policy: str = "", **options: Any) -> AsyncIterator[list[Desk]]:
        async with serving_upstream(tmp_path, policy=TASKS + policy) as (upstream, path), AsyncExitStack() as stack:
            # On a busy machine a look-up that takes too long is bought without the cache, which is not what is looked at here.
            patient = {"FARTHING_ORCHESTRATOR_LOOKUP_TIMEOUT_S": "10", **options.pop("environment", {})}
            running = [
                await stack.enter_async_context(
                    suite(*EVERYTHING, config_file=turn_the_cache_on(path), environment=patient, **options)
                )
                for _ in range(replicas)
            ]
            yield [Desk(each.mesh.channel, upstream) for each in running]

    return host


async def whole(desk: Desk, *, streamed: bool) -> Any:
    """What comes of the one question, streamed or not."""
    request = desk.ask()
    if not streamed:
        return await desk.orchestrator.Complete(request)
    text, end = await heard(desk.stream(request))
    assert not isinstance(end, Refusal), end.message
    assert text == end.answer.content
    return end


async def stored(desk: Desk) -> None:
    """Until the one question is remembered."""
    async with asyncio.timeout(10):
        while True:
            asked = orchestrator_pb2.EstimateCostRequest(request=desk.ask())
            if (await desk.orchestrator.EstimateCost(asked)).cache_outcome == HIT:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("first", [True, False], ids=["streamed first", "plain first"])
async def test_case_21_streamed_and_plain_requests_share_answers_both_ways(counter: Any, first: bool) -> None:
    async with counter() as (desk,):
        bought = await whole(desk, streamed=first)
        await stored(desk)
        for streamed in (True, False):
            served = await whole(desk, streamed=streamed)
            assert served.receipt.cache_outcome == HIT
            assert (served.answer, served.usage) == (bought.answer, bought.usage)
            assert served.receipt.cost_usd_nanos == 0
        assert len(desk.upstream.bodies) == 1


@pytest.mark.parametrize("how", ["cancelled", "broken", "cut"])
async def test_case_21_a_stream_that_was_not_whole_is_never_stored(counter: Any, how: str) -> None:
    async with counter() as (desk,):
        desk.upstream.pause_after = 5
        if how == "cut":
            await desk.limit(8)
            desk.upstream.pause_after = None
        call = desk.stream(desk.ask())
        if how == "cancelled":
            async for _ in call:
                if desk.upstream.paused.is_set():
                    call.cancel()
                    break
            await desk.upstream.hung_up.wait()
        elif how == "broken":
            listening = asyncio.create_task(heard(call))
            await desk.upstream.paused.wait()
            desk.upstream.breaks = True
            desk.upstream.go.set()
            assert isinstance((await listening)[1], Refusal)
        else:
            assert isinstance((await heard(call))[1], Refusal)
        asked = orchestrator_pb2.EstimateCostRequest(request=desk.ask())
        assert (await desk.orchestrator.EstimateCost(asked)).cache_outcome == MISS


async def test_case_21_a_stream_that_is_drained_to_its_end_is_stored(counter: Any) -> None:
    async with counter(policy="\n  budget: {on_cancel: drain}") as (desk,):
        desk.upstream.pause_after = 5
        call = desk.stream(desk.ask())
        async for _ in call:
            if desk.upstream.paused.is_set():
                call.cancel()
                break
        desk.upstream.go.set()
        await stored(desk)


async def test_case_24_a_thousand_identical_requests_buy_one_answer(counter: Any) -> None:
    async with counter() as (desk,):
        desk.upstream.script["dear"] = "hang"
        asked = [asyncio.create_task(whole(desk, streamed=bool(number % 2))) for number in range(1_000)]
        await desk.upstream.paused.wait()
        desk.upstream.go.set()
        answers = await asyncio.gather(*asked)
        bought = [each.receipt.steps for each in answers if each.receipt.cost_usd_nanos]
        assert len(desk.upstream.bodies) == 1, bought
        assert {each.answer.content for each in answers} == {" abc"}
        assert sum(each.receipt.cost_usd_nanos > 0 for each in answers) == 1
        assert sum(each.receipt.caching.joined for each in answers) >= 900


async def test_case_24_two_replicas_buy_one_answer(counter: Any, redis_url: str) -> None:
    async with counter(replicas=2, redis_url=redis_url) as desks:
        desks[0].upstream.script["dear"] = "hang"
        asked = [asyncio.create_task(whole(desks[number % 2], streamed=bool(number % 3))) for number in range(200)]
        await desks[0].upstream.paused.wait()
        desks[0].upstream.go.set()
        answers = await asyncio.gather(*asked)
        assert len(desks[0].upstream.bodies) == 1
        assert {each.answer.content for each in answers} == {" abc"}


async def test_case_24_when_all_fail_nobody_hangs_and_each_has_its_error(counter: Any) -> None:
    async with counter() as (desk,):
        desk.upstream.script["dear"] = "refuse"
        async with asyncio.timeout(30):
            said = await asyncio.gather(*[refusal(desk.orchestrator.Complete(desk.ask())) for _ in range(50)])
        assert {each.reason for each in said} == {"UPSTREAM_REJECTED"}


async def test_case_24_where_the_leader_fails_another_one_buys(counter: Any) -> None:
    async with counter() as (desk,):
        desk.upstream.script["dear"] = "hang"
        leading = desk.stream(desk.ask())
        listening = asyncio.create_task(heard(leading))
        await desk.upstream.paused.wait()
        waiting = [asyncio.create_task(whole(desk, streamed=bool(number % 2))) for number in range(20)]
        await asyncio.sleep(0)
        leading.cancel()  # its stream is given up with it
        await desk.upstream.hung_up.wait()
        desk.upstream.go.set()
        assert {each.answer.content for each in await asyncio.gather(*waiting)} == {" abc"}
        assert len(desk.upstream.bodies) == 2
        await asyncio.wait({listening})


async def test_case_24_an_answer_arrives_though_its_caller_has_gone(counter: Any) -> None:
    async with counter() as (desk,):
        desk.upstream.script["dear"] = "hang"
        leading = asyncio.create_task(whole(desk, streamed=False))
        await desk.upstream.paused.wait()
        waiting = [asyncio.create_task(whole(desk, streamed=False)) for _ in range(20)]
        leading.cancel()
        await asyncio.wait({leading})
        desk.upstream.go.set()
        assert {each.answer.content for each in await asyncio.gather(*waiting)} == {" abc"}
        assert len(desk.upstream.bodies) == 1
