"""Channels to peers: straight through the process where they are hosted here, over the network where they are not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import grpc

from farthing_runtime.local import LocalChannel, LocalServer
from farthing_runtime.local_calls import MESSAGE_BYTES_MAX
from farthing_runtime.settings import SettingsInvalid

_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)
"""Every replica behind a name gets its share of calls; a dead connection is noticed within 40 s; retries are the adapters' own."""


class HostMesh:
    """The mesh of one host: which targets are here, and where the others are."""

    def __init__(self, *, local: LocalServer, hosted: frozenset[str], addresses: Mapping[str, str]) -> None:
        self._local = LocalChannel(local)
        self._hosted = hosted
        self._addresses = addresses
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, target: str) -> grpc.aio.Channel:
        """A channel to a peer, one per peer and process.

        Raises SettingsInvalid when the peer is neither hosted here nor named in FARTHING_PEERS.
        """
        if target in self._hosted:
            return self._local
        if target not in self._addresses:
            raise SettingsInvalid(field="FARTHING_PEERS", problem=f"{target} does not run in this process and has no address")
        if target not in self._channels:
            self._channels[target] = network_channel(self._addresses[target])
        return self._channels[target]

    async def close(self) -> None:
        """Closes the network channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


def network_channel(address: str) -> grpc.aio.Channel:
    """A channel over the network; `host:port` is resolved by DNS to all its replicas."""
    return grpc.aio.insecure_channel(network_target(address), options=CHANNEL_OPTIONS)


def network_target(address: str) -> str:
    """What gRPC calls an address: a bare `host:port` is looked up in DNS, all of it."""
    return address if "://" in address or address.startswith(("dns:", "unix:", "ipv4:", "ipv6:")) else f"dns:///{address}"
