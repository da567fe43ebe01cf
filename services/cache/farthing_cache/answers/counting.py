"""Counting look-ups."""

from __future__ import annotations

from farthing_core.errors import FarthingError

from farthing_cache.answers.asking import Found
from farthing_cache.store import Counts, EntryStore


class Tallies:
    """What look-ups came to, kept here until it is flushed."""

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries
        self._counts: dict[tuple[str, str], Counts] = {}

    def count(self, organization: str, scope: str, found: Found, *, avoided_usd_nanos: int) -> None:
        """Counts a look-up."""
        added = Counts(
            int(found.outcome == "exact"),
            int(found.outcome == "semantic"),
            int(found.outcome == "miss"),
            avoided_usd_nanos,
        )
        self._add((organization, scope), added)

    def _add(self, where: tuple[str, str], added: Counts) -> None:
        known = self._counts.get(where, Counts())
        self._counts[where] = Counts(
            known.hits_exact + added.hits_exact,
            known.hits_semantic + added.hits_semantic,
            known.misses + added.misses,
            known.avoided_usd_nanos + added.avoided_usd_nanos,
        )

    async def flush(self) -> None:
        """Writes the counts down; they stay here when the store is out of reach. Raises StoreUnavailable."""
        if not self._counts:
            return
        counts, self._counts = self._counts, {}
        try:
            await self._entries.add_counts(counts)
        except FarthingError:
            for where, lost in counts.items():
                self._add(where, lost)
            raise

    async def stats(self, organization: str, scope: str) -> tuple[int, int, Counts]:
        """(entries, bytes, what look-ups came to) at and below a scope. Raises StoreUnavailable."""
        await self.flush()
        entries, size_bytes = await self._entries.size(organization, scope)
        return entries, size_bytes, await self._entries.counts(organization, scope)
