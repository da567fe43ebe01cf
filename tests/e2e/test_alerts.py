"""Case 8 with a real process: killed right after it acknowledged what crossed a threshold, the alert still comes, and once."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc

from tests.e2e.conftest import farthing_serve

SCOPE = "organizations/acme/workspaces/search"


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


def spend(stub: Any, cost: int) -> None:
    lines = [budget_pb2.UsageLine(model="m", provider="p", input_tokens=1, cost_usd_nanos=cost, outcome="accepted")]
    usage = budget_pb2.UsageRecord(task="chat", lines=lines, baseline_usd_nanos=cost)
    stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=SCOPE, usage=usage))


def test_case_8_a_process_killed_right_after_the_crossing_alerts_once_when_it_is_back(
    database_url: str, session_dir: Any, receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    url, received = receiver
    environment = {
        "FARTHING_DATABASE_URL": database_url,
        "FARTHING_DATA_DIR": str(session_dir),
        "FARTHING_BUDGET_ALERT_PRIVATE_ADDRESSES": "true",
    }
    with farthing_serve("budget", **environment) as served, grpc.insecure_channel(served.grpc) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        asked = {"request_id": str(uuid.uuid4()), "scope": SCOPE}
        stub.CreateBudget(budget_pb2.CreateBudgetRequest(**asked, period=budget_pb2.PERIOD_MONTH, limit_usd_nanos=100))
        hook = budget_pb2.WebhookChannel(url=url, secret="a secret of many characters")
        channels = [budget_pb2.AlertChannel(webhook=hook)]
        stub.CreateAlertRule(
            budget_pb2.CreateAlertRuleRequest(
                **asked, kind=budget_pb2.ALERT_KIND_BUDGET_PERCENT, percents=[50, 90], channels=channels
            )
        )
        spend(stub, 49)
        spend(stub, 1)
        served.stop(kill=True)
    with farthing_serve("budget", **environment) as served, grpc.insecure_channel(served.grpc) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        spend(stub, 40)
        deadline = time.monotonic() + 30
        listing = budget_pb2.ListAlertsRequest(scope=SCOPE)
        while {each.deliveries[0].state for each in stub.ListAlerts(listing).alerts} != {"DELIVERED"} or len(received) < 2:
            assert time.monotonic() < deadline, received
            time.sleep(0.05)
        assert [each.threshold for each in stub.ListAlerts(listing).alerts] == [90, 50]
    assert {each["threshold"] for each in received} == {50, 90}
    assert len({each["alert_id"] for each in received}) == 2
