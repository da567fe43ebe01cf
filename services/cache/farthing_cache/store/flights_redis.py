"""Leases on flights in Redis, shared by replicas. Keys carry the organisation as a hash tag, as hot entries do, and all expire."""

from __future__ import annotations

from typing import Any

from farthing_core.clock import Clock
from farthing_runtime.redis_client import AWAY

from farthing_cache.answers.leases import Place, Standing
from farthing_cache.store import StoreUnavailable

_LANDED_MS = 5_000
"""How long those who wait can learn of an answer: many times as long as they take to ask."""
_AWAY_S = 1.0
"""A Redis that was away is not asked again for so long: nobody shall wait for it twice."""
_LEAD = """
if ARGV[3] ~= '' then
  local landed = redis.call('GET', KEYS[2])
  if landed then return {ARGV[3], 0, landed} end
end
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return {leader, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {ARGV[1], tonumber(ARGV[2])}
"""
_KEEP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_LAND = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
if ARGV[2] then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class RedisLeases:
    """The Leases of replicas that share a Redis."""

    shared = True

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._away_until_s = float("-inf")

    async def lead(self, place: Place, flight_id: str, *, behind: str, lease_s: float) -> Standing:
        """Leads where nobody does."""
        keys = _lease(place), _landed(place, behind)
        leader, left_ms, *landed = await self._run(_LEAD, keys, flight_id, int(lease_s * 1000), behind)
        return Standing(leader.decode(), max(0, left_ms) / 1000, landed[0] if landed else None)

    async def keep(self, place: Place, flight_id: str, *, lease_s: float) -> bool:
        """Renews a lease."""
        return bool(await self._run(_KEEP, (_lease(place),), flight_id, int(lease_s * 1000)))

    async def land(self, place: Place, flight_id: str, answer: bytes | None) -> None:
        """Ends a flight."""
        told = () if answer is None else (answer, _LANDED_MS)
        await self._run(_LAND, (_lease(place), _landed(place, flight_id)), flight_id, *told)

    async def _run(self, script: str, keys: tuple[str, ...], *values: str | bytes | int) -> Any:
        if self._clock.monotonic_s() < self._away_until_s:
            raise StoreUnavailable
        try:
            return await self._client.eval(script, len(keys), *keys, *values)
        except AWAY as error:
            self._away_until_s = self._clock.monotonic_s() + _AWAY_S
            raise StoreUnavailable from error


def _lease(place: Place) -> str:
    return f"farthing:cache:{{{place[0]}}}:flight:{place[1].hex()}"


def _landed(place: Place, flight_id: str) -> str:
    return f"farthing:cache:{{{place[0]}}}:landed:{flight_id}"
