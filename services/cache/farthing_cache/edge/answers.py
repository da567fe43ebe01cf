"""RPCs that look answers up and remember them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from farthing.cache.v1 import cache_pb2

from farthing_cache.answers.counting import Tallies
from farthing_cache.answers.looking_up import LookUps
from farthing_cache.answers.remembering import Memory
from farthing_cache.answers.valuing import Valuation
from farthing_cache.certifying.evidence import Evidence
from farthing_cache.edge.messages import address_of, asked_of, offered_of, response_of, timestamp


class AnswerRpcs:
    """Look-ups and stores."""

    def __init__(self, look_ups: LookUps, memory: Memory, tallies: Tallies, evidence: Evidence, valuation: Valuation) -> None:
        self._look_ups = look_ups
        self._memory = memory
        self._tallies = tallies
        self._evidence = evidence
        self._valuation = valuation

    async def LookUpAnswer(self, request: Any, context: Any) -> Any:
        """Looks for an answer."""
        where = await address_of(request.request)
        asked = asked_of(request, where)
        found = await self._look_ups.look_up(asked)
        answer = response_of(found, where)
        if not request.dry_run:
            avoided = answer.entry.cost_usd_nanos if found.payload is not None else 0
            self._tallies.count(where.organization, request.request.scope, found, avoided_usd_nanos=avoided)
            self._valuation.note(asked, found, saved_usd_nanos=avoided)
        return answer

    async def StoreAnswer(self, request: Any, context: Any) -> Any:
        """Remembers an answer."""
        where = await address_of(request.request)
        offered = replace(
            offered_of(request, where),
            ttl_s=request.ttl_s,
            ttl_s_max=request.ttl_s_max,
            stale_s=request.stale_s,
            semantic=request.semantic,
        )
        self._evidence.bought(where.organization, where.key, self._memory.written(offered))
        kept = await self._memory.remember(offered)
        return cache_pb2.StoreAnswerResponse(
            key=where.key.hex(), stored=kept.stored, reason=kept.reason, expire_time=timestamp(kept.expires_at)
        )
