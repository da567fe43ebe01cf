"""The servicer: groups of RPCs put together."""

from __future__ import annotations

from typing import Any

from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing_runtime.groups import put_together

_SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    """`farthing.cache.v1.CacheService`: every RPC of the contract from the group that has it."""

    def __init__(self, *groups: Any) -> None:
        put_together(self, _SERVICE, groups)
