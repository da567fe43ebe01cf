"""Between the domain's words and the contracts' messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from farthing.budget.v1 import budget_pb2
from farthing.cache.v1 import cache_pb2
from farthing.chat.v1 import chat_pb2
from farthing.optimizer.v1 import optimizer_pb2
from farthing.router.v1 import router_pb2

from farthing_orchestrator.accounting import ModelPrice
from farthing_orchestrator.ports import Usage
from farthing_orchestrator.request import Ask, BudgetLeft, Conversation, Generated, Line, Offer, Piece, Planned, PlannedShadow

LOOKUP_MODES = {"exact": cache_pb2.LOOKUP_MODE_EXACT, "semantic": cache_pb2.LOOKUP_MODE_SEMANTIC}
LOOKUP_OUTCOMES = {
    cache_pb2.LOOKUP_OUTCOME_UNSPECIFIED: "miss",
    cache_pb2.LOOKUP_OUTCOME_MISS: "miss",
    cache_pb2.LOOKUP_OUTCOME_HIT_EXACT: "exact",
    cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC: "semantic",
    cache_pb2.LOOKUP_OUTCOME_HIT_ADAPTED: "adapted",
}
SHARING = {
    "organization": cache_pb2.SHARING_SCOPE_ORGANIZATION,
    "workspace": cache_pb2.SHARING_SCOPE_WORKSPACE,
    "user": cache_pb2.SHARING_SCOPE_USER,
}
OPTIMIZE_FOR: dict[str, Any] = {
    "": router_pb2.OPTIMIZE_FOR_UNSPECIFIED,
    "cost": router_pb2.OPTIMIZE_FOR_COST,
    "latency": router_pb2.OPTIMIZE_FOR_LATENCY,
    "quality": router_pb2.OPTIMIZE_FOR_QUALITY,
    "balanced": router_pb2.OPTIMIZE_FOR_BALANCED,
}
PROMPT_LEVELS = {"off": optimizer_pb2.LEVEL_OFF, "lossless": optimizer_pb2.LEVEL_LOSSLESS}
ATTEMPT_OUTCOMES = {
    router_pb2.ATTEMPT_OUTCOME_ACCEPTED: "accepted",
    router_pb2.ATTEMPT_OUTCOME_REJECTED: "rejected",
    router_pb2.ATTEMPT_OUTCOME_FAILED: "failed",
    router_pb2.ATTEMPT_OUTCOME_CANCELLED: "cancelled",
}
TOKENS_SOURCES = {
    chat_pb2.TOKENS_SOURCE_REPORTED: "reported",
    chat_pb2.TOKENS_SOURCE_DERIVED: "derived",
    chat_pb2.TOKENS_SOURCE_ESTIMATED: "estimated",
    chat_pb2.TOKENS_SOURCE_MISSING: "missing",
}
FIGURE_SOURCES = {
    "reported": budget_pb2.FIGURE_SOURCE_REPORTED,
    "derived": budget_pb2.FIGURE_SOURCE_DERIVED,
    "estimated": budget_pb2.FIGURE_SOURCE_ESTIMATED,
    "missing": budget_pb2.FIGURE_SOURCE_MISSING,
}
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n"
_KEPT_FINISH_REASONS = frozenset({"stop", "tool_calls", "function_call", "end_turn"})


def maskable_texts(conversation: Conversation) -> list[str]:
    """Every text of a conversation in which personal data may stand: contents, the text among parts, and extra fields.

    Images and audio are left out: their encoded bytes are no text. `with_texts` takes the same texts back in the same order.
    """
    texts: list[str] = []
    for message in conversation:
        texts.append(message.content)
        if message.content_parts_json:
            texts.extend(_texts_of_parts(message.content_parts_json))
        if message.extra_json:
            texts.append(message.extra_json)
    return texts


def with_texts(conversation: Conversation, texts: Sequence[str], tokens: frozenset[str]) -> list[Any]:
    """The conversation with its texts replaced, in the order of `maskable_texts`; `tokens` are the mask tokens in them."""
    remaining = iter(texts)
    replaced = []
    for message in conversation:
        copy = chat_pb2.ChatMessage()
        copy.CopyFrom(message)
        copy.content = next(remaining)
        if message.content_parts_json:
            copy.content_parts_json = _with_texts_of_parts(message.content_parts_json, remaining)
        if message.extra_json:
            copy.extra_json = _still_json(next(remaining), tokens)
        replaced.append(copy)
    return replaced


def cache_request(ask: Ask, model_policy: str, sharing: str) -> Any:
    """What decides which remembered answers fit."""
    return cache_pb2.CacheRequest(
        scope=ask.scope,
        model_policy=model_policy,
        messages=ask.conversation,
        parameters=ask.parameters,
        sharing=SHARING[sharing],
        personal=ask.overrides.cache_personal,
    )


def lease_s(found: Any, now: datetime) -> float:
    """How long a flight is its leader's without a sign of life; 0 without one."""
    if not found.flight_id:
        return 0.0
    return float((found.flight_expire_time.ToDatetime(UTC) - now).total_seconds())


def generated(response: Any) -> Generated:
    """What the router's answer comes to."""
    attempts = response.attempts
    served = next((attempt for attempt in attempts if attempt.outcome == router_pb2.ATTEMPT_OUTCOME_ACCEPTED), None)
    usage = served.usage if served is not None else (attempts[-1].usage if attempts else chat_pb2.TokenUsage())
    return Generated(
        answer=response.answer,
        model=response.model,
        attempts=attempts,
        lines=tuple(line(attempt) for attempt in attempts),
        cost_usd_nanos=response.cost_usd_nanos,
        escalated=response.escalated,
        extra_json=response.extra_json,
        upstream_us=response.upstream_us,
        usage=usage,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        storable=served is not None and response.answer.finish_reason in _KEPT_FINISH_REASONS,
    )


def served(given: Generated) -> Any:
    """An answer as its shadow is told of it."""
    return router_pb2.ServedAnswer(
        model=given.model, answer=given.answer, cost_usd_nanos=given.cost_usd_nanos, upstream_us=given.upstream_us
    )


def line(attempt: Any) -> Line:
    """An attempt as the ledger writes it down."""
    usage = attempt.usage
    return Line(
        model=attempt.model,
        provider=attempt.provider,
        deployment=attempt.deployment,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd_nanos=attempt.cost_usd_nanos,
        outcome=ATTEMPT_OUTCOMES.get(attempt.outcome, "failed"),
        estimated=usage.estimated,
        cache_write_5m_tokens=usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        audio_input_tokens=usage.audio_input_tokens,
        audio_output_tokens=usage.audio_output_tokens,
        tokens_source=TOKENS_SOURCES.get(usage.source, "estimated" if usage.estimated else "reported"),
        price_source=attempt.price_source,
        service_tier=attempt.service_tier,
        price_unknown=attempt.price_unknown,
    )


def usage_record(usage: Usage) -> Any:
    """The ledger's record of a request."""
    return budget_pb2.UsageRecord(
        task=usage.ask.task,
        lines=[
            budget_pb2.UsageLine(
                model=item.model,
                provider=item.provider,
                deployment=item.deployment,
                input_tokens=item.input_tokens,
                cached_input_tokens=item.cached_input_tokens,
                output_tokens=item.output_tokens,
                cost_usd_nanos=item.cost_usd_nanos,
                outcome=item.outcome,
                estimated=item.estimated,
                cache_write_5m_tokens=item.cache_write_5m_tokens,
                cache_write_1h_tokens=item.cache_write_1h_tokens,
                reasoning_tokens=item.reasoning_tokens,
                audio_input_tokens=item.audio_input_tokens,
                audio_output_tokens=item.audio_output_tokens,
                tokens_source=FIGURE_SOURCES["estimated" if item.estimated else item.tokens_source or "reported"],
                price_source=item.price_source,
                service_tier=item.service_tier,
                price_unknown=item.price_unknown,
            )
            for item in usage.lines
        ],
        baseline_usd_nanos=usage.baseline_usd_nanos,
        saving=saving(usage.saving),
        service=usage.ask.service,
        domain=usage.ask.domain,
        key_id=usage.ask.key_id,
        tags=usage.ask.tags,
    )


def saving(by_cause: Any) -> Any:
    """A saving by cause."""
    return budget_pb2.Saving(
        cache_usd_nanos=by_cause["cache"], prompt_usd_nanos=by_cause["prompt"], route_usd_nanos=by_cause["route"]
    )


def budget_left(left: Any) -> BudgetLeft:
    """What is left on the tightest budget."""
    return BudgetLeft(
        budget_id=left.budget_id,
        scope=left.scope,
        free_usd_nanos=left.free_usd_nanos if left.HasField("free_usd_nanos") else None,
        free_tokens=left.free_tokens if left.HasField("free_tokens") else None,
        limit_usd_nanos=left.limit_usd_nanos if left.HasField("limit_usd_nanos") else None,
        period_start=left.period_start_time.ToDatetime(UTC) if left.HasField("period_start_time") else None,
        period_end=left.period_end_time.ToDatetime(UTC) if left.HasField("period_end_time") else None,
    )


def planned(answer: Any) -> Planned:
    """A route with its offers, and the routes that are followed beside it."""
    shadows = tuple(PlannedShadow(_planned(each.route), each.cause) for each in answer.shadows)
    return _planned(answer.route, shadows, answer.baseline_model, answer.baseline_likely_usd_nanos)


def _planned(
    route: Any, shadows: tuple[PlannedShadow, ...] = (), baseline_model: str = "", baseline_likely_usd_nanos: int = 0
) -> Planned:
    """Only the last of those that are asked in turn is not judged before it is delivered, and who is asked in the place of one that
    failed; several that open side by side are all judged.
    """
    asked = [each for each in route.candidates if each.role != router_pb2.CANDIDATE_ROLE_FALLBACK]
    judged = len(asked) > 1 and route.accept_confidence > 0
    live = {each.model for each in route.candidates if each.role == router_pb2.CANDIDATE_ROLE_FALLBACK}
    if not judged or asked[-1].role == router_pb2.CANDIDATE_ROLE_ESCALATION:
        live.add(asked[-1].model)
    return Planned(
        route=route,
        offers=tuple(
            Offer(
                model=each.model,
                provider=each.provider,
                hosted=each.hosted,
                streams=each.model in live,
                input_tokens=each.input_tokens,
                output_tokens_max=each.output_tokens_max,
                output_tokens_likely=each.likely_output_tokens,
                worst_case_usd_nanos=each.worst_case_usd_nanos,
                rate=each.output_usd_nanos_per_million_tokens,
                price_source=each.price_source,
                price_unknown=each.price_unknown,
                opens=each.role in (router_pb2.CANDIDATE_ROLE_FIRST, router_pb2.CANDIDATE_ROLE_PEER),
            )
            for each in route.candidates
        ),
        worst_case_usd_nanos=route.worst_case_usd_nanos,
        worst_case_tokens=route.worst_case_tokens,
        likely_usd_nanos=route.likely_usd_nanos,
        baseline_model=baseline_model,
        baseline_likely_usd_nanos=baseline_likely_usd_nanos,
        shadows=shadows,
        on_trial=route.on_trial,
    )


def piece(delta: Any) -> Piece:
    """A piece of an answer, with the text in it weighed."""
    text: bytes = delta.content.encode()
    if delta.extra_json:
        text += "".join(_texts_in(orjson.loads(delta.extra_json))).encode()
    # Letters and spaces come by the quarter of a token; digits, signs and other alphabets by the half.
    quarters = len(text) + len(text.translate(None, _LETTERS))
    return Piece(delta.content, delta.extra_json, delta.model, len(text), quarters)


def _texts_in(value: Any) -> list[str]:
    """Every text in a JSON value that is no name of a field, without recursion."""
    texts, todo = [], [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            texts.append(item)
        else:
            todo += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return texts


def model_price(listed: Any) -> ModelPrice:
    """A listed model's price."""
    return ModelPrice(listed.input_usd_nanos_per_million_tokens, listed.output_usd_nanos_per_million_tokens, listed.encoding)


def _texts_of_parts(parts_json: str) -> list[str]:
    try:
        parts = orjson.loads(parts_json)
    except orjson.JSONDecodeError:
        return []
    return [part["text"] for part in parts if _has_text(part)] if isinstance(parts, list) else []


def _with_texts_of_parts(parts_json: str, texts: Any) -> str:
    try:
        parts = orjson.loads(parts_json)
    except orjson.JSONDecodeError:
        return parts_json
    for part in parts if isinstance(parts, list) else ():
        if _has_text(part):
            part["text"] = next(texts)
    return orjson.dumps(parts).decode()


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _still_json(text: str, tokens: frozenset[str]) -> str:
    """A mask token that replaced a number stands outside any string; it is put in quotes so that the field stays JSON."""
    try:
        orjson.loads(text)
        return text
    except orjson.JSONDecodeError:
        bare = re.compile(r"(?<=[:\[,\s])(" + "|".join(map(re.escape, sorted(tokens))) + r")(?=\s*[,}\]])")
        return bare.sub(r'"\1"', text)
