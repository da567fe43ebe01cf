"""The port to model providers. Promises are tested in tests/contract/test_upstreams.py against a server with every fault we know."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams.failures import FailureKind, UpstreamFailed, UpstreamRejected
from farthing_router.upstreams.limits import RateLimits
from farthing_router.upstreams.payloads import Reported

__all__ = [
    "Call",
    "FailureKind",
    "RateLimits",
    "Upstream",
    "UpstreamAnswer",
    "UpstreamFailed",
    "UpstreamPiece",
    "UpstreamRejected",
]


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Conversation and parameters are opaque; `timeout_s` bounds all of it.

    `organization` and `model` (as the catalog names it) are for what outlives the call: a batch that is fetched when nobody waits any more.
    """

    deployment: Deployment
    conversation: Any
    parameters: Any
    output_tokens_max: int
    timeout_s: float
    request_id: str
    organization: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A whole answer. The JSON fields hold what Farthing does not interpret; usage is None where none was reported.

    Where the provider gave log-probabilities: `mean_logprob` is the mean over the answer's tokens, `mean_margin` how far on average the
    token that was taken lies above the best other one.
    """

    content: str
    extra_json: str
    finish_reason: str
    response_extra_json: str
    usage: Reported | None
    mean_logprob: float | None = None
    mean_margin: float | None = None
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class UpstreamPiece:
    """A piece of a streamed answer; `model` is the one that speaks, as the catalog names it."""

    content: str
    extra_json: str
    model: str = ""


class Upstream(Protocol):
    """Calls deployments."""

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer. Raises UpstreamFailed or UpstreamRejected, never anything of the library underneath."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """Pieces as they come, then the whole. A stream that ends without its end marker raises UpstreamFailed after its pieces."""
        ...
