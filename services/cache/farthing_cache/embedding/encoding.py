"""What reads texts, and what it promises. The promises are tested in tests/contract/test_encoders.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farthing_core.errors import FarthingError

from farthing_cache.embedding.reading import Reading

BUILT_IN = "minilm-"
"""What the fingerprint of the built-in model begins with, and of no other."""


class EmbeddingUnavailable(FarthingError):
    """A text cannot be embedded now; `reason` is what a look-up says of it."""

    unreachable = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"the text is not embedded: {reason}", why=reason)
        self.reason = reason
        self.retry_after_s = 1.0


class Model(Protocol):
    """A blocking model, for one thread at a time. Its `fingerprint` tells its vectors from those of every other."""

    fingerprint: str

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Readings in the order of the texts, each as if it were alone. Whatever a text holds, it is read as far as it can be."""
        ...


class Encoder(Protocol):
    """A model that is awaited. Its `fingerprint` tells its vectors from those of every other."""

    fingerprint: str

    async def read(self, texts: Sequence[str]) -> Sequence[Reading | EmbeddingUnavailable]:
        """As Model does; a failure in the list is that text's own. Raises EmbeddingUnavailable where it is everybody's."""
        ...
