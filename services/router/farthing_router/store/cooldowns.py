"""Which cooldowns a replica has: its own, or those of all replicas that share a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farthing_core.clock import Clock

from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.settings import Settings
from farthing_router.store.cooldowns_memory import MemoryCooldowns


@asynccontextmanager
async def open_cooldowns(settings: Settings, clock: Clock) -> AsyncIterator[Cooldowns]:
    """Cooldowns, told to the others and heard of them where there is a Redis, until the block ends."""
    if not settings.redis_url:
        yield Cooldowns(clock=clock, store=MemoryCooldowns(clock))
        return
    # Redis's client is only loaded where there is a Redis.
    from farthing_runtime.redis_client import open_redis

    from farthing_router.store.cooldowns_redis import RedisCooldowns

    client = open_redis(settings.redis_url, timeout_s=settings.redis_timeout_s)
    try:
        cooldowns = Cooldowns(clock=clock, store=RedisCooldowns(client, clock))
        async with cooldowns.sharing(interval_s=settings.cooldowns_refresh_s):
            yield cooldowns
    finally:
        await client.aclose()
