"""RPCs on what is kept: forgetting and counting."""

from __future__ import annotations

from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing_core.scopes import parse_scope

from farthing_cache.answers.counting import Tallies
from farthing_cache.answers.forgetting import Invalidations
from farthing_cache.answers.valuing import Valuation
from farthing_cache.store import Filter


class EntryRpcs:
    """Invalidation and statistics."""

    def __init__(self, invalidations: Invalidations, tallies: Tallies, valuation: Valuation) -> None:
        self._invalidations = invalidations
        self._tallies = tallies
        self._valuation = valuation

    async def InvalidateEntries(self, request: Any, context: Any) -> Any:
        """Forgets entries."""
        scope = parse_scope(request.scope)
        chosen = Filter(
            scope=scope.path,
            organization=scope.organization,
            keys=tuple(bytes.fromhex(key) for key in request.keys),
            tags=tuple(request.tags),
            model=request.model,
        )
        count = await self._invalidations.invalidate(chosen, every=request.all, dry_run=request.dry_run)
        return cache_pb2.InvalidateEntriesResponse(entries=count)

    async def GetCacheStats(self, request: Any, context: Any) -> Any:
        """Says how look-ups went."""
        scope = parse_scope(request.scope)
        entries, size_bytes, counts = await self._tallies.stats(scope.organization, scope.path)
        figures = await self._valuation.figures(scope.organization)
        return cache_pb2.GetCacheStatsResponse(
            entries=entries,
            payload_bytes=size_bytes,
            lookups=counts.hits_exact + counts.hits_semantic + counts.misses,
            hits_exact=counts.hits_exact,
            hits_semantic=counts.hits_semantic,
            misses=counts.misses,
            avoided_usd_nanos=counts.avoided_usd_nanos,
            evicted=figures.evicted,
            not_admitted=figures.not_admitted,
            payload_bytes_max=self._valuation.rooms.payload_bytes_max,
        )
