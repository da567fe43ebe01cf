"""What one call between services costs: through the process, beside loopback TCP in the same run.

`python -m evals.hop [--calls 20000] [--data DIR]`. The call is `ReserveBudget` of about the size it has in production, answered at once
by a servicer that does nothing, with everything a real call wears: validation, deadline, statuses, and the serialise and parse both ways.
Batches over the two transports alternate, so that noise of the machine falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid
from contextlib import AsyncExitStack
from typing import Any, cast

import uvloop
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.hosting import running_suite
from farthing_runtime.mesh import network_channel
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.settings import HostSettings

from evals.report import print_figures, print_table

_BATCH = 500
_SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"


class _Ledger(budget_pb2_grpc.BudgetServiceServicer):
    async def ReserveBudget(self, request: Any, context: Any) -> Any:
        reservation = budget_pb2.Reservation(
            request_id=request.request_id, scope=request.scope, amount_usd_nanos=request.amount_usd_nanos
        )
        return budget_pb2.ReserveBudgetResponse(verdict=budget_pb2.VERDICT_ALLOW, reservation=reservation)


async def measure(calls: int) -> dict[str, list[float]]:
    """Microseconds of every call, by transport."""
    servicer: Any = cast(Any, _Ledger)()  # its other methods stay unimplemented
    binding = ServiceBinding(
        "farthing.budget.v1.BudgetService", budget_pb2_grpc.add_BudgetServiceServicer_to_server, servicer, {}, deadline_s=30.0
    )
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(
            running_suite(HostSettings(grpc_port=0), (), extra_bindings={"budget": (binding,)})
        )
        network = await stack.enter_async_context(network_channel(suite.grpc_address))
        stubs = {
            "local": budget_pb2_grpc.BudgetServiceStub(suite.mesh.channel("budget")),
            "tcp": budget_pb2_grpc.BudgetServiceStub(network),
        }
        took_us: dict[str, list[float]] = {name: [] for name in stubs}
        for batch in range(-1, max(1, calls // _BATCH)):
            for name, stub in stubs.items():
                sample = await _batch(stub)
                if batch >= 0:  # the first batch warms up
                    took_us[name].extend(sample)
        return took_us


async def _batch(stub: Any) -> list[float]:
    took_us = []
    for _ in range(_BATCH):
        request = budget_pb2.ReserveBudgetRequest(
            request_id=str(uuid.uuid4()), scope=_SCOPE, amount_usd_nanos=1_234_567, tokens=812
        )
        began = time.perf_counter()
        await stub.ReserveBudget(request, timeout=5.0)
        took_us.append((time.perf_counter() - began) * 1e6)
    return took_us


def main() -> None:
    """Prints the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="calls over each transport")
    parser.add_argument("--data", help="unused: this eval makes its own calls")
    took_us = uvloop.run(measure(parser.parse_args().calls))
    rows = [
        (name, f"{statistics.median(sample):.1f}", f"{statistics.quantiles(sample, n=100)[98]:.1f}", len(sample))
        for name, sample in took_us.items()
    ]
    print_table(("transport", "p50 µs", "p99 µs", "calls"), rows)
    print_figures("hop", {f"{name}_us_p50": round(statistics.median(sample), 2) for name, sample in took_us.items()})


if __name__ == "__main__":
    main()
