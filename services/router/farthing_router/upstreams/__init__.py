"""The port to model providers. Promises are tested in tests/contract/test_upstreams.py against a server with every fault we know."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from farthing_core.errors import FarthingError

from farthing_router.catalog import Deployment
from farthing_router.upstreams.payloads import Reported


class UpstreamFailed(FarthingError):
    """A provider gave no answer: down, overloaded, too slow, or talking nonsense. `retryable` says whether asking again may help.

    `may_be_billed` says that the provider got the request and nobody knows what became of it.
    """

    def __init__(self, *, what: str, retryable: bool, retry_after_s: float | None = None, may_be_billed: bool = False) -> None:
        super().__init__(what)
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed


class UpstreamRejected(FarthingError):
    """A provider refused the request as malformed: asking anybody again would not help."""

    def __init__(self, *, provider: str, status: int, what: str) -> None:
        super().__init__(f"{provider} refused the request ({status}): {what}", provider=provider, status=status)


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Conversation and parameters are opaque; `timeout_s` bounds all of it."""

    deployment: Deployment
    conversation: Any
    parameters: Any
    output_tokens_max: int
    timeout_s: float
    request_id: str


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A whole answer. The JSON fields hold what Farthing does not interpret; usage is None where none was reported."""

    content: str
    extra_json: str
    finish_reason: str
    response_extra_json: str
    usage: Reported | None


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
