"""Cooldowns: deployments that take no calls until a moment, known to all replicas. The longest deadline wins, and every one ends.

A call reads memory only. What this replica learns is told to the others, and what they learned is heard, beside the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_runtime.beside import beside

COOLDOWN_S_MAX = 86_400.0
_log = structlog.get_logger()


class CooldownsAway(FarthingError):
    """What replicas share is out of reach."""

    unreachable = True

    def __init__(self) -> None:
        super().__init__("shared cooldowns are out of reach")


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A deployment takes no calls for `left_s` seconds from now."""

    deployment: str
    left_s: float
    reason: str


class CooldownStore(Protocol):
    """What replicas share. Of several cooldowns of one deployment the one that ends last is kept; none is there after its end."""

    async def share(self, mine: Sequence[Cooldown]) -> list[Cooldown]:
        """Tells of some, and gives all that have not ended. Raises CooldownsAway; then nothing or all of `mine` was told."""
        ...


class Cooldowns:
    """The cooldowns this replica knows of. `away` counts how often the others could not be reached."""

    def __init__(self, *, clock: Clock, store: CooldownStore) -> None:
        self._clock = clock
        self._store = store
        self._known: dict[str, tuple[float, str]] = {}
        self._untold: set[str] = set()
        self._news = asyncio.Event()
        self.away = 0

    def extend(self, deployment: str, seconds: float, reason: str) -> None:
        """A deployment rests for so long, at most a day, unless it already rests for longer."""
        if self._learn(deployment, self._clock.monotonic_s() + min(seconds, COOLDOWN_S_MAX), reason):
            self._untold.add(deployment)
            self._news.set()

    def rest(self, deployment: str, now_s: float) -> tuple[float, str] | None:
        """Until when a deployment rests, and why; None where it does not."""
        found = self._known.get(deployment)
        if found is None:
            return None
        if found[0] <= now_s:
            del self._known[deployment]
            return None
        return found

    async def share(self) -> None:
        """Tells and hears once. Raises CooldownsAway; what was not told is told the next time."""
        self._news.clear()
        told, self._untold, now_s = self._untold, set(), self._clock.monotonic_s()
        mine = [Cooldown(name, rest[0] - now_s, rest[1]) for name in sorted(told) if (rest := self.rest(name, now_s))]
        try:
            heard = await self._store.share(mine)
        except CooldownsAway:
            self._untold |= told
            raise
        now_s = self._clock.monotonic_s()
        for each in heard:
            self._learn(each.deployment, now_s + min(each.left_s, COOLDOWN_S_MAX), each.reason)

    @asynccontextmanager
    async def sharing(self, *, interval_s: float) -> AsyncIterator[None]:
        """Tells at once and hears every `interval_s`, until the block ends. While the others are away, each goes by what it knows."""

        async def share() -> None:
            reached = True
            while True:
                try:
                    await self.share()
                    reached = True
                except CooldownsAway:
                    self.away += 1
                    if reached:
                        _log.warning("cooldowns are not shared: what replicas share is out of reach", times=self.away)
                    reached = False
                    await asyncio.sleep(interval_s)
                    continue
                try:
                    async with asyncio.timeout(interval_s):
                        await self._news.wait()
                except TimeoutError:
                    pass

        async with beside(share()):
            yield

    def _learn(self, deployment: str, until_s: float, reason: str) -> bool:
        found = self._known.get(deployment)
        if found is not None and found[0] >= until_s:
            return False
        self._known[deployment] = (until_s, reason)
        return True
