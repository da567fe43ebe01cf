"""The ledger over gRPC."""

from __future__ import annotations

from datetime import datetime

import grpc
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.registration import Mesh
from farthing_runtime.status import peer_failure
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_privacy.settings import Settings
from farthing_privacy.statistics import LedgerUnavailable, Measure, Question

_PAGE_SIZE = 10_000


class GrpcUsage:
    """Each user's totals, from the budget service."""

    def __init__(self, mesh: Mesh, settings: Settings) -> None:
        self._stub = budget_pb2_grpc.BudgetServiceStub(mesh.channel("budget"))
        self._timeout_s = settings.ledger_timeout_s
        self._users_max = settings.users_max

    async def by_user(self, question: Question) -> dict[str, int]:
        """Every page of the ledger's answer, at most users_max users."""
        assert question.start_time is not None
        assert question.end_time is not None
        request = budget_pb2.QueryUsageRequest(
            scope=question.scope.path,
            start_time=_timestamp(question.start_time),
            end_time=_timestamp(question.end_time),
            group_by=[budget_pb2.USAGE_GROUP_SCOPE],
            page_size=min(_PAGE_SIZE, self._users_max),
        )
        totals: dict[str, int] = {}
        for _ in range(-(-self._users_max // request.page_size)):
            page = await self._page(request)
            # A user who stands on two pages, because the ledger moved between them, is still one user.
            for row in page.rows:
                totals[row.scope] = totals.get(row.scope, 0) + _contribution(row, question.measure)
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        if len(totals) <= self._users_max:
            return totals
        return {path: totals[path] for path in sorted(totals)[: self._users_max]}

    async def _page(self, request: budget_pb2.QueryUsageRequest) -> budget_pb2.QueryUsageResponse:
        try:
            page: budget_pb2.QueryUsageResponse = await self._stub.QueryUsage(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            failure = peer_failure(error, peer="budget")
            if failure.code is grpc.StatusCode.INVALID_ARGUMENT:
                raise failure from error
            raise LedgerUnavailable(problem=failure.reason) from error
        return page


def _contribution(row: budget_pb2.UsageRow, measure: Measure) -> int:
    if measure is Measure.COST_SUM:
        return row.cost_usd_nanos
    if measure is Measure.TOKEN_SUM:
        return row.input_tokens + row.output_tokens
    return row.requests


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
