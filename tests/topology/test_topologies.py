"""The same journey in one process, split in two, and one process a service: the results are identical."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_runtime.catalog import CATALOG
from farthing_runtime.status import error_info, rich_status

_spec = importlib.util.spec_from_file_location("e2e_processes", Path(__file__).parent.parent / "e2e" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
processes = importlib.util.module_from_spec(_spec)
sys.modules["e2e_processes"] = processes
_spec.loader.exec_module(processes)
config_file, serve = processes.config_file, processes.serve

EASY, HARD, GOOD = processes.EASY, processes.HARD, processes.GOOD
Hosted = dict[str, Any]


def host(serve: Callable[..., Any], *groups: tuple[str, ...]) -> Hosted:
    """Hosts groups of targets, each in a process of its own; by target, where it runs."""
    ports = {target: port for group in groups for port in [processes.free_port()] for target in group}
    hosted: Hosted = {}
    for group in groups:
        peers = ",".join(f"{target}=127.0.0.1:{port}" for target, port in ports.items() if target not in group)
        served = serve(*group, FARTHING_GRPC_PORT=str(ports[group[0]]), FARTHING_PEERS=peers, FARTHING_INTERNAL_TOKEN="ours")
        hosted |= dict.fromkeys(group, served)
    return hosted


@pytest.fixture(params=["one process", "two processes", "a process each"])
def topology(request: pytest.FixtureRequest, serve: Callable[..., Any]) -> Hosted:
    groups: dict[str, tuple[tuple[str, ...], ...]] = {
        "one process": (tuple(CATALOG),),
        "two processes": (("budget", "cache", "privacy"), ("optimizer", "router", "orchestrator", "gateway")),
        "a process each": tuple((target,) for target in CATALOG),
    }
    return host(serve, *groups[request.param])


def complete_request(prompt: str, **fields: Any) -> Any:
    request = orchestrator_pb2.CompleteRequest(**{"request_id": str(uuid.uuid4()), "scope": "organizations/acme", **fields})
    request.messages.add(role="user", content=prompt)
    return request


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rich_status(error)
    info = error_info(status) if status is not None else None
    return info.reason if info is not None else error.code().name


async def journey(hosted: Hosted) -> list[Any]:
    """What a caller sees: a miss, its exact hit, an escalation, a stream, a bad request, and the end of the money."""
    seen: list[Any] = []
    async with (
        grpc.aio.insecure_channel(hosted["orchestrator"].grpc) as one,
        grpc.aio.insecure_channel(hosted["budget"].grpc) as other,
    ):
        stub, ledger = orchestrator_pb2_grpc.OrchestratorServiceStub(one), budget_pb2_grpc.BudgetServiceStub(other)

        def note(answer: Any) -> None:
            receipt = answer.receipt
            seen.append(
                (answer.model, answer.answer.content, receipt.cost_usd_nanos, receipt.baseline_usd_nanos, receipt.cache_outcome)
            )

        note(await stub.Complete(complete_request(EASY)))
        async with asyncio.timeout(20):
            while True:
                answer = await stub.Complete(complete_request(EASY))
                if answer.receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_EXACT:
                    break
        note(answer)
        note(await stub.Complete(complete_request(HARD)))
        stream = stub.StreamComplete(orchestrator_pb2.StreamCompleteRequest(request=complete_request(EASY, model="large")))
        events = [event async for event in stream]
        seen.append("".join(event.delta.content for event in events if event.WhichOneof("event") == "delta"))
        for fields in ({"model": "ghost"}, {"scope": "acme"}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Complete(complete_request(EASY, **fields))
            seen.append((caught.value.code(), reason(caught.value)))
        limit = {"scope": "organizations/acme", "period": budget_pb2.PERIOD_DAY, "limit_usd_nanos": 1}
        await ledger.CreateBudget(budget_pb2.CreateBudgetRequest(request_id=str(uuid.uuid4()), **limit))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Complete(complete_request(HARD, model="large"))
        seen.append((caught.value.code(), reason(caught.value)))
    return seen


SMALL, LARGE = 100 * 150 + 20 * 600, 100 * 5_000 + 20 * 15_000
EXPECTED = [
    ("small", GOOD, SMALL, LARGE, cache_pb2.LOOKUP_OUTCOME_MISS),
    ("small", GOOD, 0, LARGE, cache_pb2.LOOKUP_OUTCOME_HIT_EXACT),
    ("large", "Because clause 9 names resellers and takes precedence.", SMALL + LARGE, LARGE, cache_pb2.LOOKUP_OUTCOME_MISS),
    GOOD,
    (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_UNKNOWN"),
    (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED"),
]


async def test_the_journey_is_the_same_in_every_topology(topology: Hosted) -> None:
    assert await journey(topology) == EXPECTED


async def test_a_peer_that_is_gone_is_treated_as_its_page_says(serve: Callable[..., Any]) -> None:
    hosted = host(serve, ("budget",), ("cache",), ("router",), ("optimizer", "privacy", "orchestrator"))
    async with grpc.aio.insecure_channel(hosted["orchestrator"].grpc) as channel:
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        hosted["cache"].stop(kill=True)
        answer = await stub.Complete(complete_request(HARD))
        outcomes = {step.name: step.outcome for step in answer.receipt.steps}
        assert outcomes[orchestrator_pb2.STEP_NAME_LOOK_UP] == orchestrator_pb2.STEP_OUTCOME_UNAVAILABLE
        hosted["budget"].stop(kill=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Complete(complete_request(HARD))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE")
        hosted["router"].stop(kill=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Complete(complete_request(HARD))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE")
