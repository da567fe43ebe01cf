"""Anthropic's Messages: their requests, answers, and the events of their streams, in OpenAI's words."""

from __future__ import annotations

import re
from typing import Any

import orjson

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamPiece
from farthing_router.upstreams.anthropic_requests import JSON_TOOL, request_fields
from farthing_router.upstreams.exchange import Outgoing
from farthing_router.upstreams.failures import error_in_stream, garbage
from farthing_router.upstreams.openai_wire import with_query
from farthing_router.upstreams.payloads import read_usage

ANTHROPIC_VERSION = "2023-06-01"
"""The version of the interface, unless farthing.yaml sets the header itself."""
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_KNOWN_FIELDS = frozenset({"id", "type", "role", "model", "content", "stop_reason", "usage"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_NONSENSE = (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError, ValueError)
_BLOCKS_MAX = 10_000


class AnthropicFormat:
    """The WireFormat of Anthropic."""

    bills_refusals = False

    def outgoing(self, call: Call, *, stream: bool) -> Outgoing:
        """The request."""
        url = with_query(anthropic_url(call.deployment.base_url, "messages"), call.deployment)
        headers = {**anthropic_headers(call.deployment), "x-request-id": call.request_id}
        return Outgoing(url, headers, orjson.dumps(request_fields(call, stream=stream)))

    def answer(self, raw: bytes) -> UpstreamAnswer:
        """The answer in a body."""
        try:
            return answer_of(orjson.loads(raw))
        except _NONSENSE as error:
            raise garbage("the answer is no Anthropic message") from error

    def assembly(self) -> AnthropicAssembly:
        """For a streamed answer."""
        return AnthropicAssembly()


def anthropic_url(base_url: str, path: str) -> str:
    """An address; the base may be written with or without its version."""
    return f"{base_url}/{path}" if re.search(r"/v\d+$", base_url) else f"{base_url}/v1/{path}"


def anthropic_headers(deployment: Deployment) -> dict[str, str]:
    """The headers, with the key in its own."""
    wire = deployment.wire
    headers = {"content-type": "application/json", "anthropic-version": ANTHROPIC_VERSION}
    if deployment.api_key:
        headers[wire.api_key_header or "x-api-key"] = deployment.api_key
    headers.update(wire.headers)
    return headers


def answer_of(parsed: dict[str, Any]) -> UpstreamAnswer:
    """The answer in a message. Raises UpstreamFailed for an error that comes with status 200."""
    if parsed.get("type") == "error":
        raise error_in_stream(parsed["error"], may_be_billed=False)
    message = _Message()
    for block in parsed["content"]:
        message.take(block)
    more = {name: parsed[name] for name in parsed.keys() - _KNOWN_FIELDS if parsed[name] is not None}
    return message.answer(stop_reason=parsed.get("stop_reason"), usage={"usage": parsed.get("usage")}, more=more)


class _Message:
    """What the blocks of a message come to."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._tool_calls: list[dict[str, Any]] = []
        self._thoughts: list[dict[str, Any]] = []
        self._citations: list[Any] = []
        self._others: list[dict[str, Any]] = []
        self._by_tool = False

    def take(self, block: dict[str, Any]) -> None:
        """One more block."""
        kind = block["type"]
        if kind == "text":
            self._content.append(_text(block["text"]))
            self._citations += block.get("citations") or ()
        elif kind == "tool_use" and block["name"] == JSON_TOOL:
            self._by_tool = True
            self._content.append(_arguments(block))
        elif kind == "tool_use":
            function = {"name": block["name"], "arguments": _arguments(block)}
            self._tool_calls.append({"id": block["id"], "type": "function", "function": function})
        elif kind in _THOUGHTS:
            self._thoughts.append(block)
        else:
            self._others.append(block)

    def answer(self, *, stop_reason: Any, usage: dict[str, Any], more: dict[str, Any]) -> UpstreamAnswer:
        """The whole."""
        extra: dict[str, Any] = {}
        if self._thoughts:
            extra["reasoning_content"] = "".join(block.get("thinking") or "" for block in self._thoughts)
            extra["thinking_blocks"] = self._thoughts
        if self._tool_calls:
            extra["tool_calls"] = self._tool_calls
        if self._citations:
            extra["citations"] = self._citations
        if self._others:
            extra["content_blocks"] = self._others
        reason = _FINISH_REASONS.get(stop_reason, str(stop_reason or "stop"))
        return UpstreamAnswer(
            content="".join(self._content),
            extra_json=orjson.dumps(extra).decode() if extra else "",
            finish_reason="stop" if self._by_tool and reason == "tool_calls" else reason,
            response_extra_json=orjson.dumps(more).decode() if more else "",
            usage=read_usage(usage),
        )


class AnthropicAssembly:
    """Puts a stream of events together, block by block."""

    def __init__(self) -> None:
        self.ended = False
        self._message = _Message()
        self._blocks: dict[int, dict[str, Any]] = {}
        self._parts: dict[int, list[str]] = {}
        self._calls: dict[int, int] = {}
        self._usage: dict[str, Any] = {}
        self._more: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._heard = False

    @property
    def whole(self) -> bool:
        """Whether the message said why it stopped."""
        return self._stop_reason is not None

    def take(self, event: bytes) -> UpstreamPiece | None:
        """The piece in an event."""
        try:
            said = orjson.loads(event)
            kind = said["type"]
            if kind == "content_block_delta":
                return self._delta(said["index"], said["delta"])
            if kind == "content_block_start":
                return self._begin(said["index"], said["content_block"])
            if kind == "content_block_stop":
                return self._end(said["index"])
            if kind == "message_start":
                self._more = _others(said["message"])
                self._usage = dict(said["message"].get("usage") or {})
            elif kind == "message_delta":
                self._stop_reason = said["delta"].get("stop_reason") or self._stop_reason
                self._more |= {
                    name: value for name, value in said["delta"].items() if name != "stop_reason" and value is not None
                }
                # Counts are running totals, and the later event may leave some out.
                self._usage |= {name: value for name, value in (said.get("usage") or {}).items() if value is not None}
            elif kind == "message_stop":
                self.ended = True
            elif kind == "error":
                raise error_in_stream(said["error"], may_be_billed=self._heard)
        except _NONSENSE as error:
            raise garbage("the stream is no stream of an Anthropic message") from error
        return None

    def answer(self) -> UpstreamAnswer:
        """The whole."""
        try:
            for index in sorted(self._blocks):
                self._close(index)
            return self._message.answer(stop_reason=self._stop_reason, usage={"usage": self._usage}, more=self._more)
        except _NONSENSE as error:
            raise garbage("the stream is no stream of an Anthropic message") from error

    def _begin(self, index: int, block: dict[str, Any]) -> UpstreamPiece | None:
        if len(self._parts) >= _BLOCKS_MAX:
            raise ValueError(_BLOCKS_MAX)
        self._blocks[index], self._parts[index] = dict(block), []
        if block["type"] == "tool_use" and block["name"] != JSON_TOOL:
            self._calls[index] = number = len(self._calls)
            function = {"name": block["name"], "arguments": ""}
            return self._piece(tool_calls=[{"index": number, "id": block["id"], "type": "function", "function": function}])
        if block["type"] == "text" and block.get("text"):
            return self._text(index, _text(block["text"]))
        return None

    def _delta(self, index: int, delta: dict[str, Any]) -> UpstreamPiece | None:
        block, kind = self._blocks[index], delta["type"]
        if kind == "text_delta":
            return self._text(index, _text(delta["text"]))
        if kind == "input_json_delta":
            part = _text(delta["partial_json"])
            self._parts[index].append(part)
            if index in self._calls:
                return (
                    self._piece(tool_calls=[{"index": self._calls[index], "function": {"arguments": part}}]) if part else None
                )
            return self._piece(part) if block.get("name") == JSON_TOOL and part else None
        if kind == "thinking_delta":
            self._parts[index].append(_text(delta["thinking"]))
            return self._piece(reasoning_content=delta["thinking"])
        if kind == "signature_delta":
            block["signature"] = (block.get("signature") or "") + delta["signature"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
            return self._piece(citations=[delta["citation"]])
        return None

    def _end(self, index: int) -> UpstreamPiece | None:
        block = self._blocks[index]
        if block["type"] in _THOUGHTS:  # with its signature: it is to be sent back as it is
            return self._piece(thinking_blocks=[_thought(block, self._parts[index])])
        if index in self._calls and not self._parts[index]:
            arguments = _arguments(block)
            return self._piece(tool_calls=[{"index": self._calls[index], "function": {"arguments": arguments}}])
        return None

    def _close(self, index: int) -> None:
        block, parts = self._blocks[index], self._parts[index]
        if block["type"] == "text":
            block = {**block, "text": "".join(parts)}
        elif block["type"] in _THOUGHTS:
            block = _thought(block, parts)
        elif parts:
            block = {**block, "input": "".join(parts)}
        self._message.take(block)

    def _text(self, index: int, text: str) -> UpstreamPiece | None:
        self._parts[index].append(text)
        return self._piece(text) if text else None

    def _piece(self, text: str = "", **extra: Any) -> UpstreamPiece:
        self._heard = True
        return UpstreamPiece(text, orjson.dumps(extra).decode() if extra else "")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value


def _thought(block: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    return {**block, "thinking": "".join(parts)} if block["type"] == "thinking" and parts else block


def _arguments(block: dict[str, Any]) -> str:
    given = block.get("input")
    return given if isinstance(given, str) else orjson.dumps(given or {}).decode()


def _others(message: dict[str, Any]) -> dict[str, Any]:
    return {name: message[name] for name in message.keys() - _KNOWN_FIELDS if message[name] is not None}
