"""Between OpenAI's JSON and the orchestrator's messages."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from farthing.chat.v1 import chat_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing_core.errors import FieldInvalid

_CACHE_MODES = {
    "off": orchestrator_pb2.CACHE_MODE_OFF,
    "exact": orchestrator_pb2.CACHE_MODE_EXACT,
    "semantic": orchestrator_pb2.CACHE_MODE_SEMANTIC,
}
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_TRUE = frozenset({"1", "true", "yes", "full"})
_MESSAGES_MAX = 10_000
_OUTPUT_TOKENS_MAX = 10_000_000


def complete_request(body: dict[str, Any], headers: Mapping[str, str], scope: str) -> Any:
    """The request in the orchestrator's words. Takes from `body` what it knows; the rest is passed through untouched.

    Raises FieldInvalid, naming the field or header, for what cannot be.
    """
    body.pop("stream", None)
    body.pop("stream_options", None)
    model = body.pop("model", None)
    if not isinstance(model, str) or not model:
        raise FieldInvalid(field="model", problem="must be a model's name, or farthing/auto")
    request = orchestrator_pb2.CompleteRequest(
        request_id=_request_id(headers.get("x-farthing-request-id")),
        scope=scope,
        model=model,
        task=headers.get("x-farthing-task", ""),
        tier=headers.get("x-farthing-tier", ""),
        messages=_messages(body.pop("messages", None)),
        tags=[tag.strip() for tag in headers.get("x-farthing-tags", "").split(",") if tag.strip()],
    )
    _fill_parameters(request.parameters, body)
    _fill_overrides(request, headers)
    return request


def wants_receipt(body: dict[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether the receipt is to come in the body too; takes the wish out of the body."""
    asked = body.pop("farthing", None)
    if asked is not None and not isinstance(asked, dict):
        raise FieldInvalid(field="farthing", problem='must be an object such as {"receipt": true}')
    return bool(asked and asked.get("receipt")) or headers.get("x-farthing-receipt", "").lower() in _TRUE


def _request_id(given: str | None) -> str:
    if not given:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError as error:
        raise FieldInvalid(field="x-farthing-request-id", problem="must be a UUID") from error


def _messages(given: Any) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise FieldInvalid(field="messages", problem="must be a list of at least one message")
    if len(given) > _MESSAGES_MAX:
        raise FieldInvalid(field="messages", problem=f"has {len(given)} messages; at most {_MESSAGES_MAX}")
    return [_message(message, number) for number, message in enumerate(given)]


def _message(given: Any, number: int) -> Any:
    if not isinstance(given, dict):
        raise FieldInvalid(field=f"messages[{number}]", problem="must be an object")
    role, content = given.pop("role", None), given.pop("content", None)
    if role not in _ROLES:
        raise FieldInvalid(field=f"messages[{number}].role", problem=f"must be one of {', '.join(sorted(_ROLES))}")
    message = chat_pb2.ChatMessage(role=role)
    if isinstance(content, str):
        message.content = content
    elif isinstance(content, list):
        message.content_parts_json = orjson.dumps(content).decode()
    elif content is not None:
        raise FieldInvalid(field=f"messages[{number}].content", problem="must be text or a list of parts")
    if given:
        message.extra_json = orjson.dumps(given).decode()
    elif content is None:
        raise FieldInvalid(field=f"messages[{number}].content", problem="is missing")
    return message


def _fill_parameters(parameters: Any, body: dict[str, Any]) -> None:
    for name, low, high in (("temperature", 0.0, 2.0), ("top_p", 0.0, 1.0)):
        value = body.pop(name, None)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise FieldInvalid(field=name, problem=f"must be a number from {low:g} to {high:g}")
            setattr(parameters, name, float(value))
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.pop(name, None)
        if limit is not None:
            if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= _OUTPUT_TOKENS_MAX:
                raise FieldInvalid(field=name, problem=f"must be a whole number from 1 to {_OUTPUT_TOKENS_MAX}")
            parameters.output_tokens_max = limit
    _fill_stop(parameters, body.pop("stop", None))
    seed = body.pop("seed", None)
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
            raise FieldInvalid(field="seed", problem="must be a whole number of 64 bits")
        parameters.seed = seed
    if body.get("n", 1) not in (1, None):
        raise FieldInvalid(field="n", problem="must be 1: one answer a request")
    body.pop("n", None)
    for name, kind in (("tools", list), ("response_format", dict)):
        value = body.pop(name, None)
        if value is not None:
            if not isinstance(value, kind):
                raise FieldInvalid(field=name, problem=f"must be {'a list' if kind is list else 'an object'}")
            setattr(parameters, f"{name}_json", orjson.dumps(value).decode())
    if body:
        parameters.extra_json = orjson.dumps(body).decode()


def _fill_stop(parameters: Any, stop: Any) -> None:
    if stop is None:
        return
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 16 or not all(isinstance(text, str) for text in stops):
        raise FieldInvalid(field="stop", problem="must be a text or a list of at most 16 texts")
    parameters.stop.extend(stops)


def _fill_overrides(request: Any, headers: Mapping[str, str]) -> None:
    mode, ttl, providers = (headers.get(f"x-farthing-{name}") for name in ("cache", "cache-ttl-s", "providers"))
    if mode is not None:
        if mode not in _CACHE_MODES:
            raise FieldInvalid(field="x-farthing-cache", problem=f"must be one of {', '.join(_CACHE_MODES)}")
        request.overrides.cache_mode = _CACHE_MODES[mode]
    if ttl is not None:
        if not ttl.isdigit() or int(ttl) > 31_536_000:
            raise FieldInvalid(field="x-farthing-cache-ttl-s", problem="must be a whole number of seconds, at most 31536000")
        request.overrides.cache_ttl_s = int(ttl)
    if providers is not None:
        request.overrides.allowed_providers.extend(name.strip() for name in providers.split(",") if name.strip())
