"""The ledger on Postgres: one batch is one transaction of a handful of statements, whatever its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_core.scopes import Scope
from farthing_runtime.postgres import unreachable_errors

from farthing_budget.budgets import StoreUnavailable
from farthing_budget.lane import Verdict
from farthing_budget.ledger import Balance, BalanceKey, Book, Hold, Left, Operation, State, Terms, balance_key
from farthing_budget.periods import Period, period_bounds
from farthing_budget.store import statements

_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.UniqueViolationError)
_TRIES = 4


class PostgresLedger:
    """The LedgerStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        """Applies a batch; one that meets a conflict with another process is tried again."""
        for attempt in range(_TRIES):
            try:
                return await self._commit(operations)
            except _CONFLICTS:
                if attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(0.002 * 2**attempt)
            except unreachable_errors() as error:
                raise StoreUnavailable from error
            except asyncpg.PostgresError:
                if len(operations) == 1:
                    raise
                # One operation that the database will not take must not take the others down with it.
                return [verdict for operation in operations for verdict in await self._alone(operation)]
        raise AssertionError

    async def check(self, scope: Scope, amount_usd_nanos: int, tokens: int) -> Left:
        """What would be left."""
        try:
            async with self._pool.acquire() as connection:
                book = await self._book(connection, [scope], [], lock=False)
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        return book.check(scope, amount_usd_nanos, tokens)

    async def lapsed(self, count_max: int) -> list[tuple[str, str]]:
        """Open holds whose time is up."""
        try:
            rows = await self._pool.fetch(statements.LAPSED, self._clock.now(), count_max)
        except unreachable_errors() as error:
            raise StoreUnavailable from error
        return [(row["scope"], str(row["request_id"])) for row in rows]

    async def _alone(self, operation: Operation) -> list[Verdict]:
        try:
            return await self._commit([operation])
        except Exception as error:
            return [error]

    async def _commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        async with _transaction(self._pool) as connection:
            ids = [(operation.scope.organization, operation.request_id) for operation in operations]
            book = await self._book(connection, [operation.scope for operation in operations], ids, lock=True)
            verdicts: list[Verdict] = []
            for operation in operations:
                try:
                    verdicts.append(book.apply(operation))
                except FarthingError as error:
                    verdicts.append(error)
            await self._write(connection, book)
        return verdicts

    async def _book(
        self, connection: asyncpg.Connection, scopes: Sequence[Scope], ids: Sequence[tuple[str, str]], *, lock: bool
    ) -> Book:
        now = self._clock.now()
        holds = await _holds(connection, ids) if ids else {}
        terms = await _terms(connection, scopes)
        bounds: dict[BalanceKey, datetime] = {}
        for on_scope in terms.values():
            for each in on_scope:
                bounds[balance_key(each, now)] = period_bounds(each.period, each.time_zone, now)[1]
        for hold in holds.values():
            for key in hold.charges:
                bounds.setdefault(key, key[2])
        balances = await _balances(connection, bounds, lock=lock)
        return Book(now=now, holds=holds, terms=terms, balances=balances)

    async def _write(self, connection: asyncpg.Connection, book: Book) -> None:
        if book.changed_balances or book.new_holds or book.changed_holds or book.usage:
            await connection.execute(statements.WRITE, *statements.write_columns(book))


@asynccontextmanager
async def _transaction(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    async with pool.acquire(timeout=10.0) as connection, connection.transaction():
        yield connection


async def _holds(connection: asyncpg.Connection, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Hold]:
    # Locked in one order by everybody, so that two batches that name the same requests wait instead of deadlocking.
    distinct = sorted(set(ids))
    rows = await connection.fetch(statements.LOCK_HOLDS, [name for name, _ in distinct], [number for _, number in distinct])
    return {
        (row["organization"], str(row["request_id"])): Hold(
            organization=row["organization"],
            request_id=str(row["request_id"]),
            scope=row["scope"],
            body_hash=row["body_hash"],
            state=State(row["state"]),
            amount_usd_nanos=row["amount_usd_nanos"],
            tokens=row["tokens"],
            charges=statements.charges_of(row["organization"], row["charges"]),
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            settled_usd_nanos=row["settled_usd_nanos"],
            settled_tokens=row["settled_tokens"],
            settle_hash=row["settle_hash"],
        )
        for row in rows
    }


async def _terms(connection: asyncpg.Connection, scopes: Sequence[Scope]) -> dict[tuple[str, str], list[Terms]]:
    organizations = sorted({scope.organization for scope in scopes})
    paths = sorted({ancestor for scope in scopes for ancestor in scope.ancestors})
    found: dict[tuple[str, str], list[Terms]] = {}
    for row in await connection.fetch(statements.TERMS, organizations, paths):
        found.setdefault((row["organization"], row["scope"]), []).append(terms_of(row))
    return found


def terms_of(row: asyncpg.Record) -> Terms:
    """A budget's terms as its row has them."""
    return Terms(
        organization=row["organization"],
        budget_id=row["budget_id"],
        scope=row["scope"],
        display_name=row["display_name"],
        period=Period(row["period"]),
        time_zone=row["time_zone"],
        limit_usd_nanos=row["limit_usd_nanos"],
        limit_tokens=row["limit_tokens"],
    )


async def _balances(
    connection: asyncpg.Connection, bounds: dict[BalanceKey, datetime], *, lock: bool
) -> dict[BalanceKey, Balance]:
    if not bounds:
        return {}
    found = await _select_balances(connection, list(bounds), lock=lock)
    missing = sorted(set(bounds) - set(found))
    if missing and lock:
        ends = [bounds[key] for key in missing]
        columns = [list(column) for column in zip(*missing, strict=True)]
        await connection.execute(statements.CREATE_BALANCES, *columns, ends)
        found = await _select_balances(connection, list(bounds), lock=True)
    for key, period_end in bounds.items():
        found.setdefault(key, Balance(period_end))
    return found


async def _select_balances(connection: asyncpg.Connection, keys: list[BalanceKey], *, lock: bool) -> dict[BalanceKey, Balance]:
    columns = [list(column) for column in zip(*sorted(keys), strict=True)]
    rows = await connection.fetch(statements.LOCK_BALANCES if lock else statements.READ_BALANCES, *columns)
    return {
        (row["organization"], row["budget_id"], row["period_start"]): Balance(
            row["period_end"], row["spent_usd_nanos"], row["held_usd_nanos"], row["spent_tokens"], row["held_tokens"]
        )
        for row in rows
    }
