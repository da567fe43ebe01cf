"""A batch on its way: written down, sent, asked after, and each result given to whoever waits for it, or recorded where nobody does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

import structlog
from farthing_core.clock import Clock

from farthing_router.deployments.declared import Deployment
from farthing_router.store import StoreUnavailable
from farthing_router.upstreams import FailureKind, UpstreamAnswer, UpstreamFailed, UpstreamRejected
from farthing_router.upstreams.batch_calls import (
    BATCH_TIER,
    BatchApi,
    BatchState,
    BatchStore,
    Ended,
    Result,
    WaitingCall,
    WrittenBatch,
    WrittenCall,
)
from farthing_router.upstreams.payloads import Reported
from farthing_router.wires import BatchEntry

# A provider that is late is waited for so much longer than it promised, then its batch is given up.
_LATE_S = 3600.0
_POLL_GROWTH = 1.5
_POLL_S_MAX = 600.0
_LEASES_PER_POLL = 4
_LEASE_S_MIN = 60.0
# So long sending it may take before somebody else thinks that nobody does.
_SENDING_S = 1800.0
_STORE_TRIES = 8
_log = structlog.get_logger()

Rate = Callable[[WrittenBatch, WrittenCall, UpstreamAnswer], tuple[int, int, int]]
"""Prompt tokens, answer tokens and cost of an answer at the batch tier."""
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Office:
    """What every run needs: where batches are written down, what they cost, and the world's time and chance."""

    store: BatchStore
    rate: Rate
    clock: Clock
    rng: Random
    sleep: Sleep = asyncio.sleep


class BatchRun:
    """One batch. `waiting` has the calls whose callers wait; a batch that is taken up after a restart has none."""

    def __init__(
        self, batch: WrittenBatch, deployment: Deployment, *, api: BatchApi, office: Office, waiting: Mapping[str, WaitingCall]
    ) -> None:
        self._batch = batch
        self._deployment = deployment
        self._api = api
        self._office = office
        self._waiting = dict(waiting)
        self._all_left = asyncio.Event()
        self._told_to_stop = self._stops = False
        self.sent = False  # whether the provider may have it
        self.hands_out = False  # whether it has ended, and its results are on their way

    def left(self, custom_id: str) -> None:
        """A caller waits no more; when the last one leaves, the provider is told to stop."""
        self._waiting.pop(custom_id, None)
        if not self._waiting:
            self._all_left.set()

    async def send(self) -> None:
        """Writes the batch down and sends it, then follows it to its end. Never raises but when cancelled."""
        try:
            await self._send()
        except asyncio.CancelledError:
            self._fail_all(
                _failed("the router stops; the batch goes on without its callers", FailureKind.CANCELLED, billed=self.sent)
            )
            raise

    async def _send(self) -> None:
        office, batch = self._office, self._batch
        try:
            await office.store.open(batch, lease_until=office.clock.now() + timedelta(seconds=_SENDING_S))
        except StoreUnavailable as error:
            self._fail_all(_failed(f"the batch could not be written down: {error.message}", FailureKind.CONNECTION, again=True))
            return
        lines = [call.line for call in self._waiting.values()]
        try:
            if not lines:
                raise _failed("everybody left before it was sent", FailureKind.CANCELLED)
            self.sent = True
            name = await self._api.submit(self._deployment, lines, batch_id=batch.batch_id)
        except (UpstreamFailed, UpstreamRejected) as error:
            self._fail_all(error)
            failure = error
            await self._written(lambda: self._close([self._ended(call, failure, awaited=True) for call in batch.calls]))
            return
        self._batch = batch = replace(batch, provider_batch_id=name)
        await self._written(lambda: office.store.submitted(batch, provider_batch_id=name))
        await self.follow()

    async def follow(self) -> None:
        """Asks after the batch until it ends, and hands out what came of it. Never raises but when cancelled."""
        self.sent = True
        try:
            if not self._batch.provider_batch_id and not await self._found():
                await self._written(lambda: self._close([]))
                return
            state = await self._end()
            self.hands_out = True
            ended = await self._handed_out(state)
        except (UpstreamFailed, UpstreamRejected) as error:
            self._fail_all(error)
            _log.error("batch given up", batch=self._batch.batch_id, model=self._batch.model, problem=error.message)
            ended = [self._ended(call, error, awaited=False) for call in self._batch.calls]
        await self._written(lambda: self._close(ended))

    async def _found(self) -> bool:
        """Looks for a batch that was being sent when its process ended."""
        name = await self._api.find(self._deployment, self._batch.batch_id)
        if not name:
            _log.error("batch lost, and may be billed", batch=self._batch.batch_id, model=self._batch.model)
            return False
        self._batch = replace(self._batch, provider_batch_id=name)
        await self._written(lambda: self._office.store.submitted(self._batch, provider_batch_id=name))
        return True

    async def _end(self) -> BatchState:
        """The state in which it ended. Raises UpstreamFailed where it is given up."""
        office, wait_s = self._office, self._entry().poll_s
        gives_up_at = self._batch.expires_at + timedelta(seconds=_LATE_S)
        while True:
            await self._pause(wait_s)
            wait_s = min(max(_POLL_S_MAX, self._entry().poll_s), wait_s * _POLL_GROWTH)
            with contextlib.suppress(StoreUnavailable):
                await office.store.renew(self._batch, lease_until=office.clock.now() + self._lease(wait_s))
            try:
                if self._all_left.is_set() and not self._stops:
                    self._told_to_stop = True
                    await self._api.cancel(self._deployment, self._batch.provider_batch_id)
                    self._stops = True
                state = await self._api.state(self._deployment, self._batch.provider_batch_id)
            except (UpstreamFailed, UpstreamRejected) as error:
                _log.warning("batch out of reach", batch=self._batch.batch_id, problem=error.message)
                state = BatchState(ended=False)
            if state.ended:
                return state
            if office.clock.now() >= gives_up_at:
                raise _failed("the provider's batch did not end in time", FailureKind.EXPIRED, billed=True)

    async def _pause(self, wait_s: float) -> None:
        """Waits before the next question; not when everybody has just left."""
        wait_s *= self._office.rng.uniform(0.8, 1.0)
        if self._all_left.is_set():
            await self._office.sleep(wait_s if self._told_to_stop else 0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._all_left.wait()

    async def _handed_out(self, state: BatchState) -> list[Ended]:
        if state.failed is not None:
            self._fail_all(state.failed)
            return [self._ended(call, state.failed, awaited=False) for call in self._batch.calls]
        missing = {call.custom_id: call for call in self._batch.calls}
        ended: list[Ended] = []
        reason = _failed("the batch ended without this call", FailureKind.EXPIRED)
        async for custom_id, result in self._results(state):
            call = missing.pop(custom_id, None)
            if call is not None:
                ended.append(self._ended(call, result, awaited=self._deliver(custom_id, result)))
            elif not custom_id:  # it may have been the answer to any of those that are missing in the end
                reason = _failed("its result cannot be read", FailureKind.GARBAGE, billed=True)
        for custom_id, call in missing.items():
            ended.append(self._ended(call, reason, awaited=self._deliver(custom_id, reason)))
        return ended

    async def _results(self, state: BatchState) -> AsyncIterator[tuple[str, Result]]:
        """The results, asked for again where the transfer breaks; what was handed out before is passed over."""
        seen: set[str] = set()
        for number in range(_STORE_TRIES):
            try:
                async for custom_id, result in self._api.results(self._deployment, self._batch.provider_batch_id, state):
                    if custom_id not in seen:
                        seen.add(custom_id)
                        yield custom_id, result
                return
            except UpstreamFailed as error:
                if number == _STORE_TRIES - 1:
                    raise _failed(f"its results cannot be read: {error.message}", error.kind, billed=True) from error
                await self._office.sleep(self._entry().poll_s)

    def _deliver(self, custom_id: str, result: Result) -> bool:
        """Gives a result to its caller; False where nobody waits."""
        call = self._waiting.pop(custom_id, None)
        if call is None or call.result.done():
            return False
        if isinstance(result, UpstreamAnswer):
            said = replace(result.usage or Reported(), tier=BATCH_TIER)
            result = replace(result, usage=said)
        call.result.set_result(result)
        return True

    def _fail_all(self, error: UpstreamFailed | UpstreamRejected) -> None:
        for custom_id in list(self._waiting):
            self._deliver(custom_id, error)

    def _ended(self, call: WrittenCall, result: Result, *, awaited: bool) -> Ended:
        if not isinstance(result, UpstreamAnswer):
            return Ended(call.custom_id, awaited, result.message[:300], 0, 0, 0)
        if awaited:
            return Ended(call.custom_id, True, "", 0, 0, 0)
        input_tokens, output_tokens, cost = self._office.rate(self._batch, call, result)
        _log.warning(
            "batch answer that nobody waits for",
            organization=self._batch.organization,
            model=self._batch.model,
            service_tier=BATCH_TIER,
            request_id=call.request_id,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd_nanos=cost,
        )
        return Ended(call.custom_id, False, "", input_tokens, output_tokens, cost)

    async def _close(self, ended: list[Ended]) -> None:
        await self._office.store.close(self._batch, ended, now=self._office.clock.now())

    async def _written(self, write: Callable[[], Awaitable[None]]) -> None:
        """Writes, again where the database is away; whoever takes the batch up later finds out the same."""
        for number in range(_STORE_TRIES):
            try:
                await write()
                return
            except StoreUnavailable as error:
                _log.warning("batch not written down", batch=self._batch.batch_id, problem=error.message)
                await self._office.sleep(min(30.0, 0.5 * 2**number))

    def _entry(self) -> BatchEntry:
        return self._deployment.wire.batch or BatchEntry()

    def _lease(self, wait_s: float = 0.0) -> timedelta:
        return timedelta(seconds=max(_LEASE_S_MIN, _LEASES_PER_POLL * max(wait_s, self._entry().poll_s)))


def _failed(what: str, kind: FailureKind, *, again: bool = False, billed: bool = False) -> UpstreamFailed:
    return UpstreamFailed(what=what, retryable=again, may_be_billed=billed, kind=kind)
