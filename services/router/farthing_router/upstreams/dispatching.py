"""Which adapter calls which deployment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from farthing_router.upstreams import Call, Upstream, UpstreamAnswer, UpstreamPiece
from farthing_router.upstreams.anthropic_wire import AnthropicFormat
from farthing_router.upstreams.cohere_wire import CohereFormat
from farthing_router.upstreams.exchange import WireFormat
from farthing_router.upstreams.openai_wire import AzureFormat, OpenAIFormat

FORMATS: Mapping[str, WireFormat] = {
    "openai": OpenAIFormat(),
    "azure": AzureFormat(),
    "anthropic": AnthropicFormat(),
    "cohere": CohereFormat(),
}
"""The wires that are spoken over plain HTTP."""


class Upstreams:
    """The Upstream of all deployments: each is called by the adapter of its wire; one that is a Batch API, by `batches`."""

    def __init__(self, wires: Mapping[str, Upstream], *, batches: Upstream) -> None:
        self._wires = dict(wires)
        self._batches = batches

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer."""
        return await self._adapter(call).complete(call)

    def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """Pieces as they come, then the whole."""
        return self._adapter(call).stream(call)

    def _adapter(self, call: Call) -> Upstream:
        wire = call.deployment.wire
        return self._wires[wire.name] if wire.batch is None else self._batches
