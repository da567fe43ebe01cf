"""How requests end, whatever happens: every hold ends once, what was bought is written down, what nobody knows counts as spent."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing_runtime.mesh import network_channel

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
TOKEN, heard, refusal = _suite.TOKEN_USD_NANOS, _suite.heard, _suite.refusal
DISPATCHED, SETTLED = budget_pb2.RESERVATION_STATE_DISPATCHED, budget_pb2.RESERVATION_STATE_SETTLED


async def heard_until(at: Any, call: Any) -> int:
    """Reads a stream until its provider pauses; how many tokens came."""
    tokens = 0
    async for event in call:
        tokens += len(event.delta.content) // len(at.upstream.text)
        if tokens == at.upstream.pause_after:
            break
    await at.upstream.paused.wait()
    return tokens


async def gone(call: Any) -> None:
    """The caller of a stream goes away."""
    call.cancel()
    iterator = call.__aiter__()
    if hasattr(iterator, "aclose"):
        await iterator.aclose()


async def test_case_10_a_cancelled_stream_hangs_up_and_is_charged_for_what_was_delivered(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(100_000)
        at.upstream.script["dear"], at.upstream.pause_after = 200, 40
        request = at.ask(tokens_max=1000)
        call = at.stream(request)
        assert await heard_until(at, call) == 40
        await gone(call)
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        assert await at.ended(request) == ["RESERVE", "SETTLE"]
        row = (await at.usage())[0]
        assert (row.output_tokens, row.cost_usd_nanos, row.estimated_attempts) == (40, 40 * TOKEN, 1)
        budget = await at.budget(budget_id)
        assert (budget.spent_usd_nanos, budget.held_usd_nanos) == (40 * TOKEN, 0)


async def test_case_10_a_drained_stream_runs_to_its_end_and_is_charged_as_its_provider_reports(desk: Any) -> None:
    async with desk(policy="  budget: {on_cancel: drain}") as at:
        budget_id = await at.limit(100_000)
        at.upstream.script["dear"], at.upstream.pause_after = 200, 40
        request = at.ask(tokens_max=1000)
        call = at.stream(request)
        await heard_until(at, call)
        await gone(call)
        assert (await at.reservation(request)).reservation.state == DISPATCHED
        at.upstream.go.set()
        assert (await at.ended(request))[-1] == "SETTLE"
        assert not at.upstream.hung_up.is_set()
        row = (await at.usage())[0]
        assert (row.output_tokens, row.cost_usd_nanos, row.estimated_attempts) == (200, 200 * TOKEN, 0)
        assert (await at.budget(budget_id)).held_usd_nanos == 0


async def test_case_10_draining_ends_where_the_money_does(desk: Any) -> None:
    async with desk(policy="  budget: {on_cancel: drain}") as at:
        budget_id = await at.limit(300)
        at.upstream.script["dear"], at.upstream.pause_after, at.upstream.stop_after = 300, 40, 110
        request = at.ask(tokens_max=300)
        call = at.stream(request)
        await heard_until(at, call)
        await gone(call)
        await at.spend(200)
        at.upstream.go.set()
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        await at.ended(request)
        budget = await at.budget(budget_id)
        assert 264 * TOKEN <= budget.spent_usd_nanos <= budget.limit_usd_nanos
        assert budget.held_usd_nanos == 0


async def test_case_2_every_end_of_a_stream_leaves_nothing_held(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(100_000)
        at.upstream.script |= {"other": "refuse"}
        requests = [at.ask(), at.ask(model="other"), at.ask(model="cheap"), at.ask(model="open")]
        await asyncio.gather(*(heard(at.stream(request)) for request in requests))
        assert [(await at.ended(request))[-1] for request in requests] == ["SETTLE", "RELEASE", "SETTLE", "SETTLE"]
        budget = await at.budget(budget_id)
        assert (budget.held_usd_nanos, budget.held_tokens, budget.held_requests) == (0, 0, 0)
        assert budget.spent_usd_nanos == 20 * TOKEN + 20 * TOKEN // 10


async def test_case_2_what_reached_no_provider_is_given_back(desk: Any) -> None:
    async with desk() as at:
        budget_id = await at.limit(100_000)
        at.upstream.script |= {"dear": "refuse"}
        request = at.ask()
        refused = await refusal(at.orchestrator.Complete(request))
        assert refused.reason == "UPSTREAM_REJECTED"
        assert await at.ended(request) == ["RESERVE", "RELEASE"]
        assert (await at.budget(budget_id)).held_usd_nanos == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_timed_out_may_be_billed_and_keeps_its_hold(desk: Any, streamed: bool) -> None:
    async with desk(timeout_s=0.2) as at:
        await at.limit(100_000)
        at.upstream.script |= {"dear": "hang", "other": "hang"}
        request = at.ask()
        if streamed:
            _, refused = await heard(at.stream(request))
        else:
            refused = await refusal(at.orchestrator.Complete(request))
        assert (refused.reason, refused.facts["may_be_billed"]) == ("ALL_ATTEMPTS_FAILED", "True")
        hold = (await at.reservation(request)).reservation
        assert hold.state == DISPATCHED
        assert hold.expire_time.seconds - hold.create_time.seconds <= 120 + 61
        await settled_late(at, request)


async def settled_late(at: Any, request: Any) -> None:
    """Somebody finds out what the provider billed."""
    line = budget_pb2.UsageLine(model="dear", provider="far", cost_usd_nanos=7 * TOKEN, outcome="failed")
    usage = budget_pb2.UsageRecord(task="chat", lines=[line])
    late = budget_pb2.SettleReservationRequest(request_id=request.request_id, scope=request.scope, usage=usage)
    settled = (await at.ledger.SettleReservation(late)).reservation
    assert (settled.state, settled.settled_usd_nanos) == (SETTLED, 7 * TOKEN)


async def test_a_dropped_connection_may_be_billed_too(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script |= {"dear": "drop", "other": "drop"}
        request = at.ask()
        await refusal(at.orchestrator.Complete(request))
        assert (await at.reservation(request)).reservation.state == DISPATCHED


async def test_a_deadline_that_passes_before_the_answer_keeps_the_hold(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script |= {"dear": "hang"}
        request = at.ask()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await at.orchestrator.Complete(request, timeout=0.5)
        assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        assert (await at.reservation(request)).reservation.state == DISPATCHED


async def test_a_caller_of_a_plain_answer_who_goes_away_is_charged_for_it_once(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script |= {"dear": "hang"}
        request = at.ask()
        call = asyncio.ensure_future(at.orchestrator.Complete(request))
        await at.upstream.paused.wait()
        call.cancel()
        at.upstream.go.set()
        assert await at.ended(request) == ["RESERVE", "SETTLE"]
        assert (await at.usage())[0].requests == 1


async def test_a_stream_whose_caller_leaves_before_the_first_token_owes_its_prompt_at_least(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script["dear"], at.upstream.pause_after = 50, 0
        request = at.ask()
        call = at.stream(request)
        reading = asyncio.ensure_future(anext(call.__aiter__()))
        await at.upstream.paused.wait()
        reading.cancel()
        call.cancel()
        await asyncio.wait([reading])
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        assert await at.ended(request) == ["RESERVE", "SETTLE"]
        row = (await at.usage())[0]
        assert row.input_tokens > 0
        assert (row.output_tokens, row.estimated_attempts) == (0, 1)


LIKELY = 200
"""How many tokens an answer likely has while nothing was learned."""


async def test_case_6_retries_fallbacks_and_escalations_are_a_line_each(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script |= {"dear": "drop", "other": 20}
        fallen_back = await at.orchestrator.Complete(at.ask())
        assert [attempt.model for attempt in fallen_back.receipt.attempts] == ["dear", "other"]
        # Nobody knows whether the call that broke off is billed: it is charged as an answer of likely length, and says that it is a guess.
        lost = fallen_back.receipt.attempts[0]
        assert (lost.usage.estimated, lost.cost_usd_nanos) == (True, LIKELY * TOKEN)
        assert fallen_back.receipt.cost_usd_nanos == (LIKELY + 20) * TOKEN
        at.upstream.script |= {"dear": 20}
        at.upstream.text = " I'm not sure, please contact support."
        escalated = await at.orchestrator.Complete(at.ask(model=""))
        assert [attempt.model for attempt in escalated.receipt.attempts] == ["cheap", "dear"]
        assert escalated.receipt.cost_usd_nanos == 20 * TOKEN + 20 * TOKEN // 10
        rows = await at.usage(requests=2, group_by=[budget_pb2.USAGE_GROUP_MODEL])
        assert {row.model: (row.attempts, row.cost_usd_nanos) for row in rows} == {
            "cheap": (1, 20 * TOKEN // 10),
            "dear": (2, (LIKELY + 20) * TOKEN),
            "other": (1, 20 * TOKEN),
        }


async def test_case_6_a_cheap_answer_is_charged_though_the_dear_model_refuses_the_request(desk: Any) -> None:
    async with desk() as at:
        at.upstream.script |= {"dear": "refuse"}
        at.upstream.text = " I'm not sure, please contact support."
        answer = await at.orchestrator.Complete(at.ask(model=""))
        assert (answer.model, answer.receipt.cost_usd_nanos) == ("cheap", 20 * TOKEN // 10)
        rows = await at.usage(group_by=[budget_pb2.USAGE_GROUP_MODEL])
        assert {row.model: row.cost_usd_nanos for row in rows} == {"cheap": 20 * TOKEN // 10, "dear": 0}


@pytest.mark.parametrize("streamed", [False, True])
async def test_case_6_a_request_id_buys_one_answer(desk: Any, streamed: bool) -> None:
    async with desk() as at:
        request = at.ask()
        await at.orchestrator.Complete(request)
        await at.ended(request)
        if streamed:
            _, refused = await heard(at.stream(request))
        else:
            refused = await refusal(at.orchestrator.Complete(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        assert len(at.upstream.bodies) == 1


async def test_case_6_more_answers_than_were_paid_for_cannot_be_asked_for(desk: Any) -> None:
    async with desk() as at:
        request = at.ask()
        request.parameters.extra_json = '{"n": 5}'
        refused = await refusal(at.orchestrator.Complete(request))
        assert refused.facts["field"] == "parameters.extra_json"
        request = at.ask(model="cheap", request_id=str(uuid.uuid4()))
        request.parameters.extra_json = '{"model": "dear", "stream": true, "user": "u"}'
        await at.orchestrator.Complete(request)
        assert (at.upstream.bodies[0]["model"], at.upstream.bodies[0]["user"]) == ("cheap", "u")


async def test_case_13_killed_in_the_middle_of_a_call_its_hold_stays_until_somebody_knows(
    suite: Any, database_url: str, session_dir: Path, tmp_path: Path
) -> None:
    async with _suite.serving_upstream(tmp_path) as (upstream, path):
        upstream.script["dear"] = "hang"
        environment = {
            **os.environ,
            "FARTHING_DATABASE_URL": database_url,
            "FARTHING_DATA_DIR": str(session_dir),
            "FARTHING_CONFIG_FILE": str(path),
            "FARTHING_GRPC_PORT": "0",
            "FARTHING_LOG_LEVEL": "warning",
        }
        command = (str(Path(sys.executable).parent / "farthing"), "serve", *_suite.EVERYTHING)
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            async with network_channel(line.split(" grpc ")[1].split(maxsplit=1)[0]) as channel:
                killed = _suite.Desk(lambda target: channel, upstream)
                request = killed.ask()
                call = asyncio.ensure_future(killed.orchestrator.Complete(request))
                await asyncio.wait_for(upstream.paused.wait(), 30)
                process.kill()
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        async with suite("budget") as running:
            at = _suite.Desk(lambda target: running.mesh.channel("budget"), upstream)
            assert (await at.reservation(request)).reservation.state == DISPATCHED
            await settled_late(at, request)


class ElsewhereLedger:
    """A ledger in another place, which goes away and comes back at the same address."""

    def __init__(self, suite: Any) -> None:
        self._suite = suite
        self._stack = AsyncExitStack()
        self.address = ""
        self.channel: Any = None

    async def start(self) -> None:
        port = int(self.address.rsplit(":", 1)[1]) if self.address else 0
        running = await self._stack.enter_async_context(self._suite("budget", grpc_port=port))
        self.address = running.grpc_address
        if self.channel is not None:
            await asyncio.wait_for(self.channel.channel_ready(), 20)

    async def stop(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def apart(desk: Any, suite: Any, when_unreachable: str) -> AsyncIterator[tuple[Any, ElsewhereLedger]]:
    """The suite with its ledger elsewhere."""
    ledger = ElsewhereLedger(suite)
    await ledger.start()
    try:
        policy = f"  budget: {{unreachable: {when_unreachable}}}"
        targets = ("cache", "optimizer", "router", "privacy", "orchestrator")
        environment = {"FARTHING_PEERS": f"budget={ledger.address}"}
        async with (
            desk(policy=policy, targets=targets, environment=environment) as at,
            network_channel(ledger.address) as channel,
        ):
            ledger.channel = channel
            at.ledger = budget_pb2_grpc.BudgetServiceStub(channel)
            yield at, ledger
    finally:
        await ledger.stop()


async def test_case_34_without_its_ledger_nothing_is_bought(desk: Any, suite: Any) -> None:
    async with apart(desk, suite, "fail_closed") as (at, ledger):
        await ledger.stop()
        refused = await refusal(at.orchestrator.Complete(at.ask()))
        assert (refused.code, refused.reason, refused.facts["peer"]) == (
            grpc.StatusCode.UNAVAILABLE,
            "PEER_UNAVAILABLE",
            "budget",
        )
        assert not at.upstream.bodies
        await ledger.start()
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await at.orchestrator.Complete(at.ask())
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
        assert answer.usage.output_tokens == 20


async def test_case_34_where_the_policy_lets_it_spending_goes_on_and_is_written_down_later(desk: Any, suite: Any) -> None:
    async with apart(desk, suite, "fail_open") as (at, ledger):
        budget_id = await at.limit(100)
        await ledger.stop()
        answers = [await at.orchestrator.Complete(at.ask()), (await heard(at.stream(at.ask())))[1]]
        for answer in answers:
            steps = {step.name: step.outcome for step in answer.receipt.steps}
            assert steps[orchestrator_pb2.STEP_NAME_ADMIT] == orchestrator_pb2.STEP_OUTCOME_UNAVAILABLE
            assert steps[orchestrator_pb2.STEP_NAME_RESERVE] == orchestrator_pb2.STEP_OUTCOME_UNAVAILABLE
        await ledger.start()
        await at.usage(requests=2)
        assert (await at.budget(budget_id)).spent_usd_nanos == 40 * TOKEN


async def test_case_34_a_stream_whose_ledger_goes_away_is_cut_at_what_is_paid_for(desk: Any, suite: Any) -> None:
    async with apart(desk, suite, "fail_closed") as (at, ledger):
        budget_id = await at.limit(100_000)
        at.upstream.script["dear"], at.upstream.pause_after, at.upstream.stop_after = 200, 40, 110
        request = at.ask(tokens_max=1000)
        call = asyncio.create_task(heard(at.stream(request)))
        await at.upstream.paused.wait()
        await ledger.stop()
        at.upstream.go.set()
        text, refused = await call
        assert (len(text) // len(at.upstream.text), refused.reason) == (64, "PEER_UNAVAILABLE")
        await asyncio.wait_for(at.upstream.hung_up.wait(), 10)
        await ledger.start()
        assert (await at.ended(request))[-1] == "SETTLE"
        assert (await at.budget(budget_id)).spent_usd_nanos == 64 * TOKEN


async def test_case_34_a_stream_whose_ledger_goes_away_may_go_on_and_its_overrun_is_settled(desk: Any, suite: Any) -> None:
    async with apart(desk, suite, "fail_open") as (at, ledger):
        budget_id = await at.limit(100_000)
        at.upstream.script["dear"], at.upstream.pause_after = 200, 40
        request = at.ask(tokens_max=1000)
        call = asyncio.create_task(heard(at.stream(request)))
        await at.upstream.paused.wait()
        await ledger.stop()
        at.upstream.go.set()
        text, end = await call
        assert (len(text) // len(at.upstream.text), end.receipt.cost_usd_nanos) == (200, 200 * TOKEN)
        await ledger.start()
        assert (await at.ended(request))[-1] == "SETTLE"
        assert (await at.budget(budget_id)).spent_usd_nanos == 200 * TOKEN
