"""Between the contract's messages and the router's words."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2
from farthing_core.errors import FieldInvalid

from farthing_router.catalog import Model
from farthing_router.judging.answers import excerpt
from farthing_router.judging.structures import asked
from farthing_router.pricing.price_book import Prices
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.pricing.tokens import Tokens, TokensSource, service_tier
from farthing_router.routing.errands import Attempt, Errand, Finished, Served
from farthing_router.routing.routes import BudgetPace, Candidate, Role, Route, Wish
from farthing_router.upstreams import UpstreamPiece

_JSON_FIELDS = ("tools_json", "response_format_json", "extra_json")
_MORE_ANSWERS = ("n", "best_of")


def wish(request: Any) -> Wish:
    """What a plan is asked for."""
    parameters, pace = request.parameters, request.budget_pace
    check_json(request.messages, parameters)
    images = sum(message.content_parts_json.count('"image_url"') for message in request.messages if message.content_parts_json)
    needs = set()
    if parameters.tools_json:
        needs.add("tools")
    if images:
        needs.add("vision")
    if parameters.response_format_json:
        needs.add("json")
    parts = [message.content_parts_json for message in request.messages if message.content_parts_json]
    audio = any('"input_audio"' in part for part in parts) or '"audio"' in parameters.extra_json
    if audio:
        needs.add("audio")
    return Wish(
        model=request.model,
        task=request.task,
        tier=request.tier,
        needs=frozenset(needs),
        images=images,
        input_tokens=dict(request.input_tokens),
        bytes_bound=prompt_bytes(request.messages, parameters),
        output_tokens_max=parameters.output_tokens_max if parameters.HasField("output_tokens_max") else None,
        allowed_providers=frozenset(request.allowed_providers),
        open_models_only=request.open_models_only,
        baseline_model=request.baseline_model,
        baseline_input_tokens=dict(request.baseline_input_tokens),
        service_tier=asked_tier(parameters),
        cache_writes=any(
            '"cache_control"' in text
            for text in (*parts, parameters.tools_json, parameters.extra_json, *(each.extra_json for each in request.messages))
        ),
        audio=audio,
        scope=request.scope,
        request_id=request.request_id,
        optimize_for=_OPTIMIZE_FOR[request.optimize_for],
        quality_min=request.quality_min if request.HasField("quality_min") else None,
        quality_reference_model=request.quality_reference_model,
        latency_ms_max=request.latency_ms_max if request.HasField("latency_ms_max") else None,
        timeout_ms=request.timeout_ms,
        prompt=prompt_text(request.messages),
        embedding=request.embedding,
        budget_pace=BudgetPace(pace.used_share, pace.elapsed_share) if request.HasField("budget_pace") else None,
        calls_max=request.calls_max,
        cost_usd_nanos_max=request.cost_usd_nanos_max,
        session=request.session,
        tags=tuple(request.tags),
    )


_OPTIMIZE_FOR = {
    router_pb2.OPTIMIZE_FOR_UNSPECIFIED: "",
    router_pb2.OPTIMIZE_FOR_COST: "cost",
    router_pb2.OPTIMIZE_FOR_LATENCY: "latency",
    router_pb2.OPTIMIZE_FOR_QUALITY: "quality",
    router_pb2.OPTIMIZE_FOR_BALANCED: "balanced",
}


def prompt_text(messages: Any) -> str:
    """A conversation as one bounded text, the way labelled examples have it: a lone message as it is, else each with its role before it."""
    if len(messages) == 1:
        return excerpt(messages[0].content)
    return excerpt("\n\n".join(f"{each.role}: {excerpt(each.content)}" for each in messages if each.content))


def asked_tier(parameters: Any) -> str:
    """The tier of service that a request asks its provider for. Raises FieldInvalid for batches, which would be charged as such."""
    if "service_tier" not in parameters.extra_json and "\\u" not in parameters.extra_json:
        return ""
    asked = orjson.loads(parameters.extra_json).get("service_tier")
    tier = service_tier(asked) if isinstance(asked, str) else ""
    if tier == "batch":
        raise FieldInvalid(field="parameters.extra_json", problem="service_tier batch is bought where timeout_ms allows it")
    return tier


def organization(scope: str) -> str:
    """The organisation of a scope; empty for none."""
    return scope.split("/", 2)[1] if scope else ""


def prompt_bytes(messages: Any, parameters: Any) -> int:
    """The bytes of a prompt: an upper bound on its tokens, since every token covers a byte at least."""
    total = len(parameters.tools_json) + len(parameters.response_format_json)
    for message in messages:
        total += len(message.content.encode()) + len(message.extra_json.encode()) + 8
        if message.content_parts_json and '"image_url"' not in message.content_parts_json:
            total += len(message.content_parts_json.encode())
    return total


def check_json(messages: Any, parameters: Any) -> None:
    """Raises FieldInvalid for a JSON field that is none, and for parameters that ask for more answers than were planned and paid for."""
    for name in _JSON_FIELDS:
        parsed = _must_be_json(getattr(parameters, name), f"parameters.{name}", list if name == "tools_json" else dict)
        for many in _MORE_ANSWERS if parsed and name == "extra_json" else ():
            if parsed.get(many) not in (None, 1):
                raise FieldInvalid(field=f"parameters.{name}", problem=f"{many} must be 1: one answer a request")
    for number, message in enumerate(messages):
        if message.extra_json:
            _must_be_json(message.extra_json, f"messages[{number}].extra_json", dict)
        if message.content_parts_json:
            _must_be_json(message.content_parts_json, f"messages[{number}].content_parts_json", list)


def _must_be_json(text: str, field: str, kind: type) -> Any:
    if not text:
        return None
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FieldInvalid(field=field, problem="is not JSON") from error
    if not isinstance(parsed, kind):
        raise FieldInvalid(field=field, problem=f"must be a JSON {'array' if kind is list else 'object'}")
    return parsed


_ROUTE_FACTS = tuple(each.name for each in fields(Route) if each.name != "candidates")
"""What of a route has the same name and kind in the contract."""


def route(given: Route) -> Any:
    """A route as the contract has it."""
    return router_pb2.Route(
        candidates=[
            router_pb2.Candidate(
                model=each.model,
                role=int(each.role),  # type: ignore[arg-type]
                provider=each.provider,
                deployment=each.deployment,
                input_tokens=each.input_tokens,
                output_tokens_max=each.output_tokens_max,
                likely_output_tokens=each.likely_output_tokens,
                worst_case_usd_nanos=each.worst_case_usd_nanos,
                likely_usd_nanos=each.likely_usd_nanos,
                output_usd_nanos_per_million_tokens=each.output_usd_nanos_per_million_tokens,
                hosted=each.hosted,
                price_source=each.price_source,
                price_unknown=each.price_unknown,
                predicted_quality=each.predicted_quality,
                predicted_latency_ms=each.predicted_latency_ms,
                service_tier=each.service_tier,
                deployments=each.deployments,
            )
            for each in given.candidates
        ],
        **{name: getattr(given, name) for name in _ROUTE_FACTS},
    )


def errand(request: Any, ends_at_s: float, prices: Prices) -> Errand:
    """A route to follow, as it came back from its planner. Raises FieldInvalid for one that no planner made."""
    given = request.route
    check_json(request.messages, request.parameters)
    candidates = tuple(_candidate(each, number) for number, each in enumerate(given.candidates))
    if all(each.role is Role.FALLBACK for each in candidates):
        raise FieldInvalid(field="route.candidates", problem="are all fallbacks")
    followed = Route(
        candidates=candidates,
        **{name: getattr(given, name) for name in _ROUTE_FACTS},
    )
    return Errand(
        route=followed,
        prices=prices,
        service_tier=asked_tier(request.parameters),
        conversation=request.messages,
        parameters=request.parameters,
        task=request.task,
        request_id=request.request_id,
        wants_json=bool(request.parameters.response_format_json) and '"text"' not in request.parameters.response_format_json,
        asked=asked(request.parameters.response_format_json, request.parameters.tools_json),
        ends_at_s=ends_at_s,
        calls_left=given.calls_max,
        scope=request.scope,
        embedding=request.embedding,
        shadow_of=request.shadow_of,
        session=request.session,
        served=_served(request) if request.shadow_of else None,
    )


def _served(request: Any) -> Served | None:
    if not isinstance(request, router_pb2.GenerateRequest) or not request.HasField("served"):
        return None
    given = request.served
    return Served(given.model, given.answer.content, given.answer.finish_reason, given.cost_usd_nanos, given.upstream_us)


def _candidate(each: Any, number: int) -> Candidate:
    if each.role == router_pb2.CANDIDATE_ROLE_UNSPECIFIED:
        raise FieldInvalid(field=f"route.candidates[{number}].role", problem="is not set")
    if each.output_tokens_max < 1:
        raise FieldInvalid(field=f"route.candidates[{number}].output_tokens_max", problem="must be at least 1")
    return Candidate(
        model=each.model,
        role=Role(each.role),
        provider=each.provider,
        deployment=each.deployment,
        input_tokens=each.input_tokens,
        output_tokens_max=each.output_tokens_max,
        likely_output_tokens=each.likely_output_tokens,
        worst_case_usd_nanos=each.worst_case_usd_nanos,
        likely_usd_nanos=each.likely_usd_nanos,
        predicted_quality=each.predicted_quality if each.HasField("predicted_quality") else None,
        predicted_latency_ms=each.predicted_latency_ms if each.HasField("predicted_latency_ms") else None,
        service_tier=each.service_tier,
        deployments=tuple(each.deployments),
    )


def finished(given: Finished) -> Any:
    """What a route came to."""
    attempts = [attempt(each) for each in given.attempts]
    return router_pb2.GenerateResponse(
        answer=chat_pb2.Answer(
            content=given.answer.content, extra_json=given.answer.extra_json, finish_reason=given.answer.finish_reason
        ),
        model=given.model,
        attempts=attempts,
        cost_usd_nanos=sum(each.cost_usd_nanos for each in given.attempts),
        escalated=given.escalated,
        extra_json=given.answer.response_extra_json,
        upstream_us=given.upstream_us,
        confidence=given.confidence,
        reason=given.reason,
    )


def attempt(given: Attempt) -> Any:
    """One attempt."""
    return router_pb2.Attempt(
        model=given.model,
        provider=given.provider,
        deployment=given.deployment,
        outcome=given.outcome.value,  # type: ignore[arg-type]
        reason=given.reason,
        confidence=given.confidence,
        usage=usage(given.tokens),
        cost_usd_nanos=given.cost_usd_nanos,
        latency_ms=given.latency_us // 1000,
        first_token_ms=given.first_token_us // 1000,
        service_tier=given.service_tier,
        price_source=given.price_source,
        price_unknown=given.price_unknown,
        failure_kind=given.failure_kind,
        hedge=given.hedge,
        expected_gain=given.expected_gain,
    )


def piece(given: UpstreamPiece, model: str) -> Any:
    """A piece of a streamed answer."""
    return router_pb2.StreamGenerateResponse(
        delta=router_pb2.StreamGenerateResponse.Delta(content=given.content, extra_json=given.extra_json, model=model)
    )


_COUNTS = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "cached_audio_input_tokens",
    "image_input_tokens",
    "cached_image_input_tokens",
    "image_output_tokens",
    "images",
)


def usage(given: Tokens) -> Any:
    """Tokens as the contract has them."""
    counts = {name: count for name in _COUNTS if (count := getattr(given, name))}
    return chat_pb2.TokenUsage(**counts, estimated=given.estimated, source=int(given.source))  # type: ignore[arg-type]


def tokens(given: Any) -> Tokens:
    """Tokens from the contract's message."""
    source = TokensSource(given.source) if given.source else TokensSource.REPORTED
    return Tokens(
        **{name: getattr(given, name) for name in _COUNTS}, source=TokensSource.ESTIMATED if given.estimated else source
    )


def model(given: Model, prices: Prices) -> Any:
    """A model as it is listed; one without a price has no price source."""
    listed = router_pb2.Model(
        model=given.name,
        provider=given.provider,
        tier=given.tier,
        hosted=given.hosted,
        context_window_tokens=given.context_window_tokens,
        output_tokens_max=given.output_tokens_max,
        encoding=given.encoding,
        capabilities=sorted(given.capabilities),
        output_tokens_max_by_task=given.output_tokens_max_by_task,
        deployments=len(given.deployments),
    )
    try:
        price = prices.of(given)
    except PriceUnknown:
        return listed
    listed.input_usd_nanos_per_million_tokens = price.shown("input")
    listed.output_usd_nanos_per_million_tokens = price.shown("output")
    listed.cached_input_usd_nanos_per_million_tokens = price.shown("cached_input")
    listed.price_source = price.source
    return listed
