"""Forgetting answers, here and in every replica."""

from __future__ import annotations

from farthing_core.errors import FarthingError

from farthing_cache.store import EntryStore, Filter, HotEntries


class FilterEmpty(FarthingError):
    """An invalidation that names nothing."""

    def __init__(self) -> None:
        super().__init__("name keys, tags, a model, or say all")


class Invalidations:
    """Forgets what a filter chooses."""

    def __init__(self, *, hot: HotEntries, entries: EntryStore) -> None:
        self._hot = hot
        self._entries = entries

    async def invalidate(self, chosen: Filter, *, every: bool, dry_run: bool) -> int:
        """Forgets entries; returns how many. Raises FilterEmpty, StoreUnavailable."""
        if not (chosen.keys or chosen.tags or chosen.model or every):
            raise FilterEmpty
        count = await self._entries.invalidate(chosen, dry_run=dry_run)
        if not dry_run:
            await self._hot.drop(chosen.organization)
        return count

    async def forget_hot(self, organization: str | None) -> None:
        """Another replica has invalidated: its organisation's hot entries go, or all where it is not known whose."""
        await (self._hot.clear() if organization is None else self._hot.drop(organization))
