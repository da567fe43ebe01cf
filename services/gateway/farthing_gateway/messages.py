"""Between OpenAI's JSON and the orchestrator's messages."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from farthing.chat.v1 import chat_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing_core.errors import FieldInvalid

from farthing_gateway.keys import Caller

_CACHE_MODES = {
    "off": orchestrator_pb2.CACHE_MODE_OFF,
    "exact": orchestrator_pb2.CACHE_MODE_EXACT,
    "semantic": orchestrator_pb2.CACHE_MODE_SEMANTIC,
}
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_YES_OR_NO = {"true": True, "1": True, "false": False, "0": False, "": False}
_RECEIPT_WORDS = {"full": True, "none": False, **_YES_OR_NO}
_MESSAGES_MAX = 10_000
_OUTPUT_TOKENS_MAX = 10_000_000
_CACHE_TTL_S_MAX = 31_536_000
_WHOLE_NUMBER = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants: the request in the orchestrator's words, and how the answer is to come."""

    request: Any
    stream: bool
    with_usage: bool
    receipt: bool


def wish_of(body: dict[str, Any], headers: Mapping[str, str], caller: Caller) -> Wish:
    """Reads a body of OpenAI's and our headers. Takes from `body` what it knows; the rest is passed through untouched.

    Raises FieldInvalid, naming the field or header, for what cannot be.
    """
    stream = _flag(body.pop("stream", None), field="stream")
    options = _object(body.pop("stream_options", None), field="stream_options")
    with_usage = _flag(options.get("include_usage"), field="stream_options.include_usage")
    receipt = _wants_receipt(body.pop("farthing", None), headers)
    return Wish(_complete_request(body, headers, caller), stream, with_usage, receipt)


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's text, empty when it is absent. Raises FieldInvalid when it is not UTF-8."""
    value = headers.get(name, "")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise FieldInvalid(field=name, problem="must be text in UTF-8") from error
    return value


def _complete_request(body: dict[str, Any], headers: Mapping[str, str], caller: Caller) -> Any:
    model = body.pop("model", None)
    if not isinstance(model, str) or not model:
        raise FieldInvalid(field="model", problem="must be a model's name, or farthing/auto")
    request = orchestrator_pb2.CompleteRequest(
        request_id=_request_id(headers.get("x-farthing-request-id")),
        scope=caller.scope,
        model=model,
        task=header(headers, "x-farthing-task"),
        tier=header(headers, "x-farthing-tier"),
        messages=_messages(body.pop("messages", None)),
        tags=_words(headers, "x-farthing-tags"),
        service=header(headers, "x-farthing-service"),
        domain=header(headers, "x-farthing-domain"),
        key_id=caller.key_id,
    )
    _fill_parameters(request.parameters, body)
    _fill_overrides(request, headers)
    return request


def _wants_receipt(asked: Any, headers: Mapping[str, str]) -> bool:
    wishes = _object(asked, field="farthing")
    for name in wishes:
        if name != "receipt":
            raise FieldInvalid(field=f"farthing.{name[:60]}", problem='is unknown; only {"receipt": true} is')
    return _word(headers, "x-farthing-receipt", _RECEIPT_WORDS) or _flag(wishes.get("receipt"), field="farthing.receipt")


def _word(headers: Mapping[str, str], name: str, words: Mapping[str, bool]) -> bool:
    given = headers.get(name, "").lower()
    if given not in words:
        raise FieldInvalid(field=name, problem=f"must be one of {', '.join(filter(None, words))}")
    return words[given]


def _flag(given: Any, *, field: str) -> bool:
    if given is not None and not isinstance(given, bool):
        raise FieldInvalid(field=field, problem="must be true or false")
    return bool(given)


def _object(given: Any, *, field: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, dict):
        raise FieldInvalid(field=field, problem="must be an object")
    return given or {}


def _words(headers: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in header(headers, name).split(",") if word.strip()]


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
    if not isinstance(role, str) or role not in _ROLES:
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
    mode, ttl = headers.get("x-farthing-cache"), headers.get("x-farthing-cache-ttl-s")
    if mode is not None:
        if mode not in _CACHE_MODES:
            raise FieldInvalid(field="x-farthing-cache", problem=f"must be one of {', '.join(_CACHE_MODES)}")
        request.overrides.cache_mode = _CACHE_MODES[mode]
    if ttl is not None:
        if not _WHOLE_NUMBER.fullmatch(ttl) or int(ttl) > _CACHE_TTL_S_MAX:
            problem = f"must be a whole number of seconds, at most {_CACHE_TTL_S_MAX}"
            raise FieldInvalid(field="x-farthing-cache-ttl-s", problem=problem)
        request.overrides.cache_ttl_s = int(ttl)
    if _word(headers, "x-farthing-critical", _YES_OR_NO):
        request.overrides.critical = True
    providers = _words(headers, "x-farthing-providers")
    if providers:
        request.overrides.allowed_providers.extend(providers)
