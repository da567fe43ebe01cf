"""The servicer: groups of RPCs put together."""

from __future__ import annotations

from typing import Any

from farthing.router.v1 import router_pb2, router_pb2_grpc

_RPCS = tuple(method.name for method in router_pb2.DESCRIPTOR.services_by_name["RouterService"].methods)


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """`farthing.router.v1.RouterService`: every RPC of the contract from the group that has it."""

    def __init__(self, *groups: Any) -> None:
        for rpc in _RPCS:
            having = [group for group in groups if hasattr(group, rpc)]
            if len(having) > 1:
                raise TypeError(f"{rpc} is in {len(having)} groups of RPCs instead of in one")
            if having:
                setattr(self, rpc, getattr(having[0], rpc))
