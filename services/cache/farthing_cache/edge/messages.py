"""Messages to and from the domain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_cache.answers.asking import Asked, Certificate, Found
from farthing_cache.answers.remembering import Offered, Times
from farthing_cache.answers.soundness import Answer
from farthing_cache.canonical import Address, Question, Turn, address, further_that_matter, parsed

_INLINE_BYTES_MAX = 128 * 1024
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


async def address_of(request: Any) -> Address:
    """Where a CacheRequest belongs. Raises FieldInvalid. Large ones are read in a thread: nobody else is to wait for it."""
    if request.ByteSize() <= _INLINE_BYTES_MAX:
        return _address_of(request)
    return await asyncio.to_thread(_address_of, request)


def _address_of(request: Any) -> Address:
    given = request.parameters
    named: dict[str, Any] = {
        name: getattr(given, name) for name in ("temperature", "top_p", "output_tokens_max", "seed") if given.HasField(name)
    }
    if given.stop:
        named["stop"] = list(given.stop)
    for name in ("tools_json", "response_format_json"):
        if text := getattr(given, name):
            named[name] = parsed(text, where=f"parameters.{name}")
    question = Question(
        scope=parse_scope(request.scope),
        sharing=SHARING[request.sharing],
        model_policy=request.model_policy,
        turns=tuple(Turn(each.role, each.content, each.content_parts_json, each.extra_json) for each in request.messages),
        parameters=named,
        further=further_that_matter(given.extra_json),
        personal=request.personal,
    )
    return address(question)


def written(texts: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Texts that can be kept. Raises FieldInvalid for control characters: Postgres has no zero, and ours separate."""
    kept = tuple(texts)
    if any(character < " " for text in kept for character in text):
        raise FieldInvalid(field=field, problem="has control characters")
    return kept


def asked_of(request: Any, where: Address) -> Asked:
    """A look-up."""
    return Asked(
        address=where,
        scope=request.request.scope,
        semantic=request.mode == cache_pb2.LOOKUP_MODE_SEMANTIC,
        error_budget_ppm=request.error_budget_ppm or None,
        flight_wait_s=request.flight_wait_ms / 1000,
        age_s_max=request.age_s_max or None,
        allow_stale=request.allow_stale,
        allow_adapted=request.allow_adapted,
        allow_check=request.allow_check,
        dry_run=request.dry_run,
    )


def certificate_of(certificate: Certificate) -> Any:
    """Why a hit may be trusted."""
    return cache_pb2.Certificate(
        probability=certificate.probability,
        probability_min=certificate.probability_min,
        error_budget_ppm=certificate.error_budget_ppm,
        wrong_upper_ppm=certificate.wrong_upper_ppm,
        evidence=certificate.evidence,
        category=certificate.category,
        verifier_id=certificate.verifier_id,
    )


def response_of(found: Found, where: Address) -> Any:
    """What a look-up found."""
    answer = cache_pb2.LookUpAnswerResponse(
        outcome=OUTCOMES[found.outcome],
        reason=found.reason,
        similarity=found.similarity,
        key=where.key.hex(),
        joined=found.joined,
        in_flight=found.in_flight,
    )
    answer.hit_id, answer.check = found.hit_id, found.check
    if found.certificate is not None:
        answer.certificate.CopyFrom(certificate_of(found.certificate))
    if found.flight is not None:
        answer.flight_id = found.flight.flight_id
        answer.flight_expire_time.CopyFrom(timestamp(found.flight.expires_at))
    if found.payload is not None:
        answer.entry.ParseFromString(found.payload)
    if found.vector is not None:
        answer.embedding = found.vector.astype("<f2").tobytes()
    return answer


def offered_of(given: Any, where: Address) -> Offered:
    """An answer that may be kept, from a message that has request, answer, model, usage, cost and tags."""

    def payload(times: Times) -> bytes:
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
        model=written([given.model], field="model")[0],
        cost_usd_nanos=given.cost_usd_nanos,
        written=payload,
        output_tokens_max=asked.parameters.output_tokens_max if limited else None,
        tags=written(given.tags, field="tags"),
    )


def timestamp(moment: datetime) -> Timestamp:
    """A moment."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
