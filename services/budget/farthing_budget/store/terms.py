"""The terms of budgets as a process knows them, and the epoch that tells whether they are still so.

Every change of an organisation's budgets raises its epoch in the same transaction (a trigger sees to it). So a batch asks for one number
under its locks instead of reading the terms anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from farthing_budget.budgets import Terms
from farthing_budget.store.rows import terms_by_scope
from farthing_budget.store.statements import READ_EPOCHS, TERMS

_PATHS_MAX = 10_000
Epochs = dict[str, int]
"""Epochs by organisation; one without budgets has none."""
ScopeKey = tuple[str, str]
"""(organisation, scope)."""
TermsByScope = Mapping[ScopeKey, Sequence[Terms]]


class KnownTerms:
    """Remembers terms by organisation and scope, with the epochs at which they were read."""

    def __init__(self) -> None:
        self._by_place: dict[ScopeKey, Sequence[Terms]] = {}
        self._epochs: Epochs = {}

    async def on(
        self, connection: asyncpg.Connection, organizations: Sequence[str], places: Sequence[ScopeKey]
    ) -> tuple[TermsByScope, Epochs]:
        """The terms at some places, and the epochs at which they were so."""
        if not all(place in self._by_place for place in places):
            if len(self._by_place) > _PATHS_MAX:
                self.forget()
            epochs = await read_epochs(connection, organizations)
            found = terms_by_scope(await connection.fetch(TERMS, organizations, sorted({scope for _, scope in places})))
            for organization in organizations:
                if self._epochs.get(organization, 0) != epochs.get(organization, 0):
                    self._forget_organization(organization)
                    self._epochs[organization] = epochs.get(organization, 0)
            self._by_place.update({place: found.get(place, ()) for place in places})
        known = {place: self._by_place.get(place, ()) for place in places}
        return known, {name: self._epochs[name] for name in organizations if self._epochs.get(name)}

    def forget(self) -> None:
        """Reads everything anew when it is next asked for."""
        self._by_place.clear()
        self._epochs.clear()

    def forget_moved(self, organizations: Sequence[str], before: Epochs, now: Epochs) -> None:
        """Reads those anew whose epoch is another one; nobody else's terms are read more often because of them."""
        for organization in organizations:
            if before.get(organization) != now.get(organization):
                self._forget_organization(organization)

    def _forget_organization(self, organization: str) -> None:
        for place in [place for place in self._by_place if place[0] == organization]:
            del self._by_place[place]


async def read_epochs(connection: Any, organizations: Sequence[str]) -> Epochs:
    """The present epochs."""
    return {row["organization"]: row["epoch"] for row in await connection.fetch(READ_EPOCHS, organizations)}
