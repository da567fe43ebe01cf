"""Which balances holds and entries are charged to, as they are kept: each set of balances once, and its number wherever it is meant.

Most holds of a scope share one set, and written out it would be half of every row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import asyncpg

from farthing_budget.book import Book
from farthing_budget.budgets import BalanceKey, Selector
from farthing_budget.operations import Charge
from farthing_budget.store.statements import WRITE_CHARGE_SETS

_KNOWN_MAX = 20_000
Numbers = Mapping[int, int]
"""From `id()` of a tuple of charges or keys to its number."""


class ChargeSets:
    """Knows which sets are in the database already."""

    def __init__(self) -> None:
        self._known: set[tuple[str, int]] = set()

    async def write(self, connection: asyncpg.Connection, book: Book) -> tuple[Numbers, list[tuple[str, int]]]:
        """Writes the sets of a batch that are not there yet. Returns the numbers of all, and what `written` is told after the commit."""
        # By organisation too: those without budgets share one tuple, the empty one, and each keeps that set for itself.
        tuples = {(entry.organization, id(entry.keys)): entry.keys for entry in book.entries}
        texts = {place: _keys_text(keys) for place, keys in tuples.items()}
        for hold in (*book.new_holds.values(), *book.changed_holds.values()):
            place = hold.organization, id(hold.charges)
            if place not in texts:
                texts[place] = _charges_text(hold.charges)
        numbers = {key: number_of(text) for (_, key), text in texts.items()}
        new = {(organization, numbers[key]): text for (organization, key), text in texts.items()}
        new = {place: text for place, text in new.items() if place not in self._known}
        if new:
            rows = sorted((*place, text) for place, text in new.items())
            await connection.execute(WRITE_CHARGE_SETS, *(list(column) for column in zip(*rows, strict=True)))
        return numbers, list(new)

    def written(self, places: Iterable[tuple[str, int]]) -> None:
        """These sets are in the database for good."""
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        self._known.update(places)


def number_of(text: str) -> int:
    """The number of a set: the first 63 bits of its hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def charges_of(organization: str, text: str) -> tuple[Charge, ...]:
    """The charges of a kept hold, or of an entry."""
    charges = []
    for line in text.split("\n") if text else ():
        key, _, selector = line.partition("|")
        budget_id, _, start = key.rpartition("@")
        kind, _, name = selector.partition("=")
        place = organization, budget_id, datetime.fromtimestamp(int(start), UTC)
        charges.append(Charge(place, Selector(kind, name) if selector else None))
    return tuple(charges)


def _keys_text(keys: Sequence[BalanceKey]) -> str:
    """`budget@start of its period, in seconds` in lines. Budget ids have no line breaks."""
    return "\n".join([f"{budget_id}@{int(start.timestamp())}" for _, budget_id, start in keys])


def _charges_text(charges: Sequence[Charge]) -> str:
    """The same, and behind a bar what a budget is for. Selectors have no line breaks."""
    lines = []
    for charge in charges:
        selector = charge.selector
        suffix = f"|{selector.kind}={selector.name}" if selector else ""
        lines.append(f"{charge.key[1]}@{int(charge.key[2].timestamp())}{suffix}")
    return "\n".join(lines)
