"""Wiring: settings → accounts and ledger → statistics → servicer."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from farthing.privacy.v1.privacy_pb2_grpc import add_PrivacyServiceServicer_to_server
from farthing_core.clock import SystemClock
from farthing_runtime.envelopes import KEY_BYTES
from farthing_runtime.postgres import open_pool
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding

from farthing_privacy.edge.keys import KeyRpcs
from farthing_privacy.edge.statistics import StatisticsRpcs
from farthing_privacy.edge.texts import TextRpcs
from farthing_privacy.keys.keyring import Keyring
from farthing_privacy.keys.masters import GivenMasterKeys, kept_masters, parsed_masters
from farthing_privacy.peers import GrpcUsage
from farthing_privacy.servicer import PrivacyServicer
from farthing_privacy.settings import Settings
from farthing_privacy.statistics import PrivateStatistics
from farthing_privacy.status import STATUS_TABLE
from farthing_privacy.store.keys import PostgresKeys
from farthing_privacy.store.postgres import PostgresAccounts


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The privacy service, until the block ends and its workers have finished."""
    with ThreadPoolExecutor(settings.workers, thread_name_prefix="privacy") as executor:
        async with open_pool(settings.database_url, schema="privacy", size_max=settings.pool_size_max) as pool:
            statistics = PrivateStatistics(
                accounts=PostgresAccounts(pool, epsilon_total_micros=settings.epsilon_total_micros),
                usage=GrpcUsage(mesh, settings),
                executor=executor,
                clock=SystemClock(),
            )
            keyring = Keyring(
                keys=PostgresKeys(pool),
                masters=await _masters(settings),
                clock=SystemClock(),
                new_key=_new_key,
                lease_s=settings.lease_s,
            )
            servicer = PrivacyServicer(  # type: ignore[abstract]
                TextRpcs(executor=executor, inline_characters_max=settings.inline_characters_max),
                StatisticsRpcs(statistics),
                KeyRpcs(keyring, executor=executor),
            )
            yield Registration(
                (
                    ServiceBinding(
                        name="farthing.privacy.v1.PrivacyService",
                        add_to_server=add_PrivacyServiceServicer_to_server,
                        servicer=servicer,
                        status_table=STATUS_TABLE,
                        deadline_s=60.0,
                        internal=frozenset({"LeaseDataKeys"}),
                    ),
                )
            )


async def _masters(settings: Settings) -> GivenMasterKeys:
    given = settings.master_keys.get_secret_value()
    if given:
        return GivenMasterKeys(parsed_masters(given))
    path = settings.data_dir / "keys" / "master.key"
    return GivenMasterKeys(await asyncio.to_thread(kept_masters, path, new_key=_new_key))


def _new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)
