"""Counting what is asked for without remembering it: a count-min sketch of small counters that halve in time.

Sources: G. Cormode and S. Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch", Journal of Algorithms 55(1), 2005;
conservative updates and halving as in G. Einziger et al., "TinyLFU", ACM Transactions on Storage 13(4), 2017.
"""

from __future__ import annotations

import struct

_ROWS = 4
_COUNT_MAX = 255
_SAMPLES_PER_COUNTER = 8
_HALVED = bytes(count >> 1 for count in range(256))
_INDICES = struct.Struct("<4I")


class Sketch:
    """Counts items, each given as at least 16 bytes that are spread evenly, as a hash is. Counts may be too high, never too low, up to the
    halving that comes after every eight items a counter. `counters` is a power of two, a row; there are four rows of a byte each.
    """

    def __init__(self, counters: int) -> None:
        self._mask = counters - 1
        self._rows = [bytearray(counters) for _ in range(_ROWS)]
        self._added = 0
        self._added_max = _SAMPLES_PER_COUNTER * counters

    def add(self, item: bytes) -> None:
        """One more."""
        mask = self._mask
        places = [(row, index & mask) for row, index in zip(self._rows, _INDICES.unpack_from(item), strict=True)]
        least = min(row[index] for row, index in places)
        if least < _COUNT_MAX:
            for row, index in places:
                if row[index] == least:
                    row[index] = least + 1
        self._added += 1
        if self._added >= self._added_max:
            self._rows = [bytearray(row.translate(_HALVED)) for row in self._rows]
            self._added //= 2

    def count(self, item: bytes) -> int:
        """How often it was added, about."""
        mask = self._mask
        indices: tuple[int, ...] = _INDICES.unpack_from(item)
        return min(row[index & mask] for row, index in zip(self._rows, indices, strict=True))
