"""One call of a running suite from the shell."""

from __future__ import annotations

import asyncio
from typing import Any


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
