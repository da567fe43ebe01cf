"""A client of the Redis that replicas share: one server, or a cluster."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

AWAY = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a client raises when Redis cannot do its work now, whatever the reason."""
_CLUSTER = "+cluster://"


def open_redis(url: str, *, timeout_s: float) -> Any:
    """A client that connects when it is first used, and waits for no answer longer than `timeout_s`; close it with `aclose`.

    The URL is redis://, rediss:// (TLS) or unix://; redis+cluster:// or rediss+cluster:// names any node of a cluster. What fails is tried
    once more at once: a connection may have broken while nobody used it.
    """
    kind = RedisCluster if _CLUSTER in url else Redis
    return kind.from_url(
        url.replace(_CLUSTER, "://", 1),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
    )
