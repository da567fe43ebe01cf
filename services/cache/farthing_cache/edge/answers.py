"""RPCs that look answers up and remember them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from farthing.cache.v1 import cache_pb2

from farthing_cache.answers.counting import Tallies
from farthing_cache.answers.flying import FlyingAnswers
from farthing_cache.answers.remembering import Memory
from farthing_cache.answers.valuing import Valuation
from farthing_cache.certifying.evidence import Evidence
from farthing_cache.edge.messages import address_of, asked_of, offered_of, response_of, timestamp


class AnswerRpcs:
    """Look-ups and stores."""

    def __init__(
        self, flying: FlyingAnswers, memory: Memory, tallies: Tallies, evidence: Evidence, valuation: Valuation
    ) -> None:
        self._flying = flying
        self._memory = memory
        self._tallies = tallies
        self._evidence = evidence
        self._valuation = valuation

    async def LookUpAnswer(self, request: Any, context: Any) -> Any:
        """Looks for an answer."""
        where = await address_of(request.request)
        asked = asked_of(request, where)
        found = await self._flying.look_up(asked)
        answer = response_of(found, where)
        if not (request.dry_run or found.in_flight):  # who waits on asks again
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
        self._evidence.bought(where.organization, where.key, lambda: self._memory.written(offered))
        remembering = self._memory.remember(offered)
        kept = await self._flying.deliver(where, request.flight_id, lambda: self._memory.written(offered), remembering)
        return cache_pb2.StoreAnswerResponse(
            key=where.key.hex(), stored=kept.stored, reason=kept.reason, expire_time=timestamp(kept.expires_at)
        )

    async def EndFlight(self, request: Any, context: Any) -> Any:
        """Gives a flight up."""
        await self._flying.end(await address_of(request.request), request.flight_id)
        return cache_pb2.EndFlightResponse()

    async def KeepFlight(self, request: Any, context: Any) -> Any:
        """Goes on with a flight."""
        flight = await self._flying.keep(await address_of(request.request), request.flight_id)
        answer = cache_pb2.KeepFlightResponse(kept=flight is not None)
        if flight is not None:
            answer.flight_expire_time.CopyFrom(timestamp(flight.expires_at))
        return answer
