"""Hot entries in this process: least recently used go first, by bytes."""

from __future__ import annotations

from collections import OrderedDict

from farthing_core.clock import Clock

from farthing_cache.store import Hot

_OVERHEAD_BYTES = 300


class MemoryHotEntries:
    """The HotEntries of one process."""

    def __init__(self, clock: Clock, *, bytes_max: int) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, bytes], Hot] = OrderedDict()

    async def get(self, organization: str, key: bytes) -> Hot | None:
        """An entry that has not expired."""
        hot = self._entries.get((organization, key))
        if hot is None:
            return None
        if hot.expires_at <= self._clock.now():
            self._remove((organization, key))
            return None
        self._entries.move_to_end((organization, key))
        return hot

    async def put(self, organization: str, key: bytes, hot: Hot) -> None:
        """Keeps an entry while there is room."""
        self._remove((organization, key))
        self._entries[organization, key] = hot
        self._bytes += len(hot.payload) + _OVERHEAD_BYTES
        while self._bytes > self._bytes_max and self._entries:
            self._remove(next(iter(self._entries)))

    async def drop(self, organization: str) -> None:
        """Forgets an organisation's entries."""
        for where in [where for where in self._entries if where[0] == organization]:
            self._remove(where)

    async def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._bytes = 0

    def _remove(self, where: tuple[str, bytes]) -> None:
        hot = self._entries.pop(where, None)
        if hot is not None:
            self._bytes -= len(hot.payload) + _OVERHEAD_BYTES
