"""The servicer: groups of RPCs put together."""

from __future__ import annotations

from typing import Any

from farthing.privacy.v1 import privacy_pb2, privacy_pb2_grpc
from farthing_runtime.groups import put_together

_SERVICE = privacy_pb2.DESCRIPTOR.services_by_name["PrivacyService"]


class PrivacyServicer(privacy_pb2_grpc.PrivacyServiceServicer):
    """`farthing.privacy.v1.PrivacyService`: every RPC of the contract from the group that has it."""

    def __init__(self, *groups: Any) -> None:
        put_together(self, _SERVICE, groups)
