"""The ledger on Postgres: one batch is one transaction of a handful of statements, whatever its size.

Exact with any number of processes: every batch locks its holds, then its balances, in one order for everybody; reads the terms again
under those locks (who changes a limit locks the balances first); decides in arrival order; and writes each row once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager

import asyncpg
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.scopes import Scope

from farthing_budget.lane import Verdict
from farthing_budget.ledger import Book
from farthing_budget.operations import Hold, Left, Operation, Record, Reserve
from farthing_budget.refusals import BudgetExhausted, LedgerBusy, StoreUnavailable
from farthing_budget.store import rows
from farthing_budget.store.connection import LaneConnection, away_errors, reaching
from farthing_budget.store.statements import LAPSED, LOCK_HOLDS, TERMS, UPDATE_HOLDS, WRITE_BALANCES
from farthing_budget.store.usage_rows import write_usage

_TRIES = 5
_BACKOFF_S = 0.002


class _TermsMoved(Exception):
    """A budget on the path was changed while this batch waited for its locks."""


class _RequestKnown(Exception):
    """A request that was taken for new had come before."""


_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, _TermsMoved)
_Ids = list[tuple[str, str]]


@asynccontextmanager
async def open_ledger(pool: asyncpg.Pool, clock: Clock) -> AsyncIterator[PostgresLedger]:
    """The ledger on a pool, until the block ends. It keeps one of the pool's connections for its batches."""
    connection = LaneConnection(pool)
    try:
        yield PostgresLedger(pool, connection, clock)
    finally:
        await connection.close()


class PostgresLedger:
    """The LedgerStore."""

    def __init__(self, pool: asyncpg.Pool, connection: LaneConnection, clock: Clock) -> None:
        self._pool = pool
        self._connection = connection
        self._clock = clock

    async def commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        """Applies a batch. One that the database will not take is halved until the operation at fault stands alone."""
        try:
            return await self._commit_with_patience(operations)
        except (StoreUnavailable, LedgerBusy):
            raise
        except Exception as error:
            if len(operations) <= 1:
                return [_refusal(error) for _ in operations]
        middle = len(operations) // 2
        return [*await self.commit(operations[:middle]), *await self.commit(operations[middle:])]

    async def check(self, scope: Scope, amount_usd_nanos: int, tokens: int) -> tuple[Left, BudgetExhausted | None]:
        """What is left now, and why a reservation would be refused."""
        now = self._clock.now()
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection:
                terms = rows.terms_by_scope(await connection.fetch(TERMS, [scope.organization], list(scope.ancestors)))
                bounds = rows.bounds_of(terms, (), now)
                balances = await rows.read_balances(connection, bounds)
        book = Book(now=now, holds={}, terms=terms, balances=balances)
        return book.left(scope), book.check(scope, amount_usd_nanos, tokens)

    async def lapsed(self, count_max: int) -> list[tuple[str, str]]:
        """Open holds whose time is up."""
        with reaching():
            found = await self._pool.fetch(LAPSED, self._clock.now(), count_max)
        return [(row["scope"], str(row["request_id"])) for row in found]

    async def _commit_with_patience(self, operations: Sequence[Operation]) -> list[Verdict]:
        """Tries again what met a conflict, and once what found its connection broken: the same request ids make that safe.

        The first try takes the ids of new holds for new, as nearly all are: looking them up would cost a tenth of the throughput. The
        primary key tells when one was not, and so does a look at those that were refused; then everything is looked up.
        """
        broken, look_up_all, conflict = False, False, None
        for attempt in range(_TRIES):
            try:
                return await self._commit(operations, look_up_all=look_up_all)
            except (asyncpg.UniqueViolationError, _RequestKnown) as error:
                look_up_all, conflict = True, error
            except _CONFLICTS as error:
                conflict = error
                await asyncio.sleep(_BACKOFF_S * 2**attempt)
            except away_errors() as error:
                if broken:
                    raise StoreUnavailable from error
                broken = True
        if isinstance(conflict, asyncpg.UniqueViolationError):
            raise conflict  # a race would have ended: it is one of the operations that does not fit
        raise LedgerBusy

    async def _commit(self, operations: Sequence[Operation], *, look_up_all: bool) -> list[Verdict]:
        async with self._connection.transaction() as connection:
            asked = operations if look_up_all else [each for each in operations if not isinstance(each, Reserve | Record)]
            book = await self._locked_book(connection, operations, _ids(asked))
            verdicts: list[Verdict] = []
            refused: list[Operation] = []
            for operation in operations:
                try:
                    verdicts.append(book.apply(operation))
                except FarthingError as error:
                    verdicts.append(error)
                    refused.append(operation)
            if refused and not look_up_all and await _holds(connection, _ids(refused, besides=book.holds)):
                raise _RequestKnown
            await _write(connection, book)
        return verdicts

    async def _locked_book(self, connection: asyncpg.Connection, operations: Sequence[Operation], asked: _Ids) -> Book:
        now = self._clock.now()
        holds = await _holds(connection, asked)
        scopes = {operation.scope.path: operation.scope for operation in operations}.values()
        organizations = sorted({scope.organization for scope in scopes})
        paths = sorted({ancestor for scope in scopes for ancestor in scope.ancestors})
        found = await connection.fetch(TERMS, organizations, paths)
        terms = rows.terms_by_scope(found)
        balances = await rows.lock_balances(connection, rows.bounds_of(terms, holds.values(), now))
        # A limit that was changed while we waited for the locks counts; from here on nobody can change it before we have committed.
        if found and await connection.fetch(TERMS, organizations, paths) != found:
            raise _TermsMoved
        return Book(now=now, holds=holds, terms=terms, balances=balances)


def _ids(operations: Sequence[Operation], *, besides: Container[tuple[str, str]] = ()) -> _Ids:
    """Whose holds the operations name, in the one order in which everybody locks them: so batches wait instead of deadlocking."""
    named = {(operation.scope.organization, operation.request_id) for operation in operations}
    return sorted(each for each in named if each not in besides)


async def _holds(connection: asyncpg.Connection, ids: _Ids) -> dict[tuple[str, str], Hold]:
    if not ids:
        return {}
    return rows.holds_by_id(await connection.fetch(LOCK_HOLDS, [name for name, _ in ids], [number for _, number in ids]))


async def _write(connection: asyncpg.Connection, book: Book) -> None:
    if book.changed_balances:
        await connection.execute(WRITE_BALANCES, *rows.balance_columns(book))
    if book.new_holds:
        await rows.copy_holds(connection, list(book.new_holds.values()))
    if book.changed_holds:
        await connection.execute(UPDATE_HOLDS, *rows.ended_columns(list(book.changed_holds.values())))
    if book.usage:
        await write_usage(connection, book)


def _refusal(error: Exception) -> Exception:
    """What a single operation is told that the database refused: figures that no column holds are the caller's to mend."""
    if isinstance(error, asyncpg.DataError | OverflowError):
        refusal = FieldInvalid(field="usage", problem="is more than the ledger can add up")
        refusal.__cause__ = error
        return refusal
    return error
