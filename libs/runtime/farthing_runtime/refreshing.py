"""Small tables that every replica keeps in memory: read whole at the start, then on from where it was, every few seconds.

Every row has a number that grows with each change, a changed row gets a new one, and rows become visible in the order of their numbers
(writers take turns), so that whoever has seen number n misses nothing that came before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import structlog

from farthing_runtime.beside import beside

PAGE_ROWS = 5_000
_log = structlog.get_logger()


class Numbered(Protocol):
    """A row of a watched table."""

    @property
    def number(self) -> int:
        """Its place in the order of changes."""
        ...


_Row = TypeVar("_Row", bound=Numbered)
_Row_co = TypeVar("_Row_co", bound=Numbered, covariant=True)


class After(Protocol[_Row_co]):
    """Reads a table."""

    async def __call__(self, number: int, *, rows_max: int) -> Sequence[_Row_co]:
        """The rows with larger numbers, in order, at most so many. Raises StoreUnavailable."""
        ...


class Watched(Generic[_Row]):
    """Reads on in one table. `take` learns of each row, in order, and must not raise; `name` is for the log."""

    def __init__(self, name: str, *, after: After[_Row], take: Callable[[_Row], None]) -> None:
        self.name = name
        self.last_number = 0
        self._after = after
        self._take = take
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Reads what was written since. Whoever has written calls it, to know at once. Raises StoreUnavailable."""
        async with self._reading:
            while True:
                rows = await self._after(self.last_number, rows_max=PAGE_ROWS)
                for row in rows:
                    self._take(row)
                    self.last_number = row.number
                if len(rows) < PAGE_ROWS:
                    return


@asynccontextmanager
async def watching(*tables: Watched[Any], interval_s: float) -> AsyncIterator[None]:
    """Knows what other replicas write, within `interval_s`, until the block ends. While the database is out of reach, what was known
    last holds. Raises StoreUnavailable where it is out of reach at the start.
    """

    async def refresh() -> None:
        while True:
            await asyncio.sleep(interval_s)
            for table in tables:
                try:
                    await table.refresh()
                except Exception as error:  # whatever it is, the next turn must come: else changes would never be known
                    _log.warning("a table could not be read; it is tried again", table=table.name, error=type(error).__name__)

    for table in tables:
        await table.refresh()
    async with beside(refresh()):
        yield
