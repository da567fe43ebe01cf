"""Channels to peers: straight through the process where they are hosted here, over the network where they are not."""

from __future__ import annotations

import hmac
import json
import secrets
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


PROOF_KEY = "x-farthing-peer"
"""Metadata by which a service of the suite shows that it is one, where an RPC is for nobody else."""


class HostMesh:
    """The mesh of one host: which targets are here, and where the others are.

    `internal_token` is what all processes of a suite share; where none is set, a process trusts itself alone.
    """

    def __init__(
        self, *, local: LocalServer, hosted: frozenset[str], addresses: Mapping[str, str], internal_token: str = ""
    ) -> None:
        self._local = LocalChannel(local)
        self._shared = bool(internal_token)
        self._token = internal_token or secrets.token_urlsafe(32)
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

    def proof(self, target: str) -> tuple[tuple[str, str], ...]:
        """The metadata that shows a peer who calls; sent along calls that need it and no others.

        Raises SettingsInvalid where the peer runs in another process and no token is shared with it.
        """
        if target not in self._hosted and not self._shared:
            problem = f"{target} runs in another process: set the same secret there and here"
            raise SettingsInvalid(field="FARTHING_INTERNAL_TOKEN", problem=problem)
        return ((PROOF_KEY, self._token),)

    def proves(self, metadata: Any) -> bool:
        """Whether a call's metadata shows that a service of this suite makes it. Takes as long for any wrong token."""
        given = [value for key, value in metadata or () if key == PROOF_KEY]
        return len(given) == 1 and hmac.compare_digest(str(given[0]).encode(), self._token.encode())

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
