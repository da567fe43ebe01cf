"""The ledger on Postgres: one batch is one transaction of a handful of statements, whatever its size.

Exact with any number of processes: every batch locks its holds, then its balances, in one order for everybody; reads the terms again
under those locks (who changes a limit locks the balances first); decides in arrival order; and writes each row once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import asynccontextmanager

import asyncpg
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.scopes import Scope

from farthing_budget.book import Book
from farthing_budget.budgets import BalanceKey
from farthing_budget.decisions import Decision, Need
from farthing_budget.lane import Verdict
from farthing_budget.ledger import apply
from farthing_budget.operations import Adjust, Entry, Hold, Operation, Record, Reserve, Reset, Work
from farthing_budget.refusals import LedgerBusy, ReservationNotFound, StoreUnavailable
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.store import columns, rows
from farthing_budget.store.charges import ChargeSets
from farthing_budget.store.connection import LaneConnection, away_errors, reaching
from farthing_budget.store.corrected import corrected_usage
from farthing_budget.store.notices import write_notices
from farthing_budget.store.statements import (
    ENTRIES_OF_HOLD,
    LAPSED,
    LOCK_HOLDS,
    READ_HOLD,
    SCOPES_OF_BUDGETS,
    TERMS,
    UPDATE_HOLDS,
    WRITE_BALANCES,
)
from farthing_budget.store.terms import KnownTerms, read_epochs
from farthing_budget.store.untold import Untold
from farthing_budget.store.usage_rows import Fresh, UsageWriter
from farthing_budget.watch import Watch

_TRIES = 5
_BACKOFF_S = 0.002


class _TermsMoved(Exception):
    """A budget on the path was changed while this batch waited for its locks."""


class _RequestKnown(Exception):
    """A request that was taken for new had come before."""


_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, _TermsMoved)
_Ids = list[tuple[str, str]]
_Written = tuple[list[tuple[str, int]], Fresh]


_NEW = Reserve | Record | Adjust | Reset
"""Operations whose ids are new, but for repeats."""


@asynccontextmanager
async def open_ledger(
    pool: asyncpg.Pool, clock: Clock, *, sizer: Sizer | None = None, watch: Watch | None = None
) -> AsyncIterator[PostgresLedger]:
    """The ledger on a pool, until the block ends. It keeps one of the pool's connections for its batches."""
    connection = LaneConnection(pool)
    try:
        yield PostgresLedger(pool, connection, clock, sizer=sizer or Sizer(), watch=watch)
    finally:
        await connection.close()


class PostgresLedger:
    """The LedgerStore."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        connection: LaneConnection,
        clock: Clock,
        *,
        sizer: Sizer,
        watch: Watch | None,
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._clock = clock
        self._sizer = sizer
        self._watch = watch
        self._charge_sets = ChargeSets()
        self._usage = UsageWriter()
        self._terms = KnownTerms()
        self._untold = Untold()

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

    async def check(self, scope: Scope, need: Need, work: Work) -> Decision:
        """What a reservation would be answered."""
        now = self._clock.now()
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection:
                terms = rows.terms_by_scope(await connection.fetch(TERMS, [scope.organization], list(scope.ancestors)))
                balances = await rows.read_balances(connection, rows.bounds_of(terms, (), now))
        book = Book(now=now, holds={}, terms=terms, balances=balances, sizer=self._sizer)
        return book.decide(scope, need, work)

    async def find(self, scope: Scope, request_id: str) -> tuple[Hold, list[Entry]]:
        """A hold, and its entries in the journal, oldest first. Raises ReservationNotFound."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection:
                row = await connection.fetchrow(READ_HOLD, scope.organization, request_id)
                if row is None or row["scope"] != scope.path:
                    raise ReservationNotFound(request_id=request_id)
                hold = rows.hold_of(row)
                found = await connection.fetch(
                    ENTRIES_OF_HOLD, scope.organization, request_id, hold.created_at, hold.changed_at
                )
        return hold, [rows.entry_of(each) for each in found]

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
                return self._untold.told(operations, await self._commit(operations, look_up_all=look_up_all))
            except (asyncpg.UniqueViolationError, _RequestKnown) as error:
                look_up_all, conflict = True, error
            except asyncpg.LockNotAvailableError as error:
                raise LedgerBusy from error
            except _CONFLICTS as error:
                conflict = error
                self._terms.forget()
                await asyncio.sleep(_BACKOFF_S * 2**attempt)
            except away_errors() as error:
                if broken:
                    raise StoreUnavailable from error
                broken = True
        if isinstance(conflict, asyncpg.UniqueViolationError):
            raise conflict  # a race would have ended: it is one of the operations that does not fit
        raise LedgerBusy

    async def _commit(self, operations: Sequence[Operation], *, look_up_all: bool) -> list[Verdict]:
        being_committed: Iterable[Hold] = ()
        try:
            async with self._connection.transaction() as connection:
                asked = _ids([each for each in operations if look_up_all or not isinstance(each, _NEW)], operations)
                book = await self._locked_book(connection, operations, asked)
                verdicts, (charge_sets, places) = await self._decide(connection, book, operations)
                being_committed = book.new_holds.values()
        except away_errors():
            self._untold.remember(being_committed)
            raise
        self._charge_sets.written(charge_sets)
        self._usage.written(places)
        self._sizer.learn(book.lessons)
        if self._watch is not None:
            self._watch.committed(book)
        return verdicts

    async def _decide(
        self, connection: asyncpg.Connection, book: Book, operations: Sequence[Operation]
    ) -> tuple[list[Verdict], _Written]:
        """Applies the operations and writes what came of it."""
        spent = {key: balance.spent_usd_nanos for key, balance in book.balances.items()}
        verdicts: list[Verdict] = []
        refused: list[Operation] = []
        for operation in operations:
            try:
                verdicts.append(apply(book, operation))
            except FarthingError as error:
                verdicts.append(error)
                refused.append(operation)
        # What was refused as unknown, or for want of room, may have been made by another process while we waited for its locks.
        if refused and await _holds(connection, _ids(refused, refused, besides=book.holds)):
            raise _RequestKnown
        if self._watch is not None:
            self._watch.decided(book)
        return verdicts, await self._write(connection, book, spent)

    async def _write(self, connection: asyncpg.Connection, book: Book, spent_before: dict[BalanceKey, int]) -> _Written:
        numbers, new = await self._charge_sets.write(connection, book)
        if book.changed_balances:
            await connection.execute(WRITE_BALANCES, *columns.balance_columns(book, spent_before))
        if book.new_holds:
            await columns.copy_holds(connection, list(book.new_holds.values()), numbers)
        if book.changed_holds:
            changed = columns.changed_columns(list(book.changed_holds.values()), numbers)
            await connection.execute(UPDATE_HOLDS, *changed)
        if book.entries:
            await columns.copy_entries(connection, book.entries, numbers)
        if book.notices:
            await write_notices(connection, book.notices)
        return new, await self._usage.write(connection, book) if book.usage else {}

    async def _locked_book(self, connection: asyncpg.Connection, operations: Sequence[Operation], asked: _Ids) -> Book:
        holds = await _holds(connection, asked)
        scopes = {operation.scope.path: operation.scope for operation in operations}.values()
        organizations = sorted({scope.organization for scope in scopes})
        places = {(scope.organization, ancestor) for scope in scopes for ancestor in scope.ancestors}
        named = sorted({each.budget_id for each in operations if isinstance(each, Adjust | Reset) and each.budget_id})
        if named:
            found = await connection.fetch(SCOPES_OF_BUDGETS, organizations, named)
            places |= {(row["organization"], row["scope"]) for row in found}
        terms, epochs = await self._terms.on(connection, organizations, sorted(places))
        now = self._clock.now()
        balances = await rows.lock_balances(connection, rows.bounds_of(terms, holds.values(), now))
        # A budget that was made or changed while we waited for the locks counts; from here on nobody can change one before we commit.
        if (present := await read_epochs(connection, organizations)) != epochs:
            self._terms.forget_moved(organizations, epochs, present)
            terms, _ = await self._terms.on(connection, organizations, sorted(places))
            if not balances.keys() >= rows.kept_keys(terms, now):
                raise _TermsMoved
        by_id = {(each.organization, each.budget_id): each for on_scope in terms.values() for each in on_scope} if named else {}
        corrected = [holds[each] for each in sorted(_corrected(operations)) if each in holds]
        origins, paid = await corrected_usage(connection, corrected)
        return Book(now, holds, terms, balances, self._sizer, named=by_id, origins=origins, paid=paid)


def _corrected(operations: Sequence[Operation]) -> set[tuple[str, str]]:
    return {(each.scope.organization, each.reservation_id) for each in operations if isinstance(each, Adjust)}


def _ids(
    operations: Sequence[Operation], all_operations: Sequence[Operation] = (), *, besides: Container[tuple[str, str]] = ()
) -> _Ids:
    """Whose holds the operations name, in the one order in which everybody locks them: so batches wait instead of deadlocking."""
    named = {(operation.scope.organization, operation.request_id) for operation in operations}
    named |= _corrected(all_operations)
    return sorted(each for each in named if each[1] and each not in besides)


async def _holds(connection: asyncpg.Connection, ids: _Ids) -> dict[tuple[str, str], Hold]:
    if not ids:
        return {}
    found = await connection.fetch(LOCK_HOLDS, [name for name, _ in ids], [number for _, number in ids])
    if any(row["charges"] is None for row in found):
        # Settled elsewhere while we waited for the row: it came as it is now, with the set of before. Locked, it is read once more.
        found = await connection.fetch(LOCK_HOLDS, [name for name, _ in ids], [number for _, number in ids])
    return rows.holds_by_id(found)


def _refusal(error: Exception) -> Exception:
    """What a single operation is told that the database refused: figures that no column holds are the caller's to mend."""
    if isinstance(error, asyncpg.DataError | OverflowError):
        refusal = FieldInvalid(field="usage", problem="is more than the ledger can add up")
        refusal.__cause__ = error
        return refusal
    return error
