"""The Upstream of a provider's Batch API: calls are collected for a while, go out as one batch, and wait for what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from farthing_core.ids import NewId
from farthing_runtime.beside import beside

from farthing_router.deployments.declared import Deployment
from farthing_router.store import StoreUnavailable
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed, UpstreamPiece
from farthing_router.upstreams.batch_calls import BatchApi, Result, WaitingCall, WrittenBatch, WrittenCall
from farthing_router.upstreams.batch_runs import BatchRun, Office
from farthing_router.wires import BatchEntry

_WAITING_MAX = 100_000
_BYTES_MAX = 512 * 2**20
_TAKE_UP_MAX = 100
_LAST_S = 10.0
_log = structlog.get_logger()

FindDeployment = Callable[[str, str], Deployment | None]
"""The deployment of (model, its name); None where the catalog has it no more."""


@dataclass(slots=True)
class _Collecting:
    """Calls that will go into the next batch of one deployment and one organisation."""

    first: Call
    calls: dict[str, WaitingCall] = field(default_factory=dict)
    total_bytes: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    run: BatchRun | None = None


class Batches:
    """Batches of all wires that have them."""

    def __init__(self, apis: Mapping[str, BatchApi], *, office: Office, new_id: NewId, find: FindDeployment) -> None:
        self._apis = dict(apis)
        self._office = office
        self._new_id = new_id
        self._find = find
        self._collecting: dict[tuple[str, str, str], _Collecting] = {}
        self._tasks: dict[asyncio.Task[None], BatchRun | None] = {}
        self._waiting = self._bytes = 0

    @asynccontextmanager
    async def running(self, *, take_up_s: float = 60.0) -> AsyncIterator[Batches]:
        """Looks after batches until the block ends, also after those of a process that is no more.

        At the end, results that are being handed out are written down; batches that are under way are taken up by the next process.
        """
        try:
            async with beside(self._taking_up(take_up_s)):
                yield self
        finally:
            if last := [task for task, run in self._tasks.items() if run is not None and run.hands_out]:
                await asyncio.wait(last, timeout=_LAST_S)
            while self._tasks:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.wait(list(self._tasks), timeout=0.5)

    async def complete(self, call: Call) -> UpstreamAnswer:
        """A whole answer, when the batch that the call goes into has ended. Raises UpstreamFailed, UpstreamRejected."""
        custom_id = self._new_id()
        line = self._apis[call.deployment.wire.name].line(call, custom_id=custom_id)
        if self._waiting >= _WAITING_MAX or self._bytes + len(line) > _BYTES_MAX:
            raise UpstreamFailed(what="too many calls wait for batches", retryable=False, kind=FailureKind.OVERLOADED)
        written = WrittenCall(custom_id, call.request_id, len(line))
        waiting = WaitingCall(written, line, asyncio.get_running_loop().create_future())
        collecting = self._collect(call, waiting)
        self._waiting += 1
        self._bytes += len(line)
        try:
            async with asyncio.timeout(call.timeout_s):
                result: Result = await waiting.result
        except TimeoutError as error:
            sent = collecting.run is not None and collecting.run.sent
            what = f"no answer within {call.timeout_s:.1f} s"
            raise UpstreamFailed(what=what, retryable=False, may_be_billed=sent, kind=FailureKind.TIMEOUT) from error
        finally:
            self._waiting -= 1
            self._bytes -= len(line)
            self._left(collecting, custom_id)
        if isinstance(result, UpstreamAnswer):
            return result
        raise result

    async def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        """The answer in one piece, and whole: batches do not stream."""
        answer = await self.complete(call)
        yield UpstreamPiece(answer.content, answer.extra_json)
        yield answer

    def _collect(self, call: Call, waiting: WaitingCall) -> _Collecting:
        """Puts a call to those that go together; the first of them starts the wait for more."""
        key = (call.organization, call.model or call.deployment.upstream_model, call.deployment.name)
        entry = call.deployment.wire.batch or BatchEntry()
        collecting = self._collecting.get(key)
        if collecting is not None and (
            len(collecting.calls) >= entry.calls_max or collecting.total_bytes + len(waiting.line) > entry.bytes_max
        ):
            collecting.full.set()
            self._collecting.pop(key)
            collecting = None
        if collecting is None:
            collecting = self._collecting[key] = _Collecting(call)
            self._begin(self._lingering(key, collecting, entry))
        collecting.calls[waiting.written.custom_id] = waiting
        collecting.total_bytes += len(waiting.line)
        return collecting

    async def _lingering(self, key: tuple[str, str, str], collecting: _Collecting, entry: BatchEntry) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(entry.linger_s):
                    await collecting.full.wait()
        except asyncio.CancelledError:
            stops = UpstreamFailed(what="the router stops", retryable=True, kind=FailureKind.CANCELLED)
            for waiting in collecting.calls.values():
                if not waiting.result.done():
                    waiting.result.set_result(stops)
            raise
        if self._collecting.get(key) is collecting:
            del self._collecting[key]
        if not collecting.calls:
            return  # everybody left before anything was sent
        now = self._office.clock.now()
        batch = WrittenBatch(
            organization=key[0],
            batch_id=self._new_id(),
            model=key[1],
            deployment=key[2],
            provider_batch_id="",
            created_at=now,
            expires_at=now + timedelta(seconds=entry.turnaround_s),
            calls=tuple(each.written for each in collecting.calls.values()),
        )
        deployment = collecting.first.deployment
        collecting.run = self._run(batch, deployment, collecting.calls)
        self._begin(collecting.run.send(), collecting.run)

    def _left(self, collecting: _Collecting, custom_id: str) -> None:
        if collecting.run is not None:
            collecting.run.left(custom_id)
        else:
            collecting.calls.pop(custom_id, None)

    async def _taking_up(self, every_s: float) -> None:
        """Looks for batches that nobody looks after."""
        while True:
            clock = self._office.clock
            try:
                lease_until = clock.now() + timedelta(seconds=2 * every_s)
                found = await self._office.store.take_up(now=clock.now(), lease_until=lease_until, batches_max=_TAKE_UP_MAX)
                for batch in found:
                    await self._taken_up(batch)
            except StoreUnavailable as error:
                _log.warning("no batches taken up", problem=error.message)
            await self._office.sleep(every_s)

    async def _taken_up(self, batch: WrittenBatch) -> None:
        deployment = self._find(batch.model, batch.deployment)
        if deployment is None or deployment.wire.name not in self._apis:
            _log.error("batch lost, and may be billed: its deployment is gone", batch=batch.batch_id, model=batch.model)
            await self._office.store.close(batch, (), now=self._office.clock.now())
            return
        _log.info("batch taken up", batch=batch.batch_id, model=batch.model, calls=len(batch.calls))
        run = self._run(batch, deployment, {})
        self._begin(run.follow(), run)

    def _run(self, batch: WrittenBatch, deployment: Deployment, waiting: Mapping[str, WaitingCall]) -> BatchRun:
        return BatchRun(batch, deployment, api=self._apis[deployment.wire.name], office=self._office, waiting=waiting)

    def _begin(self, work: Coroutine[Any, Any, None], run: BatchRun | None = None) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = run
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("batch broke off", problem=repr(task.exception()))
