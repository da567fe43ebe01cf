"""Cooldowns of one process."""

from __future__ import annotations

from collections.abc import Sequence

from farthing_core.clock import Clock

from farthing_router.deployments.cooldowns import Cooldown


class MemoryCooldowns:
    """The CooldownStore of replicas that live in one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}

    async def share(self, mine: Sequence[Cooldown]) -> list[Cooldown]:
        """Tells of some, and gives all that have not ended."""
        now_s = self._clock.monotonic_s()
        for each in mine:
            until_s = now_s + each.left_s
            if until_s > self._known.get(each.deployment, (0.0, ""))[0]:
                self._known[each.deployment] = (until_s, each.reason)
        self._known = {name: rest for name, rest in self._known.items() if rest[0] > now_s}
        return [Cooldown(name, until_s - now_s, reason) for name, (until_s, reason) in self._known.items()]
