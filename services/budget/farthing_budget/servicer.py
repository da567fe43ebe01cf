"""The servicer: groups of RPCs put together."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2, budget_pb2_grpc

_RPCS = tuple(method.name for method in budget_pb2.DESCRIPTOR.services_by_name["BudgetService"].methods)


class BudgetServicer(budget_pb2_grpc.BudgetServiceServicer):
    """`farthing.budget.v1.BudgetService`: every RPC of the contract from the group that has it."""

    def __init__(self, *groups: Any) -> None:
        for rpc in _RPCS:
            having = [group for group in groups if hasattr(group, rpc)]
            if len(having) > 1:
                raise TypeError(f"{rpc} is in {len(having)} groups of RPCs instead of in one")
            if having:
                setattr(self, rpc, getattr(having[0], rpc))
