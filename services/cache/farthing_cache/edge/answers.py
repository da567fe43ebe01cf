"""RPCs that look answers up and remember them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing_core.clock import Clock

from farthing_cache.answers.counting import Tallies
from farthing_cache.answers.looking_up import LookUps
from farthing_cache.answers.remembering import Memory
from farthing_cache.certifying.evidence import Evidence
from farthing_cache.edge.messages import address_of, asked_of, response_of, timestamp, written
from farthing_cache.store import Stored

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class AnswerRpcs:
    """Look-ups and stores."""

    def __init__(
        self, look_ups: LookUps, memory: Memory, tallies: Tallies, evidence: Evidence, *, clock: Clock, ttl_s_default: int
    ) -> None:
        self._look_ups = look_ups
        self._memory = memory
        self._tallies = tallies
        self._evidence = evidence
        self._clock = clock
        self._ttl_s_default = ttl_s_default

    async def LookUpAnswer(self, request: Any, context: Any) -> Any:
        """Looks for an answer."""
        where = await address_of(request.request)
        found = await self._look_ups.look_up(asked_of(request, where))
        answer = response_of(found, where)
        if not request.dry_run:
            avoided = answer.entry.cost_usd_nanos if found.payload is not None else 0
            self._tallies.count(where.organization, request.request.scope, found, avoided_usd_nanos=avoided)
        return answer

    async def StoreAnswer(self, request: Any, context: Any) -> Any:
        """Remembers an answer."""
        where, ttl_s, now = await address_of(request.request), request.ttl_s or self._ttl_s_default, self._clock.now()
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
            model=written([request.model], field="model")[0],
            tags=written(request.tags, field="tags"),
            payload=entry.SerializeToString(),
            question=None,
            vector=None,
            created_at=_NEVER,
            expires_at=_NEVER,
            cost_usd_nanos=request.cost_usd_nanos,
        )
        self._evidence.bought(where.organization, where.key, stored.payload)
        kept = await self._memory.remember(where, stored, ttl_s=ttl_s, semantic=request.semantic)
        return cache_pb2.StoreAnswerResponse(
            key=entry.key, stored=kept.stored, reason=kept.reason, expire_time=timestamp(kept.expires_at)
        )
