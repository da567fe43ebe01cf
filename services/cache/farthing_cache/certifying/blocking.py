"""Questions for which an entry's answer was wrong: it does not come back for them, in these words or in others, whoever stores it again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from farthing_runtime.refreshing import Watched

from farthing_cache.certifying.hits import Block, EvidenceStore
from farthing_cache.verifying.vetoes import normalised

_HASH_BYTES = 16
_BLOCKS_MAX = 10_000
"""An organisation's newest ones are kept in memory."""


def text_hash(text: str) -> bytes:
    """The hash of a text as it is compared: without case, runs of white space, and punctuation at its end."""
    return hashlib.sha256(normalised(text).encode()).digest()[:_HASH_BYTES]


class Blocks:
    """What is blocked, known within seconds in every replica."""

    def __init__(self, store: EvidenceStore) -> None:
        self._by_cached: dict[str, OrderedDict[bytes, dict[bytes, Any]]] = {}
        self._wrong: dict[tuple[str, bytes], int] = {}
        self.watched: Watched[Block] = Watched("blocks", after=store.blocks_after, take=self._take)

    def blocked(self, organization: str, text: str, vector: Any, *, cached: str, similarity: float) -> bool:
        """Whether an entry must not answer a question: it was wrong for that one, or for one that is nearer to it than the entry's own."""
        of_organization = self._by_cached.get(organization)
        known = of_organization.get(text_hash(cached)) if of_organization is not None else None
        if not known:
            return False
        if text_hash(text) in known:
            return True
        return similarity < 1 and any(
            other is not None and other.shape == vector.shape and float(np.dot(vector, other)) >= similarity
            for other in known.values()
        )

    def wrong_of(self, organization: str, entry_key: bytes) -> int:
        """How many questions an entry was wrong for."""
        return self._wrong.get((organization, entry_key), 0)

    def _take(self, block: Block) -> None:
        known = self._by_cached.setdefault(block.organization, OrderedDict())
        asked = known.setdefault(block.cached_hash, {})
        known.move_to_end(block.cached_hash)
        if block.asked_hash not in asked:
            where = block.organization, block.entry_key
            self._wrong[where] = self._wrong.get(where, 0) + 1
        vector = np.frombuffer(block.vector, dtype="<f2").astype(np.float32)
        asked[block.asked_hash] = vector if vector.size else None
        while len(known) > _BLOCKS_MAX:
            known.popitem(last=False)
