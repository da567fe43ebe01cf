"""Removing what nobody can read any more: its key was erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farthing_cache.sealing.seals import Seals

_REMEMBERED_MAX = 10_000


class SealedRows(Protocol):
    """Rows of sealed texts. Both may raise StoreUnavailable."""

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """Organisations that have rows, by name."""
        ...

    async def drop_unreadable(self, organization: str, headers: Sequence[bytes], *, count_max: int) -> int:
        """Forgets rows whose payload begins with none of `headers`; returns how many."""
        ...


class UnreadableSweep:
    """Goes round the organisations. One is only looked through again when its keys have changed."""

    def __init__(self, rows: SealedRows, seals: Seals, *, organizations_max: int, rows_max: int) -> None:
        self._rows = rows
        self._seals = seals
        self._organizations_max = organizations_max
        self._rows_max = rows_max
        self._after = ""
        self._swept: dict[str, list[bytes]] = {}

    async def turn(self) -> int:
        """Looks at the next few organisations; returns how many rows went. Raises StoreUnavailable."""
        names = await self._rows.organizations(after=self._after, count_max=self._organizations_max)
        self._after = names[-1] if len(names) == self._organizations_max else ""
        dropped = 0
        for name in names:
            headers = await self._seals.headers(name)
            if headers is None or self._swept.get(name) == headers:
                continue
            count = await self._rows.drop_unreadable(name, headers, count_max=self._rows_max)
            dropped += count
            if count < self._rows_max:
                self._remember(name, headers)
        return dropped

    def _remember(self, name: str, headers: list[bytes]) -> None:
        self._swept[name] = headers
        while len(self._swept) > _REMEMBERED_MAX:
            del self._swept[next(iter(self._swept))]
