"""RPCs that look answers up and remember them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing_core.clock import Clock

from farthing_cache.answers.asking import Asked
from farthing_cache.answers.counting import Tallies
from farthing_cache.answers.flying import FlyingAnswers
from farthing_cache.answers.remembering import Memory
from farthing_cache.edge.messages import address_of, response_of, timestamp
from farthing_cache.store import Stored

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class AnswerRpcs:
    """Look-ups and stores."""

    def __init__(self, flying: FlyingAnswers, memory: Memory, tallies: Tallies, *, clock: Clock, ttl_s_default: int) -> None:
        self._flying = flying
        self._memory = memory
        self._tallies = tallies
        self._clock = clock
        self._ttl_s_default = ttl_s_default

    async def LookUpAnswer(self, request: Any, context: Any) -> Any:
        """Looks for an answer."""
        where = address_of(request.request)
        asked = Asked(
            where,
            request.request.scope,
            request.mode == cache_pb2.LOOKUP_MODE_SEMANTIC,
            flight_wait_s=request.flight_wait_ms / 1000,
            dry_run=request.dry_run,
        )
        found = await self._flying.look_up(asked)
        answer = response_of(found, where)
        if not (request.dry_run or found.in_flight):  # who waits on asks again
            avoided = answer.entry.cost_usd_nanos if found.payload is not None else 0
            self._tallies.count(where.organization, request.request.scope, found, avoided_usd_nanos=avoided)
        return answer

    async def StoreAnswer(self, request: Any, context: Any) -> Any:
        """Remembers an answer."""
        where, ttl_s, now = address_of(request.request), request.ttl_s or self._ttl_s_default, self._clock.now()
        entry = cache_pb2.Entry(
            key=where.key.hex(),
            answer=request.answer,
            model=request.model,
            usage=request.usage,
            cost_usd_nanos=request.cost_usd_nanos,
            create_time=timestamp(now),
            expire_time=timestamp(now + timedelta(seconds=ttl_s)),
            tags=request.tags,
        )
        stored = Stored(
            organization=where.organization,
            key=where.key,
            partition=where.partition,
            scope=where.scope,
            model=request.model,
            tags=tuple(request.tags),
            payload=entry.SerializeToString(),
            question=None,
            vector=None,
            created_at=_NEVER,
            expires_at=_NEVER,
            cost_usd_nanos=request.cost_usd_nanos,
        )
        remembering = self._memory.remember(where, stored, ttl_s=ttl_s, semantic=request.semantic)
        kept = await self._flying.deliver(where, request.flight_id, stored.payload, remembering)
        return cache_pb2.StoreAnswerResponse(
            key=entry.key, stored=kept.stored, reason=kept.reason, expire_time=timestamp(kept.expires_at)
        )

    async def EndFlight(self, request: Any, context: Any) -> Any:
        """Gives a flight up."""
        await self._flying.end(address_of(request.request), request.flight_id)
        return cache_pb2.EndFlightResponse()

    async def KeepFlight(self, request: Any, context: Any) -> Any:
        """Goes on with a flight."""
        flight = await self._flying.keep(address_of(request.request), request.flight_id)
        answer = cache_pb2.KeepFlightResponse(kept=flight is not None)
        if flight is not None:
            answer.flight_expire_time.CopyFrom(timestamp(flight.expires_at))
        return answer
