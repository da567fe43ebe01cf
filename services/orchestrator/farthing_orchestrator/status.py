"""Which status each failure of the orchestrator becomes; what peers refused is passed on as they said it."""

from __future__ import annotations

import grpc
from farthing_runtime.status import StatusRow, StatusTable

from farthing_orchestrator.metering import BudgetCut
from farthing_orchestrator.ports import PeerUnavailable, RequestIdReused

STATUS_TABLE: StatusTable = {
    BudgetCut: StatusRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED", quota=True),
    PeerUnavailable: StatusRow(grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE"),
    RequestIdReused: StatusRow(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"),
}
