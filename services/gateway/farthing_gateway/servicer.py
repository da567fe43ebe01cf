"""Translates: messages in, the keyring's call, messages out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from farthing.gateway.v1 import access_pb2, access_pb2_grpc
from farthing_core.scopes import parse_scope
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_gateway.keys import Key, Keyring

_PAGE_SIZE = 100


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """`farthing.gateway.v1.AccessService`."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def CreateKey(self, request: Any, context: Any) -> Any:
        """Makes a key."""
        key, secret = await self._keyring.create(
            parse_scope(request.scope), display_name=request.display_name, ttl_s=request.ttl_s
        )
        return access_pb2.CreateKeyResponse(key=_message(key), secret=secret)

    async def ListKeys(self, request: Any, context: Any) -> Any:
        """Lists keys."""
        size = request.page_size or _PAGE_SIZE
        keys = await self._keyring.list_from(parse_scope(request.scope), after=request.page_token, count_max=size + 1)
        token = keys[size - 1].key_id if len(keys) > size else ""
        return access_pb2.ListKeysResponse(keys=[_message(key) for key in keys[:size]], next_page_token=token)

    async def RevokeKey(self, request: Any, context: Any) -> Any:
        """Ends a key."""
        return access_pb2.RevokeKeyResponse(
            key=_message(await self._keyring.revoke(parse_scope(request.scope), request.key_id))
        )

    async def WhoAmI(self, request: Any, context: Any) -> Any:
        """Says whose key this is."""
        return access_pb2.WhoAmIResponse(key=_message(await self._keyring.whose(request.secret)))


def _message(key: Key) -> Any:
    return access_pb2.Key(
        key_id=key.key_id,
        scope=key.scope,
        display_name=key.display_name,
        prefix=key.prefix,
        create_time=_timestamp(key.created_at),
        expire_time=_timestamp(key.expires_at),
        revoke_time=_timestamp(key.revoked_at),
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
