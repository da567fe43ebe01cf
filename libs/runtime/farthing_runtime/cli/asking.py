"""Calls of a running suite from the shell, and what their options say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

MOMENT = "A day (2026-07-01, at midnight UTC) or a moment (2026-07-01T12:00:00+00:00)."


def ask(stub: Any, method: str, request: Any, *, address: str, timeout_s: float = 10.0) -> Any:
    """The answer to a request, by the class of a stub and the name of its method. Raises PeerFailure."""
    import grpc

    from farthing_runtime.mesh import network_channel
    from farthing_runtime.status import peer_failure

    async def go() -> Any:
        async with network_channel(address) as channel:
            try:
                return await getattr(stub(channel), method)(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raise peer_failure(error, peer=address) from error

    return asyncio.run(go())


def moment_of(text: str) -> Any:
    """A moment of the command line; None for an empty text. Raises SettingsInvalid."""
    from google.protobuf.timestamp_pb2 import Timestamp

    from farthing_runtime.settings import SettingsInvalid

    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsInvalid(field=text, problem="is no day and no moment") from error
    stamp = Timestamp()
    stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return stamp


def enum_number(kind: Any, prefix: str, word: Any, field: str) -> Any:
    """The number of an enum's value by its last words, in any letters. Raises SettingsInvalid, naming the field and the values."""
    from farthing_runtime.settings import SettingsInvalid

    known = {name.removeprefix(f"{prefix}_").lower(): number for name, number in kind.items() if number}
    number = known.get(str(word).lower())
    if number is None:
        raise SettingsInvalid(field=field, problem=f"{word!r} is none of {', '.join(known)}")
    return number
