"""The privacy service over gRPC: keys on loan."""

from __future__ import annotations

import grpc
import structlog
from farthing.privacy.v1 import privacy_pb2, privacy_pb2_grpc
from farthing_runtime.envelopes import DataKeys
from farthing_runtime.registration import Mesh
from farthing_runtime.status import peer_failure

from farthing_cache.sealing.leased import Lent
from farthing_cache.sealing.seals import KeysGone, SealUnavailable

_PURPOSE = "cache"
_TIMEOUT_S = 2.0
_log = structlog.get_logger()


class GrpcKeys:
    """The KeyLender. Raises SettingsInvalid at once where the privacy service has no address, or shares no token with this process."""

    def __init__(self, mesh: Mesh) -> None:
        self._stub = privacy_pb2_grpc.PrivacyServiceStub(mesh.channel("privacy"))
        self._proof = mesh.proof("privacy")

    async def lend(self, organization: str) -> Lent:
        """Keys of the cache's purpose. Raises KeysGone, SealUnavailable."""
        request = privacy_pb2.LeaseDataKeysRequest(scope=f"organizations/{organization}", purpose=_PURPOSE)
        try:
            answer = await self._stub.LeaseDataKeys(request, timeout=_TIMEOUT_S, metadata=self._proof)
        except grpc.aio.AioRpcError as error:
            failure = peer_failure(error, peer="privacy")
            if failure.reason == "KEYS_ERASED":
                raise KeysGone from error
            _log.warning("no keys on loan: answers are missed and not stored", reason=failure.reason)
            raise SealUnavailable from error
        return Lent(DataKeys(organization, _PURPOSE, {each.number: each.key for each in answer.keys}), answer.lease_s)
