"""RPCs on data keys and what they encrypt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Any, TypeVar

from farthing.privacy.v1 import privacy_pb2 as pb
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope
from farthing_runtime import pages
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_privacy.keys.keyring import Keyring
from farthing_privacy.store import Erasure

_Result = TypeVar("_Result")
_INLINE_BYTES_MAX = 256 * 1024
_PAGE_SIZE = 100


class KeyRpcs:
    """Encrypting, lending, rotating and erasing."""

    def __init__(self, keyring: Keyring, *, executor: Executor) -> None:
        self._keyring = keyring
        self._executor = executor

    async def EncryptPayload(self, request: Any, context: Any) -> Any:
        """Encrypts payloads."""
        pairs = _pairs(request.payloads, request.associated)
        keys = await self._keyring.to_encrypt(parse_scope(request.scope).organization, request.purpose)
        sealed = await self._run(lambda: [keys.seal(each, belongs_to=place) for each, place in pairs], request.payloads)
        return pb.EncryptPayloadResponse(sealed=sealed)

    async def DecryptPayload(self, request: Any, context: Any) -> Any:
        """Decrypts payloads."""
        pairs = _pairs(request.sealed, request.associated)
        keys = await self._keyring.to_decrypt(parse_scope(request.scope).organization, request.purpose)
        opened = await self._run(lambda: [keys.open(each, belongs_to=place) for each, place in pairs], request.sealed)
        return pb.DecryptPayloadResponse(
            payloads=[pb.OpenedPayload(found=each is not None, payload=each or b"") for each in opened]
        )

    async def LeaseDataKeys(self, request: Any, context: Any) -> Any:
        """Lends keys to a peer."""
        lease = await self._keyring.lease(parse_scope(request.scope).organization, request.purpose)
        keys = [pb.DataKey(number=number, key=key) for number, key in sorted(lease.keys.items())]
        return pb.LeaseDataKeysResponse(keys=keys, lease_s=lease.lease_s)

    async def RotateKeys(self, request: Any, context: Any) -> Any:
        """Makes new keys, or wraps them anew."""
        organization = parse_scope(request.scope).organization
        done = await self._keyring.rotate(
            organization, request.purpose, request_id=request.request_id, rewrap_only=request.rewrap_only
        )
        return pb.RotateKeysResponse(made=done.made, rewrapped=done.rewrapped)

    async def EraseKeys(self, request: Any, context: Any) -> Any:
        """Erases keys."""
        erasure = Erasure(request.purpose, request.may_begin_again, request.actor, request.reason)
        erased, leases_end_s = await self._keyring.erase(parse_scope(request.scope).organization, erasure)
        return pb.EraseKeysResponse(erased=erased, leases_end_s=leases_end_s)

    async def ListDataKeys(self, request: Any, context: Any) -> Any:
        """Says which keys there are."""
        organization, size = parse_scope(request.scope).organization, request.page_size or _PAGE_SIZE
        after = pages.keys(request, count=2)
        states = await self._keyring.states(
            organization, after=(after[0], int(after[1])) if after else ("", 0), count_max=size + 1
        )
        shown = states[:size]
        further = len(states) > size
        return pb.ListDataKeysResponse(
            keys=[_state(each) for each in shown],
            next_page_token=pages.token(request, (shown[-1].purpose, str(shown[-1].number))) if further else "",
        )

    async def _run(self, work: Callable[[], _Result], payloads: Sequence[bytes]) -> _Result:
        """Little at once, much in a worker thread, so that it does not hold up the rest."""
        if sum(map(len, payloads)) <= _INLINE_BYTES_MAX:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _pairs(payloads: Sequence[bytes], associated: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Each payload with what it belongs to. Raises FieldInvalid."""
    places = list(associated) if len(associated) > 1 else [*(associated or [b""])] * len(payloads)
    if len(places) != len(payloads):
        raise FieldInvalid(field="associated", problem=f"must be one for all, or {len(payloads)}, one each")
    return list(zip(payloads, places, strict=True))


def _state(state: Any) -> Any:
    return pb.DataKeyState(
        purpose=state.purpose,
        number=state.number,
        master_key_id=state.master_key_id,
        create_time=_timestamp(state.created_at),
        erase_time=None if state.erased_at is None else _timestamp(state.erased_at),
        erased_by=state.erased_by,
    )


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
