"""What providers say: whole answers, streams, refusals and limits, each on its own wire."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Protocol

TEXT = "forty-two"
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Kyiv"}'}},
    {"id": "c2", "type": "function", "function": {"name": "time", "arguments": '{"zone": "EET"}'}},
]


def event(body: Any, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(body).encode() + b"\n\n"


class Dialect(Protocol):
    """A wire as its provider documents it."""

    path: str
    limits: ClassVar[dict[str, Any]]

    def whole(self, *, tools: bool = False) -> dict[str, Any]: ...

    def events(self, *, tools: bool = False) -> list[bytes]: ...

    def piece(self, text: str) -> bytes: ...

    def refusal(self, status: int, message: str, code: str = "") -> dict[str, Any]: ...


class OpenAI:
    """OpenAI's chat completions."""

    path = "/v1/chat/completions"
    limits: ClassVar[dict[str, Any]] = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    usage: ClassVar[dict[str, Any]] = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4},
    }

    _head: ClassVar[dict[str, Any]] = {"id": "x", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "m"}

    def whole(self, *, tools: bool = False) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None if tools else TEXT, "refusal": None}
        if tools:
            message["tool_calls"] = CALLS
        finish = "tool_calls" if tools else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        head = {"id": "x", "object": "chat.completion", "created": 1_750_000_000, "model": "m"}
        return {**head, "choices": [choice], "usage": self.usage}

    def events(self, *, tools: bool = False) -> list[bytes]:
        said = [self._chunk({"role": "assistant", "content": ""})]
        if tools:
            for index, call in enumerate(CALLS):
                function = call["function"]
                begun = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}  # type: ignore[index]
                said.append(self._chunk({"tool_calls": [begun]}))
                arguments = function["arguments"]  # type: ignore[index]
                for part in (arguments[:5], arguments[5:]):
                    said.append(self._chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]}))
        else:
            said += [self.piece("forty"), self.piece("-two")]
        said.append(self._chunk({}, "tool_calls" if tools else "stop"))
        return [*said, event({**self._head, "choices": [], "usage": self.usage}), b"data: [DONE]\n\n"]

    def piece(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def refusal(self, status: int, message: str, code: str = "") -> dict[str, Any]:
        return {"error": {"message": message, "type": "some_error", "code": code or None, "param": None}}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


class Azure(OpenAI):
    """Azure's: filters speak before the model does, and in every chunk."""

    path = "/openai/deployments/{model}/chat/completions"
    limits: ClassVar[dict[str, Any]] = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984"}
    _safe: ClassVar[dict[str, Any]] = {"hate": {"filtered": False, "severity": "safe"}}

    def whole(self, *, tools: bool = False) -> dict[str, Any]:
        body = super().whole(tools=tools)
        body["choices"][0]["content_filter_results"] = self._safe
        return {**body, "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": self._safe}]}

    def events(self, *, tools: bool = False) -> list[bytes]:
        filtered = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": self._safe}]}
        return [event(filtered), *super().events(tools=tools)]


class Anthropic:
    """Anthropic's messages."""

    path = "/v1/messages"
    limits: ClassVar[dict[str, Any]] = {
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2099-01-01T00:00:00Z",
        "anthropic-ratelimit-tokens-remaining": "149984",
        "anthropic-ratelimit-tokens-reset": "2099-01-01T00:00:00Z",
        "request-id": "req_1",
    }
    usage: ClassVar[dict[str, Any]] = {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 3,
    }

    def whole(self, *, tools: bool = False) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": TEXT}]
        if tools:
            content = [
                {
                    "type": "tool_use",
                    "id": call["id"],
                    "name": call["function"]["name"],  # type: ignore[index]
                    "input": json.loads(call["function"]["arguments"]),  # type: ignore[index]
                }
                for call in CALLS
            ]
        reason = "tool_use" if tools else "end_turn"
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content}
        return {**message, "stop_reason": reason, "stop_sequence": None, "usage": self.usage}

    def events(self, *, tools: bool = False) -> list[bytes]:
        opening = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
        opening["usage"] = {**self.usage, "output_tokens": 1}
        said = [event({"type": "message_start", "message": opening}, "message_start"), event({"type": "ping"}, "ping")]
        if tools:
            for index, call in enumerate(CALLS):
                block = {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": {}}  # type: ignore[index]
                said.append(event({"type": "content_block_start", "index": index, "content_block": block}))
                arguments = call["function"]["arguments"]  # type: ignore[index]
                for part in ("", arguments[:5], arguments[5:]):
                    delta = {"type": "input_json_delta", "partial_json": part}
                    said.append(event({"type": "content_block_delta", "index": index, "delta": delta}))
                said.append(event({"type": "content_block_stop", "index": index}))
        else:
            said.append(event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}))
            said += [self.piece("forty"), self.piece("-two"), event({"type": "content_block_stop", "index": 0})]
        reason = {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None}
        said.append(event({"type": "message_delta", "delta": reason, "usage": {"output_tokens": 3}}, "message_delta"))
        return [*said, event({"type": "message_stop"}, "message_stop")]

    def piece(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")

    def refusal(self, status: int, message: str, code: str = "") -> dict[str, Any]:
        return {"type": "error", "error": {"type": code or "some_error", "message": message}, "request_id": "req_1"}


class Cohere:
    """Cohere's chat, version 2."""

    path = "/v2/chat"
    limits: ClassVar[dict[str, Any]] = {"x-trial-endpoint-call-limit": "60", "x-trial-endpoint-call-remaining": "59"}
    usage: ClassVar[dict[str, Any]] = {
        "billed_units": {"input_tokens": 10, "output_tokens": 3},
        "tokens": {"input_tokens": 80, "output_tokens": 9},
    }

    def whole(self, *, tools: bool = False) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant"}
        if tools:
            message |= {"tool_calls": CALLS, "tool_plan": "I will look."}
        else:
            message["content"] = [{"type": "text", "text": TEXT}]
        finish = "TOOL_CALL" if tools else "COMPLETE"
        return {"id": "x", "message": message, "finish_reason": finish, "usage": self.usage}

    def events(self, *, tools: bool = False) -> list[bytes]:
        said = [event({"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}})]
        if tools:
            said.append(event({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will look."}}}))
            for index, call in enumerate(CALLS):
                begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}  # type: ignore[index]
                said.append(event({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": begun}}}))
                arguments = call["function"]["arguments"]  # type: ignore[index]
                for part in (arguments[:5], arguments[5:]):
                    more = {"message": {"tool_calls": {"function": {"arguments": part}}}}
                    said.append(event({"type": "tool-call-delta", "index": index, "delta": more}))
                said.append(event({"type": "tool-call-end", "index": index}))
        else:
            content = {"message": {"content": {"type": "text", "text": ""}}}
            said.append(event({"type": "content-start", "index": 0, "delta": content}))
            said += [self.piece("forty"), self.piece("-two"), event({"type": "content-end", "index": 0})]
        end = {"finish_reason": "TOOL_CALL" if tools else "COMPLETE", "usage": self.usage}
        return [*said, event({"type": "message-end", "id": "x", "delta": end})]

    def piece(self, text: str) -> bytes:
        return event({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}})

    def refusal(self, status: int, message: str, code: str = "") -> dict[str, Any]:
        return {"message": message, "id": "x"}
