"""`buf curl` against a running suite, with nothing but reflection."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

BUF = str(Path(sys.executable).parent / "buf")


def curl(served: Any, path: str, body: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    target = f"http://{served.grpc}{path}"
    more = ["--data", json.dumps(body)] if body is not None else ["--list-services"]
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *more, target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_services_are_listed_and_three_rpcs_answer(serve: Any) -> None:
    served = serve()
    listed = curl(served, "")
    for service in ("budget", "cache", "optimizer", "orchestrator", "privacy", "router"):
        assert f"farthing.{service}.v1." in listed.stdout, listed.stderr
    models = curl(served, "/farthing.router.v1.RouterService/ListModels", {})
    assert [model["model"] for model in json.loads(models.stdout)["models"]] == ["large", "small"]
    budget = {
        "request_id": str(uuid.uuid4()),
        "scope": "organizations/acme",
        "period": "PERIOD_MONTH",
        "limit_usd_nanos": "1000000000",
    }
    created = curl(served, "/farthing.budget.v1.BudgetService/CreateBudget", budget)
    assert json.loads(created.stdout)["budget"]["limitUsdNanos"] == "1000000000", created.stderr
    request = {
        "request_id": str(uuid.uuid4()),
        "scope": "organizations/acme",
        "messages": [{"role": "user", "content": "How do I reset my password?"}],
    }
    answer = json.loads(curl(served, "/farthing.orchestrator.v1.OrchestratorService/Complete", request).stdout)
    assert answer["model"] == "small"
    assert answer["receipt"]["saving"]["routeUsdNanos"] > "0"
    bad = curl(served, "/farthing.orchestrator.v1.OrchestratorService/Complete", {**request, "scope": "acme"})
    assert bad.returncode != 0
    assert "scope" in bad.stderr
