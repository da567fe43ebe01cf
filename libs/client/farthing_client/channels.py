"""How the client reaches a suite."""

from __future__ import annotations

import json
from typing import Any

MESSAGE_BYTES_MAX = 48 * 1024 * 1024
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)
"""Every replica behind a name gets its share; nothing is repeated behind the caller's back, since an answer costs money."""

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_SCOPE = "organizations/default"
DEFAULT_TIMEOUT_S = 120.0
ESTIMATE_ATTEMPTS_MAX = 3
BACKOFF_S = 0.1
"""An estimate is tried again after this long, then after twice as long."""


def channel_target(address: str) -> str:
    """gRPC's name of an address: `host:port` is looked up in DNS with all its replicas."""
    return address if address.startswith(("dns:", "unix:", "ipv4:", "ipv6:", "xds:")) else f"dns:///{address}"
