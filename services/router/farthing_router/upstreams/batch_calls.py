"""The words of batches: calls that go together, what becomes of each, and the ports to providers' Batch APIs and to their rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamFailed, UpstreamRejected

BATCH_TIER = "batch"
Result = UpstreamAnswer | UpstreamFailed | UpstreamRejected


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call of a batch as it is written down. `request_bytes` bounds its prompt where nobody reports its tokens."""

    custom_id: str
    request_id: str
    request_bytes: int


@dataclass(frozen=True, slots=True)
class WrittenBatch:
    """A batch as it is written down; `provider_batch_id` is empty until the provider has taken it."""

    organization: str
    batch_id: str
    model: str
    deployment: str
    provider_batch_id: str
    created_at: datetime
    expires_at: datetime
    calls: tuple[WrittenCall, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a call. `awaited`: its caller got it, and accounts for it; else the cost that is written down here is all there is."""

    custom_id: str
    awaited: bool
    reason: str
    input_tokens: int
    output_tokens: int
    cost_usd_nanos: int


@dataclass(slots=True)
class WaitingCall:
    """A call whose caller waits; `line` is the request as it stands in the batch."""

    written: WrittenCall
    line: bytes
    result: asyncio.Future[Result]


@dataclass(frozen=True, slots=True)
class BatchState:
    """How far a provider is. `failed`: it took none of the calls, and this is why. The files are where OpenAI keeps results."""

    ended: bool
    failed: UpstreamFailed | None = None
    files: tuple[str, ...] = ()


class BatchApi(Protocol):
    """A provider's Batch API. Everything raises UpstreamFailed or UpstreamRejected, never anything of the library underneath."""

    def line(self, call: Call, *, custom_id: str) -> bytes:
        """A call as it stands in a batch."""
        ...

    async def submit(self, deployment: Deployment, lines: Sequence[bytes], *, batch_id: str) -> str:
        """Sends calls as one batch; the provider's name for it."""
        ...

    async def find(self, deployment: Deployment, batch_id: str) -> str:
        """The provider's name for a batch of which we do not know whether it arrived; empty where it is not to be found."""
        ...

    async def state(self, deployment: Deployment, provider_batch_id: str) -> BatchState:
        """How far it is."""
        ...

    def results(self, deployment: Deployment, provider_batch_id: str, state: BatchState) -> AsyncIterator[tuple[str, Result]]:
        """What became of the calls, by custom id, in any order; a call that is missing was not made.

        What cannot be read has no custom id.
        """
        ...

    async def cancel(self, deployment: Deployment, provider_batch_id: str) -> None:
        """Asks the provider to make no more of the calls; what is made already is billed."""
        ...


class BatchStore(Protocol):
    """What is written down of batches. Everything raises StoreUnavailable.

    - A batch is durable before `open` returns, and so is the provider's name for it before `submitted` does.
    - A batch that is under way belongs to whoever holds its lease; `take_up` gives each one whose lease has run out to one caller only.
    - `close` may be repeated: the first outcome of a call stands.
    """

    async def open(self, batch: WrittenBatch, *, lease_until: datetime) -> None:
        """Writes a batch down before it is sent."""
        ...

    async def submitted(self, batch: WrittenBatch, *, provider_batch_id: str) -> None:
        """Writes down how the provider calls it."""
        ...

    async def renew(self, batch: WrittenBatch, *, lease_until: datetime) -> None:
        """Says that somebody still looks after it."""
        ...

    async def take_up(self, *, now: datetime, lease_until: datetime, batches_max: int) -> list[WrittenBatch]:
        """Batches under way that nobody looks after any more; they are the caller's from now on."""
        ...

    async def close(self, batch: WrittenBatch, ended: Sequence[Ended], *, now: datetime) -> None:
        """Writes down what became of its calls, and that it is over."""
        ...
