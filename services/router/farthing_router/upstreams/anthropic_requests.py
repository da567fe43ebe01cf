"""Requests in the words of Anthropic's Messages: systems lifted out, turns that alternate, blocks for parts, tools and their results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from farthing_router.upstreams import Call
from farthing_router.upstreams.failures import unsupported

JSON_TOOL = "json_answer"
"""The tool that is forced where a schema is asked for and the model has no structured outputs; its input is the answer."""
_JSON_ONLY = "Answer with one JSON object and with nothing else."
_TEMPERATURE_MAX = 1.0
# OpenAI's parameters that have no counterpart, and those that are said otherwise. What is in neither list goes out untouched.
_LEFT_OUT = frozenset(
    "audio best_of frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages modalities model n prediction"
    " presence_penalty prompt_cache_key prompt_cache_retention seed store stream stream_options system tools top_logprobs verbosity"
    " web_search_options".split()
)
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_EFFORTS = {"minimal": "low"}


def request_fields(call: Call, *, stream: bool) -> dict[str, Any]:
    """The fields of a request. Raises UpstreamFailed for what Anthropic has no words for."""
    given, wire = call.parameters, call.deployment.wire
    asked: dict[str, Any] = orjson.loads(given.extra_json) if given.extra_json else {}
    for name in wire.omit:
        asked.pop(name, None)
    systems, turns = _conversation(call.conversation)
    body: dict[str, Any] = {"model": call.deployment.upstream_model, "max_tokens": call.output_tokens_max, "messages": turns}
    if given.HasField("temperature"):
        body["temperature"] = min(_TEMPERATURE_MAX, given.temperature)
    if given.HasField("top_p"):
        body["top_p"] = given.top_p
    if given.stop:
        body["stop_sequences"] = list(given.stop)
    if given.tools_json:
        body["tools"] = [_tool(each) for each in orjson.loads(given.tools_json)]
    _take_over(body, asked)
    if given.response_format_json:
        _take_format(body, orjson.loads(given.response_format_json), systems, by_tool=wire.json_schema == "tool")
    if systems:
        body["system"] = systems[0]["text"] if len(systems) == 1 and len(systems[0]) == 2 else systems
    if stream:
        body["stream"] = True
    return wire.adapt(body)


def _take_over(body: dict[str, Any], asked: dict[str, Any]) -> None:
    """The other parameters: OpenAI's in Anthropic's words, Anthropic's own untouched."""
    user = asked.pop("safety_identifier", None) or asked.pop("user", None)
    asked.pop("user", None)
    metadata = asked.pop("metadata", None)
    if isinstance(metadata, dict) and "user_id" in metadata:
        body["metadata"] = {"user_id": metadata["user_id"]}
    elif user:
        body["metadata"] = {"user_id": user}
    if asked.get("service_tier") not in ("auto", "standard_only"):
        asked.pop("service_tier", None)
    choice, parallel = asked.pop("tool_choice", None), asked.pop("parallel_tool_calls", None)
    if body.get("tools") and (choice is not None or parallel is False):
        body["tool_choice"] = _tool_choice(choice, parallel)
    effort = asked.pop("reasoning_effort", None)
    if effort and effort != "none":
        body["output_config"] = {"effort": _EFFORTS.get(effort, effort)}
    for name, value in asked.items():
        if name not in _LEFT_OUT:
            body[name] = {**body[name], **value} if name == "output_config" and name in body else value


def _tool_choice(choice: Any, parallel: Any) -> dict[str, Any]:
    if isinstance(choice, dict):
        function = choice.get("function")
        said = {"type": "tool", "name": function["name"]} if isinstance(function, dict) else dict(choice)
    else:
        said = {"type": _TOOL_CHOICES.get(choice or "auto", "auto")}
    if parallel is False and said["type"] != "none":
        said["disable_parallel_tool_use"] = True
    return said


def _tool(given: dict[str, Any]) -> dict[str, Any]:
    function = given.get("function")
    if not isinstance(function, dict):
        return given  # one of Anthropic's own
    tool = {"name": function.get("name"), "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}
    for name in ("description", "strict", "cache_control"):
        value = function.get(name, given.get(name))
        if value is not None:
            tool[name] = value
    return tool


def _take_format(body: dict[str, Any], asked: dict[str, Any], systems: list[dict[str, Any]], *, by_tool: bool) -> None:
    kind = asked.get("type")
    described = asked.get("json_schema") or {}
    if kind not in ("json_schema", "json_object"):
        return
    schema = described.get("schema") if kind == "json_schema" else None
    if by_tool and not body.get("tools"):
        tool = {"name": JSON_TOOL, "input_schema": schema or {"type": "object"}}
        body["tools"] = [{**tool, "description": described.get("description") or "Gives the answer."}]
        body["tool_choice"] = {"type": "tool", "name": JSON_TOOL}
    elif schema is not None and not by_tool:
        form = {"type": "json_schema", "schema": schema}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    else:
        more = "" if schema is None else f" It must fit this JSON schema: {orjson.dumps(schema).decode()}"
        systems.append({"type": "text", "text": _JSON_ONLY + more})


def _conversation(messages: Iterable[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What systems say, and the turns; messages of one side that follow one another are one turn."""
    systems: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        aside: dict[str, Any] = orjson.loads(message.extra_json) if message.extra_json else {}
        blocks = _blocks(message, aside)
        if blocks and "cache_control" in aside:
            blocks[-1] = {**blocks[-1], "cache_control": aside["cache_control"]}
        if message.role in ("system", "developer"):
            systems += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant" and turns[-1]["content"][-1].get("type") == "text":
        # An answer that is to be continued may not end in white space.
        last = turns[-1]["content"][-1]
        turns[-1]["content"][-1] = {**last, "text": last["text"].rstrip()}
    return systems, turns


def _blocks(message: Any, aside: dict[str, Any]) -> list[dict[str, Any]]:
    content = _content(message)
    if message.role in ("tool", "function"):
        result = {"type": "tool_result", "tool_use_id": aside.get("tool_call_id") or aside.get("name") or ""}
        result["content"] = message.content if message.content and not message.content_parts_json else content
        return [{**result, "is_error": True} if aside.get("is_error") else result]
    if message.role != "assistant":
        return content
    thoughts = aside.get("thinking_blocks") or []
    calls = [_tool_use(call) for call in aside.get("tool_calls") or ()]
    if isinstance(legacy := aside.get("function_call"), dict):
        calls.append(_tool_use({"id": legacy.get("name"), "function": legacy}))
    return [*thoughts, *content, *calls]


def _content(message: Any) -> list[dict[str, Any]]:
    if not message.content_parts_json:
        return [{"type": "text", "text": message.content}] if message.content else []
    parts = [_part(part) for part in orjson.loads(message.content_parts_json)]
    return [part for part in parts if part.get("type") != "text" or part.get("text")]


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        return {"type": "text", "text": str(part)}
    kind = part.get("type")
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url", "") if isinstance(image, dict) else str(image or "")
        return {"type": "image", "source": _source(url), **_cache_control(part)}
    if kind == "file" and isinstance(file := part.get("file"), dict):
        source = {"type": "file", "file_id": file["file_id"]} if file.get("file_id") else _source(file.get("file_data") or "")
        return {"type": "document", "source": source, **_cache_control(part)}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if kind == "input_audio":
        raise unsupported("Anthropic's wire has no words for audio")
    return part


def _source(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url[5:].partition(",")
    if not head.endswith(";base64"):
        raise unsupported("an image or file that is given as a data URL must be in base64")
    return {"type": "base64", "media_type": head[:-7] or "image/png", "data": data}


def _cache_control(part: dict[str, Any]) -> dict[str, Any]:
    return {"cache_control": part["cache_control"]} if part.get("cache_control") else {}


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments") or "{}"
    try:
        given = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        given = {"arguments": arguments}
    return {"type": "tool_use", "id": call.get("id") or "", "name": function.get("name") or "", "input": given}
