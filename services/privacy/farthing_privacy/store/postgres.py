"""Accounts of ε in Postgres: the account's row lock orders all charges of an organisation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from farthing_runtime.postgres import unreachable_errors

from farthing_privacy.store import Account, Charge, PrivacyBudgetExhausted, Release, RequestIdReused, StoreUnavailable

_OPEN = "INSERT INTO epsilon_accounts (organization, spent_micros) VALUES ($1, 0) ON CONFLICT (organization) DO NOTHING"
_LOCK = "SELECT spent_micros FROM epsilon_accounts WHERE organization = $1 FOR UPDATE"
_SPENT = "SELECT spent_micros FROM epsilon_accounts WHERE organization = $1"
_SPEND = "UPDATE epsilon_accounts SET spent_micros = spent_micros + $2 WHERE organization = $1"
_STORED = """
    SELECT fingerprint, value, noise_half_width_95, epsilon_left_micros FROM releases
    WHERE organization = $1 AND request_id = $2::text::uuid
"""
_STORE = """
    INSERT INTO releases (organization, request_id, fingerprint, epsilon_micros, value, noise_half_width_95, epsilon_left_micros)
    VALUES ($1, $2::text::uuid, $3, $4, $5, $6, $7)
"""


class PostgresAccounts:
    """The accounts of all organisations, each with the same total."""

    def __init__(self, pool: asyncpg.Pool, *, epsilon_total_micros: int) -> None:
        self._pool = pool
        self._total_micros = epsilon_total_micros

    async def look_up(self, charge: Charge) -> Release | None:
        """The stored answer, or None where there is ε for a new one."""
        async with self._connection() as connection:
            stored = await self._stored(connection, charge)
            if stored is None:
                self._check_left(charge, await connection.fetchval(_SPENT, charge.organization) or 0)
            return stored

    async def charge(self, charge: Charge, *, value: int, noise_half_width_95: int) -> Release:
        """Charge and answer in one transaction, under the lock of the account's row."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(_OPEN, charge.organization)
            spent_micros = await connection.fetchval(_LOCK, charge.organization)
            # Read after the lock: a racing twin has either committed, and is seen, or waits for us.
            stored = await self._stored(connection, charge)
            if stored is not None:
                return stored
            left_micros = self._check_left(charge, spent_micros)
            release = Release(value, noise_half_width_95, left_micros)
            await connection.execute(_SPEND, charge.organization, charge.epsilon_micros)
            await connection.execute(
                _STORE,
                charge.organization,
                charge.request_id,
                charge.fingerprint,
                charge.epsilon_micros,
                release.value,
                release.noise_half_width_95,
                release.epsilon_left_micros,
            )
        return release

    async def account(self, organization: str) -> Account:
        """The account; untouched where nothing was ever asked."""
        async with self._connection() as connection:
            return Account(self._total_micros, await connection.fetchval(_SPENT, organization) or 0)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire(timeout=10.0) as connection:
                yield connection
        except unreachable_errors() as error:
            raise StoreUnavailable(problem=type(error).__name__) from error

    async def _stored(self, connection: Any, charge: Charge) -> Release | None:
        row = await connection.fetchrow(_STORED, charge.organization, charge.request_id)
        if row is None:
            return None
        if row["fingerprint"] != charge.fingerprint:
            raise RequestIdReused(request_id=charge.request_id)
        return Release(row["value"], row["noise_half_width_95"], row["epsilon_left_micros"])

    def _check_left(self, charge: Charge, spent_micros: int) -> int:
        """What is left after a charge. Raises PrivacyBudgetExhausted."""
        left_micros = max(0, self._total_micros - spent_micros)
        if charge.epsilon_micros > left_micros:
            raise PrivacyBudgetExhausted(
                organization=charge.organization,
                asked_micros=charge.epsilon_micros,
                left_micros=left_micros,
                total_micros=self._total_micros,
            )
        return left_micros - charge.epsilon_micros
