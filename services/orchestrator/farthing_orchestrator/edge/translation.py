"""From a peer's statuses to the domain's failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from farthing_runtime.status import PeerFailure, peer_failure, retry_after_s

from farthing_orchestrator.ports import PeerUnavailable, Refused

_OUT_OF_REACH = frozenset({"STORE_UNAVAILABLE", "LEDGER_BUSY", "PEER_UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"})
_DID_NOTHING = frozenset({"STORE_UNAVAILABLE", "LEDGER_BUSY"})
_NEVER_SENT = ("failed to connect", "connections to all backends failing", "no service in this process")
"""How gRPC, and a local channel, begin to say that a call did not leave."""


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Turns a peer's RPC error into the domain's words."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        failure = peer_failure(error, peer=peer)
        lost = failure.status is None or failure.reason in _OUT_OF_REACH
        if lost and failure.code is not grpc.StatusCode.INVALID_ARGUMENT:
            may_have_acted = not _did_nothing(failure, error.details() or "")
            raise PeerUnavailable(peer=peer, message=failure.message, may_have_acted=may_have_acted) from error
        wait_s = retry_after_s(failure.status) if failure.status is not None else None
        raise Refused(reason=failure.reason, passed_on=failure, retry_after_s=wait_s or None) from error


def _did_nothing(failure: PeerFailure, details: str) -> bool:
    return failure.reason in _DID_NOTHING or (failure.status is None and details.startswith(_NEVER_SENT))
