"""Requests in the words of Cohere's chat, version 2: OpenAI's messages and tools, and its own names for the rest."""

from __future__ import annotations

from typing import Any

import orjson

from farthing_router.upstreams import Call
from farthing_router.upstreams.failures import unsupported

# OpenAI's parameters that have no counterpart, and those that are said otherwise. What is in neither list goes out untouched.
_LEFT_OUT = frozenset(
    "audio best_of logit_bias max_completion_tokens max_tokens messages metadata modalities model n parallel_tool_calls prediction"
    " prompt_cache_key prompt_cache_retention safety_identifier service_tier store stream stream_options tools top_logprobs user"
    " verbosity web_search_options".split()
)
_RENAMED = {"top_k": "k", "top_p": "p"}


def request_fields(call: Call, *, stream: bool) -> dict[str, Any]:
    """The fields of a request. Raises UpstreamFailed for what Cohere has no words for."""
    given, wire = call.parameters, call.deployment.wire
    asked: dict[str, Any] = orjson.loads(given.extra_json) if given.extra_json else {}
    for name in wire.omit:
        asked.pop(name, None)
    body: dict[str, Any] = {
        "model": call.deployment.upstream_model,
        "messages": [_message(each) for each in call.conversation],
        "max_tokens": call.output_tokens_max,
    }
    if given.HasField("temperature"):
        body["temperature"] = given.temperature
    if given.HasField("top_p"):
        body["p"] = given.top_p
    if given.HasField("seed"):
        body["seed"] = given.seed
    if given.stop:
        body["stop_sequences"] = list(given.stop)
    if given.tools_json:
        body["tools"] = orjson.loads(given.tools_json)
    if given.response_format_json:
        body["response_format"] = _format(orjson.loads(given.response_format_json))
    _take_over(body, asked)
    if stream:
        body["stream"] = True
    return wire.adapt(body)


def _take_over(body: dict[str, Any], asked: dict[str, Any]) -> None:
    choice, effort = asked.pop("tool_choice", None), asked.pop("reasoning_effort", None)
    if isinstance(choice, dict) and body.get("tools"):  # one tool: the only one it is told of, and must call
        name = (choice.get("function") or {}).get("name")
        body["tools"] = [each for each in body["tools"] if (each.get("function") or {}).get("name") == name]
        choice = "required"
    if choice in ("required", "none") and body.get("tools"):
        body["tool_choice"] = choice.upper()
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    for name, value in asked.items():
        if name not in _LEFT_OUT:
            body[_RENAMED.get(name, name)] = value


def _format(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.get("type") != "json_schema":
        return asked
    schema = (asked.get("json_schema") or {}).get("schema")
    return {"type": "json_object", **({"json_schema": schema} if schema else {})}


def _message(given: Any) -> dict[str, Any]:
    aside: dict[str, Any] = orjson.loads(given.extra_json) if given.extra_json else {}
    role = {"developer": "system", "function": "tool"}.get(given.role, given.role)
    message: dict[str, Any] = {"role": role}
    content: Any = given.content
    if given.content_parts_json:
        content = orjson.loads(given.content_parts_json)
        if any(isinstance(part, dict) and part.get("type") == "input_audio" for part in content):
            raise unsupported("Cohere's wire has no words for audio")
    if role == "tool":
        return {**message, "tool_call_id": aside.get("tool_call_id") or aside.get("name") or "", "content": content}
    if role == "assistant" and aside.get("tool_calls"):
        message["tool_calls"] = aside["tool_calls"]
        # What is said before a call is its plan.
        plan = aside.get("tool_plan") or given.content
        return {**message, "tool_plan": plan} if plan else message
    message["content"] = content
    if aside.get("citations"):
        message["citations"] = aside["citations"]
    return message
