"""Hot entries in Redis, shared by replicas. A Redis that is away is an empty one.

Keys carry the organisation as a hash tag, so that a cluster keeps them together. Dropping an organisation raises its epoch: entries of an
older epoch are not found again and expire by themselves.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from farthing_core.clock import Clock
from farthing_runtime.redis_client import AWAY

from farthing_cache.store import Hot

_STAMP_BYTES = 8
_log = structlog.get_logger()


class RedisHotEntries:
    """The HotEntries of all replicas."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def get(self, organization: str, key: bytes) -> Hot | None:
        """An entry that has not expired."""
        try:
            epoch, raw = await self._client.mget(_epoch(organization), _name(organization, key))
        except AWAY as error:
            _log.warning("redis is away: look-ups go to Postgres", error=type(error).__name__)
            return None
        if raw is None or raw[_STAMP_BYTES : 2 * _STAMP_BYTES] != _packed(epoch):
            return None
        expires_at = datetime.fromtimestamp(int.from_bytes(raw[:_STAMP_BYTES], "big") / 1000, UTC)
        return Hot(raw[2 * _STAMP_BYTES :], expires_at) if expires_at > self._clock.now() else None

    async def put(self, organization: str, key: bytes, hot: Hot) -> None:
        """Keeps an entry until it expires."""
        left_ms = int((hot.expires_at - self._clock.now()).total_seconds() * 1000)
        if left_ms <= 0:
            return
        try:
            epoch = await self._client.get(_epoch(organization))
            stamp = int(hot.expires_at.timestamp() * 1000).to_bytes(_STAMP_BYTES, "big")
            await self._client.set(_name(organization, key), stamp + _packed(epoch) + hot.payload, px=left_ms)
        except AWAY as error:
            _log.warning("redis is away: an entry is kept in Postgres only", error=type(error).__name__)

    async def drop(self, organization: str) -> None:
        """Makes an organisation's entries unfindable."""
        try:
            await self._client.incr(_epoch(organization))
        except AWAY as error:
            _log.warning("redis is away: entries were not dropped there", error=type(error).__name__)

    async def clear(self) -> None:
        """Nothing of it is in this process."""


def _name(organization: str, key: bytes) -> str:
    return f"farthing:cache:{{{organization}}}:{key.hex()}"


def _epoch(organization: str) -> str:
    return f"farthing:cache:{{{organization}}}:epoch"


def _packed(epoch: bytes | None) -> bytes:
    return int(epoch or 0).to_bytes(_STAMP_BYTES, "big")
