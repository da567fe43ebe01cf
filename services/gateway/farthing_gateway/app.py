"""Wiring: settings → keys → edge, and the listener."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager

from farthing.gateway.v1.access_pb2_grpc import add_AccessServiceServicer_to_server
from farthing_core.clock import SystemClock
from farthing_core.ids import random_uuid
from farthing_runtime.postgres import open_pool
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding

from farthing_gateway.edge.listener import serving
from farthing_gateway.http import Edge
from farthing_gateway.keys import Keyring
from farthing_gateway.servicer import AccessServicer
from farthing_gateway.settings import Settings
from farthing_gateway.status import STATUS_TABLE
from farthing_gateway.store.postgres import PostgresKeys

_SECRET_BYTES = 24


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The gateway, until the block ends."""
    async with open_pool(settings.database_url, schema="gateway", size_max=settings.pool_size_max) as pool:
        keyring = Keyring(
            PostgresKeys(pool),
            clock=SystemClock(),
            new_id=random_uuid,
            new_secret=lambda: secrets.token_urlsafe(_SECRET_BYTES),
            trust_s=settings.key_trust_s,
        )
        async with serving(Edge(mesh, keyring, settings).routes(), settings) as url:
            binding = ServiceBinding(
                name="farthing.gateway.v1.AccessService",
                add_to_server=add_AccessServiceServicer_to_server,
                servicer=AccessServicer(keyring),
                status_table=STATUS_TABLE,
            )
            yield Registration((binding,), endpoints={"http": url})
