"""Requests: a prompt or a conversation, and what may be said about it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from farthing.chat.v1 import chat_pb2
from farthing.orchestrator.v1 import orchestrator_pb2

Message = Mapping[str, Any]
"""A message in OpenAI's shape: `{"role": "user", "content": "…"}`."""

AUTO = "farthing/auto"
_PARAMETERS = ("temperature", "top_p", "output_tokens_max", "seed")
_CACHE_MODES = {
    "off": orchestrator_pb2.CACHE_MODE_OFF,
    "exact": orchestrator_pb2.CACHE_MODE_EXACT,
    "semantic": orchestrator_pb2.CACHE_MODE_SEMANTIC,
}


class Options(TypedDict, total=False):
    """What may be said about a request; the suite's policy and the model's defaults decide the rest.

    `model` is a model's name (`farthing/auto` lets the router choose), `scope` who is charged, `task` what it is for, `extra` an object
    with further parameters of the provider. `tags`, `service` and `domain` are what usage can be summed by. `critical` work may go beyond
    a budget's limit where the policy allows that. `timeout_s` bounds the whole call.
    """

    model: str
    scope: str
    task: str
    tier: str
    tags: Sequence[str]
    service: str
    domain: str
    critical: bool
    temperature: float
    top_p: float
    output_tokens_max: int
    stop: str | Sequence[str]
    seed: int
    tools: Sequence[Mapping[str, Any]]
    response_format: Mapping[str, Any]
    extra: Mapping[str, Any]
    cache: Literal["off", "exact", "semantic"]
    cache_ttl_s: int
    providers: Sequence[str]
    request_id: str
    timeout_s: float


def request_of(prompt: str | Sequence[Message], options: Options, *, scope: str) -> Any:
    """The `CompleteRequest` of a prompt, or of a conversation in OpenAI's shape.

    Raises ValueError for a cache mode that does not exist; the suite checks everything else.
    """
    request = orchestrator_pb2.CompleteRequest(
        request_id=options.get("request_id") or str(uuid.uuid4()),
        scope=options.get("scope", scope),
        model=options.get("model", AUTO),
        task=options.get("task", ""),
        tier=options.get("tier", ""),
        tags=options.get("tags", ()),
        service=options.get("service", ""),
        domain=options.get("domain", ""),
        messages=[_message(message) for message in _conversation(prompt)],
    )
    _fill_parameters(request.parameters, options)
    if "cache" in options:
        mode = _CACHE_MODES.get(options["cache"])
        if mode is None:
            raise ValueError(f"cache must be one of {', '.join(_CACHE_MODES)}, not {options['cache']!r}")
        request.overrides.cache_mode = mode
    if "cache_ttl_s" in options:
        request.overrides.cache_ttl_s = options["cache_ttl_s"]
    if options.get("critical"):
        request.overrides.critical = True
    request.overrides.allowed_providers.extend(options.get("providers", ()))
    return request


def _conversation(prompt: str | Sequence[Message]) -> Sequence[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _message(given: Message) -> Any:
    rest = {name: value for name, value in given.items() if name not in ("role", "content")}
    content = given.get("content")
    return chat_pb2.ChatMessage(
        role=given.get("role", ""),
        content=content if isinstance(content, str) else "",
        content_parts_json="" if content is None or isinstance(content, str) else json.dumps(content),
        extra_json=json.dumps(rest) if rest else "",
    )


def _fill_parameters(parameters: Any, options: Options) -> None:
    given: Mapping[str, Any] = options
    for name in _PARAMETERS:
        if given.get(name) is not None:
            setattr(parameters, name, given[name])
    stop = given.get("stop") or ()
    parameters.stop.extend([stop] if isinstance(stop, str) else stop)
    for name in ("tools", "response_format", "extra"):
        if given.get(name):
            setattr(parameters, f"{name}_json", json.dumps(given[name]))
