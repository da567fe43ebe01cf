"""The servicer: groups of RPCs put together."""

from __future__ import annotations

from typing import Any

from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.groups import put_together

_SERVICE = router_pb2.DESCRIPTOR.services_by_name["RouterService"]


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """`farthing.router.v1.RouterService`: every RPC of the contract from the group that has it."""

    def __init__(self, *groups: Any) -> None:
        put_together(self, _SERVICE, groups)
