"""The servicer: groups of RPCs put together."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.groups import put_together

_SERVICE = budget_pb2.DESCRIPTOR.services_by_name["BudgetService"]


class BudgetServicer(budget_pb2_grpc.BudgetServiceServicer):
    """`farthing.budget.v1.BudgetService`: every RPC of the contract from the group that has it."""

    def __init__(self, *groups: Any) -> None:
        put_together(self, _SERVICE, groups)
