"""Sends a workload through a suite and adds up what came back."""

from __future__ import annotations

import asyncio
import csv
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing_core.errors import FarthingError

from farthing_runtime.demo.workload import Question
from farthing_runtime.mesh import network_channel
from farthing_runtime.status import peer_failure

_REQUEST_TIMEOUT_S = 300.0
_SETTLE_TIMEOUT_S = 30.0
_BUDGET_USD_NANOS = 1_000 * 1_000_000_000


class AccountsDiffer(FarthingError):
    """The receipts do not add up to the ledger: that must never happen."""

    def __init__(self, *, receipts: dict[str, int], ledger: dict[str, int]) -> None:
        super().__init__(f"the receipts say {receipts}, the ledger says {ledger}")


@dataclass(slots=True)
class Tally:
    """What came back."""

    requests: int = 0
    exact_hits: int = 0
    semantic_hits: int = 0
    escalations: int = 0
    masked: int = 0
    tokens_saved: int = 0
    cost_usd_nanos: int = 0
    baseline_usd_nanos: int = 0
    checks: int = 0
    checks_usd_nanos: int = 0
    right: int = 0
    judged: int = 0
    added_us: list[int] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    showpiece: Any = None
    wall_s: float = 0.0

    def take(self, question: Question, answer: Any) -> None:
        """Adds an answer."""
        receipt = answer.receipt
        hit = receipt.cache_outcome in (cache_pb2.LOOKUP_OUTCOME_HIT_EXACT, cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC)
        self.requests += 1
        self.exact_hits += receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_EXACT
        self.semantic_hits += receipt.cache_outcome == cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC
        self.escalations += receipt.escalated
        self.masked += receipt.masked_spans
        self.tokens_saved += receipt.input_tokens_before + answer.usage.output_tokens if hit else _shortened(receipt)
        self.cost_usd_nanos += receipt.cost_usd_nanos
        self.baseline_usd_nanos += receipt.baseline_usd_nanos
        verdict = question.is_right(answer.model, answer.answer.content)
        if verdict is not None:
            self.judged += 1
            self.right += verdict
        self.added_us.append(receipt.added_latency_us)
        if self.showpiece is None or (receipt.escalated and not self.showpiece.escalated):
            self.showpiece = receipt

    def percentile_ms(self, share: float) -> float:
        """A percentile of the latency that Farthing added, in milliseconds."""
        ordered = sorted(self.added_us) or [0]
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000


async def run_workload(
    address: str, questions: Sequence[Question], *, organization: str, concurrency: int, on_progress: Callable[[], None]
) -> Tally:
    """Asks every question over gRPC, at most so many at once, and checks the sum against the ledger. Raises AccountsDiffer."""
    tally, began_s = Tally(), time.monotonic()
    waiting = iter(questions)
    async with network_channel(address) as channel:
        await _create_budget(channel, organization)
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)

        async def work() -> None:
            for question in waiting:
                request = orchestrator_pb2.CompleteRequest(
                    request_id=str(uuid.uuid4()), scope=f"{organization}/workspaces/support/projects/desk", task="chat"
                )
                request.messages.add(role="user", content=question.prompt)
                try:
                    tally.take(question, await stub.Complete(request, timeout=_REQUEST_TIMEOUT_S))
                except grpc.aio.AioRpcError as error:
                    failure = peer_failure(error, peer=address)
                    tally.errors[failure.reason] = tally.errors.get(failure.reason, 0) + 1
                on_progress()

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
        tally.wall_s = time.monotonic() - began_s
        await _compare(channel, organization, tally)
    return tally


def _shortened(receipt: Any) -> int:
    return int(receipt.input_tokens_before - receipt.input_tokens_after)


async def _create_budget(channel: Any, organization: str) -> None:
    request = budget_pb2.CreateBudgetRequest(
        request_id=str(uuid.uuid4()),
        scope=organization,
        display_name="demonstration",
        period=budget_pb2.PERIOD_MONTH,
        limit_usd_nanos=_BUDGET_USD_NANOS,
    )
    await budget_pb2_grpc.BudgetServiceStub(channel).CreateBudget(request, timeout=10.0)


async def _compare(channel: Any, organization: str, tally: Tally) -> None:
    """Settlements may end a moment after their answers, so the ledger is asked until it has all of them, for a bounded time.

    What was bought beside, to check hits, stands in no receipt and in rows of its own.
    """
    receipts = {
        "requests": tally.requests,
        "cost_usd_nanos": tally.cost_usd_nanos,
        "baseline_usd_nanos": tally.baseline_usd_nanos,
    }
    stub, ledger = budget_pb2_grpc.BudgetServiceStub(channel), dict.fromkeys(receipts, 0)
    deadline_s = time.monotonic() + _SETTLE_TIMEOUT_S
    while ledger != receipts:
        if time.monotonic() > deadline_s:
            raise AccountsDiffer(receipts=receipts, ledger=ledger)
        await asyncio.sleep(0.05)
        rows = (await stub.QueryUsage(budget_pb2.QueryUsageRequest(scope=organization), timeout=10.0)).rows
        ledger = {name: sum(getattr(row, name) for row in rows) for name in receipts}
        tally.checks, tally.checks_usd_nanos = await _bought_beside(stub, organization)
        ledger["cost_usd_nanos"] -= tally.checks_usd_nanos
        if tally.errors and ledger["requests"] >= receipts["requests"]:
            return  # failed requests may have been billed; their cost stands in no receipt


async def _bought_beside(stub: Any, organization: str) -> tuple[int, int]:
    """Attempts that the ledger knows as bought for comparison only: how many, and what they cost in nanodollars."""
    request = budget_pb2.ExportUsageRequest(scope=organization, format=budget_pb2.EXPORT_FORMAT_CSV)
    chunks = [each.chunk async for each in stub.ExportUsage(request, timeout=_REQUEST_TIMEOUT_S)]
    rows = csv.DictReader(b"".join(chunks).decode().splitlines())
    costs = [int(row["cost_usd_nanos"]) for row in rows if row["outcome"].startswith("shadow_")]
    return len(costs), sum(costs)
