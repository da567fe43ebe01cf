"""Bugs to be planted: each is a ledger as somebody might have written it. The simulation must notice every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from farthing_budget import book, budgets, ledger, periods, settling
from farthing_budget.book import NOTHING_LEFT_SAID, Book, Path
from farthing_budget.operations import Kind, Lapse, Outcome, Reset, Settle, State, TopUp
from farthing_budget.store import columns, rows
from farthing_budget.store.postgres import PostgresLedger
from farthing_budget.store.statements import READ_BALANCES
from farthing_budget.store.terms import KnownTerms

Plant = Callable[[Any], None]
"""Takes pytest's monkeypatch."""


def holds_a_tenth_of_what_was_asked(patch: Any) -> None:
    take = Book.take

    def taken(self: Book, path: Path, hold: Any) -> None:
        hold.amount_usd_nanos //= 10
        take(self, path, hold)

    patch.setattr(Book, "take", taken)


def forgets_the_second_half_of_a_batch(patch: Any) -> None:
    commit = PostgresLedger.commit

    async def half(self: PostgresLedger, operations: Sequence[Any]) -> list[Any]:
        found = await commit(self, operations[: (len(operations) + 1) // 2])
        return found + [found[-1]] * (len(operations) - len(found))

    patch.setattr(PostgresLedger, "commit", half)


def admits_without_looking_at_the_limit(patch: Any) -> None:
    patch.setattr(ledger, "left_if_it_fits", lambda places, usd, tokens: NOTHING_LEFT_SAID)


def admits_one_nano_too_many(patch: Any) -> None:
    fits = ledger.left_if_it_fits
    patch.setattr(ledger, "left_if_it_fits", lambda places, usd, tokens: fits(places, usd - 1, tokens))


def charges_only_the_innermost_budget(patch: Any) -> None:
    path = Book.path

    def innermost(self: Book, scope: Any, work: Any) -> Path:
        whole = path(self, scope, work)
        return Path(whole.places[-1:], whole.charges[-1:], whole.keys[-1:])

    patch.setattr(Book, "path", innermost)


def keeps_the_hold_when_it_settles(patch: Any) -> None:
    ends = Book.ends
    patch.setattr(Book, "ends", lambda self, hold: {} if hold.state is State.DISPATCHED else ends(self, hold))


def settles_again_what_was_settled(patch: Any) -> None:
    settle = ledger._APPLY[Settle]

    def twice(book: Book, operation: Settle) -> Outcome:
        hold = book.holds.get((operation.scope.organization, operation.request_id))
        if hold is not None and hold.state is State.SETTLED:
            book.change(hold, state=State.LAPSED)
        return settle(book, operation)

    patch.setitem(ledger._APPLY, Settle, twice)


def drops_settlements_that_come_late(patch: Any) -> None:
    settle = ledger._APPLY[Settle]

    def only_in_time(book: Book, operation: Settle) -> Outcome:
        hold = book.holds.get((operation.scope.organization, operation.request_id))
        if hold is not None and hold.state is State.LAPSED:
            return Outcome(hold, NOTHING_LEFT_SAID)
        return settle(book, operation)

    patch.setitem(ledger._APPLY, Settle, only_in_time)


def gives_back_what_a_provider_may_have_billed(patch: Any) -> None:
    lapse = ledger._APPLY[Lapse]

    def always_back(book: Book, operation: Lapse) -> Outcome:
        hold = book.holds.get((operation.scope.organization, operation.request_id))
        if hold is not None and hold.state is State.DISPATCHED:
            book.change(hold, state=State.RESERVED)
        return lapse(book, operation)

    patch.setitem(ledger._APPLY, Lapse, always_back)


def lapses_before_the_time_is_up(patch: Any) -> None:
    lapse = ledger._APPLY[Lapse]

    def early(book: Book, operation: Lapse) -> Outcome:
        key = operation.scope.organization, operation.request_id
        if key in book.holds:
            book.holds[key] = replace(book.holds[key], expires_at=book.now)
        return lapse(book, operation)

    patch.setitem(ledger._APPLY, Lapse, early)


def tops_up_without_looking_at_the_limit(patch: Any) -> None:
    top_up = ledger._APPLY[TopUp]

    def blind(book: Book, operation: TopUp) -> Outcome:
        real = ledger.objections
        ledger.objections = lambda *arguments: []
        try:
            return top_up(book, operation)
        finally:
            ledger.objections = real

    patch.setitem(ledger._APPLY, TopUp, blind)


def resets_what_is_in_suspense_too(patch: Any) -> None:
    reset = ledger._APPLY[Reset]

    def everything(book: Book, operation: Reset) -> Outcome:
        before = {key: balance.suspense_usd_nanos for key, balance in book.balances.items()}
        for balance in book.balances.values():
            balance.suspense_usd_nanos = 0
        try:
            return reset(book, operation)
        finally:
            for key, suspense in before.items():
                book.balances[key].suspense_usd_nanos = suspense

    patch.setitem(ledger._APPLY, Reset, everything)


def settles_in_the_present_period(patch: Any) -> None:
    settle = ledger._APPLY[Settle]

    def now(book: Book, operation: Settle) -> Outcome:
        key = operation.scope.organization, operation.request_id
        hold = book.holds.get(key)
        if hold is not None:
            path = book.path_of(hold.scope, ledger.ANY_WORK)
            book.holds[key] = replace(hold, charges=path.charges, keys=path.keys)
        return settle(book, operation)

    patch.setitem(ledger._APPLY, Settle, now)


def loses_an_entry_of_the_journal(patch: Any) -> None:
    copy = columns.copy_entries

    async def careless(connection: Any, entries: Sequence[Any], numbers: Any) -> None:
        kept = [entry for entry in entries if entry.kind is not Kind.RELEASE]
        await copy(connection, kept, numbers)

    patch.setattr(columns, "copy_entries", careless)


def never_notices_that_a_limit_was_lowered(patch: Any) -> None:
    async def as_known(connection: Any, organizations: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(organizations, 1)

    patch.setattr("farthing_budget.store.terms.read_epochs", as_known)
    patch.setattr("farthing_budget.store.postgres.read_epochs", as_known)
    patch.setattr(KnownTerms, "forget", lambda self: None)


def writes_a_batch_twice_after_a_broken_connection(patch: Any) -> None:
    """Ids are not looked up, and new ones overwrite the old."""
    commit = PostgresLedger._commit

    async def fresh(self: PostgresLedger, operations: Sequence[Any], *, look_up_all: bool) -> list[Any]:
        if look_up_all:
            for each in operations:
                await self._pool.execute("DELETE FROM reservations WHERE request_id = $1 AND state = 1", each.request_id)
        return await commit(self, operations, look_up_all=look_up_all)

    patch.setattr(PostgresLedger, "_commit", fresh)


def reckons_all_periods_in_utc(patch: Any) -> None:
    zone = periods.time_zone
    patch.setattr(periods, "time_zone", lambda name: zone("UTC"))
    periods.period_bounds.cache_clear()


def forgets_what_left_the_present_slot_of_a_window(patch: Any) -> None:
    patch.setattr(budgets, "window_starts", lambda terms, now: [periods.period_bounds(terms, now)[0]])


def changes_balances_that_it_did_not_lock(patch: Any) -> None:
    patch.setattr(rows, "LOCK_BALANCES", READ_BALANCES)


def says_done_before_it_is_durable(patch: Any) -> None:
    commit, decide = PostgresLedger._commit, PostgresLedger._decide
    decided: list[Any] = []

    async def deciding(self: PostgresLedger, connection: Any, book: Book, operations: Sequence[Any]) -> Any:
        found = await decide(self, connection, book, operations)
        decided[:] = found[0]
        return found

    async def hasty(self: PostgresLedger, operations: Sequence[Any], *, look_up_all: bool) -> list[Any]:
        try:
            return await commit(self, operations, look_up_all=look_up_all)
        except ConnectionError:
            if len(decided) == len(operations):
                return list(decided)
            raise

    patch.setattr(PostgresLedger, "_decide", deciding)
    patch.setattr(PostgresLedger, "_commit", hasty)


def tells_repeats_that_they_are_new(patch: Any) -> None:
    again = ledger.again
    patch.setattr(ledger, "again", lambda *arguments: again(*arguments)._replace(repeated=False))


def charges_a_budget_on_a_model_for_every_line(patch: Any) -> None:
    patch.setattr(settling, "is_for", lambda line, selector: True)


def lets_everybody_spend_as_if_it_were_critical(patch: Any) -> None:
    place_of = book.place_of

    def generous(*arguments: Any) -> Any:
        place = place_of(*arguments)
        place.plain, place.caps = None, tuple(cap._replace(limit=cap.critical) for cap in place.caps)
        return place

    patch.setattr(book, "place_of", generous)


def forgets_the_usage_of_what_was_recorded_late(patch: Any) -> None:
    use = Book.use

    def forgetful(self: Book, scope: Any, request_id: str, usage: Any) -> None:
        if self.entries[-1].note != "late":
            use(self, scope, request_id, usage)

    patch.setattr(Book, "use", forgetful)


BUGS: tuple[Plant, ...] = (
    holds_a_tenth_of_what_was_asked,
    forgets_the_second_half_of_a_batch,
    admits_without_looking_at_the_limit,
    admits_one_nano_too_many,
    charges_only_the_innermost_budget,
    keeps_the_hold_when_it_settles,
    settles_again_what_was_settled,
    drops_settlements_that_come_late,
    gives_back_what_a_provider_may_have_billed,
    lapses_before_the_time_is_up,
    tops_up_without_looking_at_the_limit,
    resets_what_is_in_suspense_too,
    settles_in_the_present_period,
    loses_an_entry_of_the_journal,
    never_notices_that_a_limit_was_lowered,
    writes_a_batch_twice_after_a_broken_connection,
    reckons_all_periods_in_utc,
    forgets_what_left_the_present_slot_of_a_window,
    changes_balances_that_it_did_not_lock,
    says_done_before_it_is_durable,
    tells_repeats_that_they_are_new,
    charges_a_budget_on_a_model_for_every_line,
    lets_everybody_spend_as_if_it_were_critical,
    forgets_the_usage_of_what_was_recorded_late,
)
