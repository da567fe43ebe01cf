"""The models whose vectors are kept: each has its own graph of neighbours, so that no vector is ever compared with another model's."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import asyncpg

_GRAPH_DIMENSIONS_MAX = 4_000
"""What pgvector's graph takes in half precision; longer vectors are compared one by one, partition by partition."""


def literal(text: str) -> str:
    """An SQL literal. The planner proves from it, not from a parameter, which graph it may use."""
    return "'" + text.replace("'", "''") + "'"


class ModelIndexes:
    """The graphs, one a model, made with the first vector of each."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._known: set[str] = set()

    async def ensure(self, embedder: str, dimensions: int) -> None:
        """Makes the graph of a model where there is none."""
        if embedder in self._known:
            return
        stamp = hashlib.sha256(embedder.encode()).hexdigest()[:16]
        using = (
            f"hnsw ((embedding::halfvec({dimensions})) halfvec_cosine_ops)"
            if dimensions <= _GRAPH_DIMENSIONS_MAX
            else "btree (organization, partition)"
        )
        # Another replica may be making it right now.
        with suppress(asyncpg.UniqueViolationError, asyncpg.DuplicateTableError):
            await self._pool.execute(
                f"CREATE INDEX IF NOT EXISTS entries_near_{stamp} ON entries USING {using} WHERE embedder = {literal(embedder)}"
            )
        self._known.add(embedder)
