"""Translates: messages in, the cache's call, messages out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing_core.clock import Clock
from farthing_core.scopes import parse_scope
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_cache.canonical import Address, Question, Turn, address, parameters_that_matter, parsed
from farthing_cache.remembering import AnswerCache, Found
from farthing_cache.store import Filter, Stored

_SHARING = {
    cache_pb2.SHARING_SCOPE_UNSPECIFIED: "organization",
    cache_pb2.SHARING_SCOPE_ORGANIZATION: "organization",
    cache_pb2.SHARING_SCOPE_WORKSPACE: "workspace",
    cache_pb2.SHARING_SCOPE_USER: "user",
}
_OUTCOMES = {
    "exact": cache_pb2.LOOKUP_OUTCOME_HIT_EXACT,
    "semantic": cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC,
    "miss": cache_pb2.LOOKUP_OUTCOME_MISS,
}
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    """`farthing.cache.v1.CacheService`."""

    def __init__(self, cache: AnswerCache, *, clock: Clock, ttl_s_default: int) -> None:
        self._cache = cache
        self._clock = clock
        self._ttl_s_default = ttl_s_default

    async def LookUpAnswer(self, request: Any, context: Any) -> Any:
        """Looks for an answer."""
        where = _address(request.request)
        found = await self._cache.look_up(where, semantic=request.mode == cache_pb2.LOOKUP_MODE_SEMANTIC)
        answer = _found(found, where)
        avoided = answer.entry.cost_usd_nanos if found.payload is not None else 0
        self._cache.count(where.organization, request.request.scope, found, avoided_usd_nanos=avoided)
        return answer

    async def StoreAnswer(self, request: Any, context: Any) -> Any:
        """Remembers an answer."""
        where, ttl_s, now = _address(request.request), request.ttl_s or self._ttl_s_default, self._clock.now()
        entry = cache_pb2.Entry(
            key=where.key.hex(),
            answer=request.answer,
            model=request.model,
            usage=request.usage,
            cost_usd_nanos=request.cost_usd_nanos,
            create_time=_timestamp(now),
            expire_time=_timestamp(now + timedelta(seconds=ttl_s)),
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
        )
        await self._cache.remember(where, stored, ttl_s=ttl_s, semantic=request.semantic)
        return cache_pb2.StoreAnswerResponse(key=entry.key)

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
        count = await self._cache.invalidate(chosen, every=request.all, dry_run=request.dry_run)
        return cache_pb2.InvalidateEntriesResponse(entries=count)

    async def GetCacheStats(self, request: Any, context: Any) -> Any:
        """Says how look-ups went."""
        scope = parse_scope(request.scope)
        entries, size_bytes, counts = await self._cache.stats(scope.organization, scope.path)
        return cache_pb2.GetCacheStatsResponse(
            entries=entries,
            payload_bytes=size_bytes,
            lookups=counts.hits_exact + counts.hits_semantic + counts.misses,
            hits_exact=counts.hits_exact,
            hits_semantic=counts.hits_semantic,
            misses=counts.misses,
            avoided_usd_nanos=counts.avoided_usd_nanos,
        )


def _address(request: Any) -> Address:
    given = request.parameters
    named: dict[str, Any] = {
        name: getattr(given, name) for name in ("temperature", "top_p", "output_tokens_max", "seed") if given.HasField(name)
    }
    if given.stop:
        named["stop"] = list(given.stop)
    for name in ("tools_json", "response_format_json"):
        if text := getattr(given, name):
            named[name] = parsed(text, field=f"parameters.{name}")
    question = Question(
        scope=parse_scope(request.scope),
        sharing=_SHARING[request.sharing],
        model_policy=request.model_policy,
        turns=tuple(Turn(each.role, each.content, each.content_parts_json, each.extra_json) for each in request.messages),
        parameters=parameters_that_matter(named, given.extra_json),
    )
    return address(question)


def _found(found: Found, where: Address) -> Any:
    answer = cache_pb2.LookUpAnswerResponse(
        outcome=_OUTCOMES[found.outcome], reason=found.reason, similarity=found.similarity, key=where.key.hex()
    )
    if found.payload is not None:
        answer.entry.ParseFromString(found.payload)
    if found.vector is not None:
        answer.embedding = found.vector.astype("<f2").tobytes()
    return answer


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
