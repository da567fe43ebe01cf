"""The log names the request and never its text."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import structlog
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.logs import configure_logs
from farthing_runtime.registration import ServiceBinding
from structlog.testing import capture_logs

ID = "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1"


class Broken(budget_pb2_grpc.BudgetServiceServicer):
    async def ReserveBudget(self, request: Any, context: Any) -> Any:
        raise RuntimeError("boom")


async def test_an_unexpected_error_is_logged_with_its_request(api: Any) -> None:
    binding = ServiceBinding(
        "farthing.budget.v1.BudgetService", budget_pb2_grpc.add_BudgetServiceServicer_to_server, Broken(), {}
    )
    async with api(peers={"budget": binding}) as channel_of:
        request = budget_pb2.ReserveBudgetRequest(request_id=ID, scope="organizations/acme")
        with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError):
            await budget_pb2_grpc.BudgetServiceStub(channel_of("budget")).ReserveBudget(request)
        assert [entry["request_id"] for entry in logs if entry["event"] == "unexpected error"] == [ID]


def test_a_traceback_for_machines_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    key = "a key that must not be seen"
    before = structlog.get_config()
    try:
        configure_logs(level="info", form="json")
        try:
            raise RuntimeError(f"boom {len(key)}")
        except RuntimeError as error:
            structlog.get_logger().error("unexpected error", exc_info=error)
    finally:
        structlog.configure(**before)
    logged = capsys.readouterr().err
    assert "boom 27" in logged
    assert key not in logged
