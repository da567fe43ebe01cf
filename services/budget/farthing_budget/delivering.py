"""Delivering: alerts to their addressees, at least once, with patience that grows and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Protocol

import structlog
from farthing_core.clock import Clock
from farthing_runtime.beside import beside

from farthing_budget.alerts import Alert, Channel

if TYPE_CHECKING:
    from farthing_budget.store import DeliveryStore

BACKOFF_S, BACKOFF_S_MAX = 5.0, 3600.0
LEASE_S = 120.0
_AT_ONCE = 16
_PAUSE_S = 1.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is due. Without a channel it was taken from its rule since. `attempts` counts the present one."""

    alert: Alert
    channel_id: str
    channel: Channel | None
    attempts: int

    @property
    def delivery_id(self) -> str:
        """The same for every attempt: by it an addressee recognises what came twice."""
        return f"{self.alert.alert_id}.{self.channel_id}"


class DeliveryFailed(Exception):
    """It did not arrive: why, without secrets, and whether trying again is in vain."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.final = final


class Sender(Protocol):
    """Sends alerts by one kind of channel."""

    async def send(self, due: Due, channel: Channel) -> None:
        """Sends one, within a bounded time. Raises DeliveryFailed."""
        ...


class Deliverer:
    """Delivers what is due. Senders are by kind of channel."""

    def __init__(
        self, *, store: DeliveryStore, senders: Mapping[str, Sender], clock: Clock, rng: Random, attempts_max: int
    ) -> None:
        self._store = store
        self._senders = senders
        self._clock = clock
        self._rng = rng
        self._attempts_max = attempts_max
        self.called = asyncio.Event()

    def call(self) -> None:
        """There is something to deliver."""
        self.called.set()

    async def turn(self) -> int:
        """Delivers some of what is due; returns how many attempts that were."""
        self.called.clear()
        due = await self._store.claim(count_max=_AT_ONCE, lease_s=LEASE_S)
        async with asyncio.TaskGroup() as group:
            for each in due:
                group.create_task(self._deliver(each))
        return len(due)

    async def _deliver(self, due: Due) -> None:
        try:
            await self._send(due)
        except DeliveryFailed as failure:
            over = failure.final or due.attempts >= self._attempts_max
            wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2 ** (due.attempts - 1)) * self._rng.uniform(0.5, 1.0)
            next_at = None if over else self._clock.now() + timedelta(seconds=wait_s)
            await self._store.failed(due, failure.why, next_at=next_at)
            facts = {"alert_id": due.alert.alert_id, "attempts": due.attempts, "given_up": over, "why": failure.why}
            _log.warning("an alert could not be delivered", **facts)
        else:
            await self._store.delivered(due)

    async def _send(self, due: Due) -> None:
        if due.channel is None:
            raise DeliveryFailed("the channel was taken from its rule", final=True)
        if due.attempts > self._attempts_max:
            raise DeliveryFailed("the last attempt did not end", final=True)
        try:
            await self._senders[due.channel.kind].send(due, due.channel)
        except DeliveryFailed:
            raise
        except (
            Exception
        ) as error:  # a sender that fails in a way of its own must not stop the others, nor tell what it was sending
            raise DeliveryFailed(f"failed: {type(error).__name__}") from error


@asynccontextmanager
async def delivering(deliverer: Deliverer, *, poll_s: float) -> AsyncIterator[None]:
    """Delivers until the block ends: at once when it is called, and what is due again every so often."""

    async def work() -> None:
        while True:
            try:
                while await deliverer.turn():
                    pass
            except Exception as error:  # whatever it is, deliveries must go on: their leases end, and they are due again
                _log.warning("delivering alerts failed; it is tried again", error=type(error).__name__)
                await asyncio.sleep(_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await deliverer.called.wait()

    async with beside(work()):
        yield
