"""Cooldowns in Redis, shared by replicas: one hash under one key, so a cluster keeps it together; one script tells and hears."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from farthing_core.clock import Clock
from farthing_runtime.redis_client import AWAY

from farthing_router.deployments.cooldowns import Cooldown, CooldownsAway

_KEY = "farthing:router:cooldowns"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_REASON_CHARACTERS_MAX = 300
# Each field is a deployment, each value the end of its cooldown in milliseconds and why. The key goes when the last one has ended.
_SHARE = """
local now = tonumber(ARGV[1])
for at = 2, #ARGV, 3 do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  if not known or tonumber(string.match(known, '^%d+')) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1] .. ' ' .. ARGV[at + 2])
  end
end
local all, kept, latest = redis.call('HGETALL', KEYS[1]), {}, now
for at = 1, #all, 2 do
  local ends = tonumber(string.match(all[at + 1], '^%d+'))
  if ends <= now then
    redis.call('HDEL', KEYS[1], all[at])
  else
    kept[#kept + 1] = all[at]
    kept[#kept + 1] = all[at + 1]
    latest = math.max(latest, ends)
  end
end
if #kept > 0 then redis.call('PEXPIRE', KEYS[1], latest - now) end
return kept
"""


class RedisCooldowns:
    """The CooldownStore of replicas that share a Redis. Their wall clocks must agree as well as cooldowns are to."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def share(self, mine: Sequence[Cooldown]) -> list[Cooldown]:
        """Tells of some, and gives all that have not ended."""
        now_ms = (self._clock.now() - _EPOCH) // _MILLISECOND
        told: list[str | int] = []
        for each in mine:
            told += [each.deployment, now_ms + -int(-each.left_s * 1000 // 1), each.reason[:_REASON_CHARACTERS_MAX]]
        try:
            found = await self._client.eval(_SHARE, 1, _KEY, now_ms, *told)
        except AWAY as error:
            raise CooldownsAway from error
        pairs = zip(found[::2], found[1::2], strict=True)
        return [_cooldown(name.decode(), value.decode(), now_ms) for name, value in pairs]


def _cooldown(name: str, value: str, now_ms: int) -> Cooldown:
    ends_ms, reason = value.split(" ", 1)
    return Cooldown(name, (int(ends_ms) - now_ms) / 1000, reason)
