"""Which adapter calls which deployment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from farthing_router.upstreams import Call, Upstream, UpstreamAnswer, UpstreamPiece


class Upstreams:
    """The Upstream of all deployments: each is called by the adapter of its wire; one that is a batch, by the batches of its wire."""

    def __init__(self, wires: Mapping[str, Upstream], *, batches: Mapping[str, Upstream] | None = None) -> None:
        self._wires = dict(wires)
        self._batches = dict(batches or {})

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer."""
        return await self._adapter(call).complete(call)

    def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """Pieces as they come, then the whole."""
        return self._adapter(call).stream(call)

    def _adapter(self, call: Call) -> Upstream:
        wire = call.deployment.wire
        return (self._wires if wire.batch is None else self._batches)[wire.name]
