"""Messages to and from the domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing_core.scopes import parse_scope
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_cache.answers.asking import Found
from farthing_cache.answers.remembering import Offered, Times
from farthing_cache.answers.soundness import Answer
from farthing_cache.canonical import Address, Question, Turn, address, parameters_that_matter, parsed

SHARING = {
    cache_pb2.SHARING_SCOPE_UNSPECIFIED: "organization",
    cache_pb2.SHARING_SCOPE_ORGANIZATION: "organization",
    cache_pb2.SHARING_SCOPE_WORKSPACE: "workspace",
    cache_pb2.SHARING_SCOPE_USER: "user",
}
OUTCOMES = {
    "exact": cache_pb2.LOOKUP_OUTCOME_HIT_EXACT,
    "semantic": cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC,
    "adapted": cache_pb2.LOOKUP_OUTCOME_HIT_ADAPTED,
    "miss": cache_pb2.LOOKUP_OUTCOME_MISS,
}


def address_of(request: Any) -> Address:
    """Where a CacheRequest belongs. Raises FieldInvalid."""
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
        sharing=SHARING[request.sharing],
        model_policy=request.model_policy,
        turns=tuple(Turn(each.role, each.content, each.content_parts_json, each.extra_json) for each in request.messages),
        parameters=parameters_that_matter(named, given.extra_json),
    )
    return address(question)


def response_of(found: Found, where: Address) -> Any:
    """What a look-up found."""
    answer = cache_pb2.LookUpAnswerResponse(
        outcome=OUTCOMES[found.outcome], reason=found.reason, similarity=found.similarity, key=where.key.hex()
    )
    if found.payload is not None:
        answer.entry.ParseFromString(found.payload)
    if found.vector is not None:
        answer.embedding = found.vector.astype("<f2").tobytes()
    return answer


def offered_of(given: Any, where: Address) -> Offered:
    """An answer that may be kept, from a message that has request, answer, model, usage, cost and tags."""

    def written(times: Times) -> bytes:
        entry = cache_pb2.Entry(
            key=where.key.hex(),
            answer=given.answer,
            model=given.model,
            usage=given.usage,
            cost_usd_nanos=given.cost_usd_nanos,
            create_time=timestamp(times.created_at),
            expire_time=timestamp(times.expires_at),
            tags=given.tags,
            stale_time=timestamp(times.stale_at),
        )
        return entry.SerializeToString()

    asked, answer = given.request, given.answer
    limited = asked.parameters.HasField("output_tokens_max")
    return Offered(
        address=where,
        answer=Answer(answer.content, answer.finish_reason, answer.extra_json, given.usage.output_tokens),
        turns=tuple(each.content for each in asked.messages if each.role == "user"),
        model=given.model,
        cost_usd_nanos=given.cost_usd_nanos,
        written=written,
        output_tokens_max=asked.parameters.output_tokens_max if limited else None,
        tags=tuple(given.tags),
    )


def timestamp(moment: datetime) -> Timestamp:
    """A moment."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
