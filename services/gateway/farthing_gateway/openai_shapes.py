"""OpenAI's answers, written by hand where they are written often."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

_CACHE_WORDS = {2: "exact", 3: "semantic", 4: "adapted"}


def chat_completion(response: Any, *, created: int, receipt: Any) -> bytes:
    """A `chat.completion` object."""
    answer = response.answer
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.extra_json:
        message["content"] = answer.content or None
        message.update(orjson.loads(answer.extra_json))
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason or "stop"}
    body: dict[str, Any] = {
        "id": f"chatcmpl-{response.receipt.request_id.replace('-', '')}",
        "object": "chat.completion",
        "created": created,
        "model": response.model,
        "choices": [choice],
        "usage": usage(response.usage),
    }
    if response.extra_json:
        more = orjson.loads(response.extra_json)
        choice["logprobs"] = more.pop("logprobs", None)
        for aside in more.pop("choices", None) or ():
            if "message" not in aside:  # what the provider says beside its one answer
                choice |= {name: value for name, value in aside.items() if name not in choice}
        body = {**more, **body}
    if receipt is not None:
        body["farthing"] = {"receipt": receipt}
    return orjson.dumps(body)


def usage(given: Any) -> dict[str, Any]:
    """The `usage` object."""
    return {
        "prompt_tokens": given.input_tokens,
        "completion_tokens": given.output_tokens,
        "total_tokens": given.input_tokens + given.output_tokens,
        "prompt_tokens_details": {"cached_tokens": given.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": given.reasoning_tokens},
    }


class Chunks:
    """The events of one stream, built around a frame that is encoded once."""

    def __init__(self, *, request_id: str, created: int, with_usage: bool = False) -> None:
        self._head = b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":%d,"model":' % (
            request_id.replace("-", "").encode(),
            created,
        )
        self._with_usage = with_usage
        # With usage asked for, OpenAI's chunks all have the field, and only the last one has figures in it.
        self._tail = b'}],"usage":null}\n\n' if with_usage else b"}]}\n\n"
        self._opened = False

    def delta(self, content: str, extra_json: str, model: str) -> bytes:
        """A piece of the answer; the first one opens with the role."""
        opening = b"" if self._opened else self._event(model, b'{"role":"assistant","content":""}', b"null")
        self._opened = True
        if not extra_json:
            return opening + self._event(model, b'{"content":%s}' % orjson.dumps(content), b"null")
        delta = orjson.loads(extra_json)
        logprobs = orjson.dumps(delta.pop("logprobs", None))
        for position, call in enumerate(delta.get("tool_calls") or ()):
            call.setdefault("index", position)
        if content:
            delta["content"] = content
        return opening + self._event(model, orjson.dumps(delta), b"null", logprobs=logprobs)

    def end(self, response: Any, *, receipt: Any) -> bytes:
        """The finish reason, usage and receipt where they are wanted, and the end marker."""
        answer, model = response.answer, response.model
        # An answer that came without pieces is in its end alone.
        unsent = b"" if self._opened else self.delta(answer.content, answer.extra_json, model)
        events = [unsent, self._event(model, b"{}", orjson.dumps(answer.finish_reason or "stop"))]
        if self._with_usage or receipt is not None:
            tail: dict[str, Any] = {}
            if self._with_usage:
                tail["usage"] = usage(response.usage)
            if receipt is not None:
                tail["farthing"] = {"receipt": receipt}
            events.append(self._head + orjson.dumps(model) + b',"choices":[],' + orjson.dumps(tail)[1:] + b"\n\n")
        events.append(b"data: [DONE]\n\n")
        return b"".join(events)

    def _event(self, model: str, delta: bytes, finish_reason: bytes, *, logprobs: bytes = b"null") -> bytes:
        return b'%s%s,"choices":[{"index":0,"delta":%s,"logprobs":%s,"finish_reason":%s%s' % (
            self._head,
            orjson.dumps(model),
            delta,
            logprobs,
            finish_reason,
            self._tail,
        )


def error_body(message: str, *, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error object."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def answer_headers(response: Any) -> dict[str, str]:
    """What a request cost and saved, as headers; `x-request-id` is where OpenAI's clients look for it."""
    receipt = response.receipt
    headers = {
        "content-type": "application/json",
        "x-request-id": receipt.request_id,
        "x-farthing-request-id": receipt.request_id,
        "x-farthing-cost-usd": usd(receipt.cost_usd_nanos),
        "x-farthing-baseline-usd": usd(receipt.baseline_usd_nanos),
        "x-farthing-saved-usd": usd(receipt.baseline_usd_nanos - receipt.cost_usd_nanos),
        "x-farthing-cache": _CACHE_WORDS.get(receipt.cache_outcome, "miss"),
        "x-farthing-model": _header_text(response.model),
        "x-farthing-escalated": "true" if receipt.escalated else "false",
        "x-farthing-added-latency-us": str(receipt.added_latency_us),
    }
    if receipt.budget_left.HasField("free_usd_nanos"):
        headers["x-farthing-budget-left-usd"] = usd(receipt.budget_left.free_usd_nanos)
    return headers


def stream_headers(request_id: str) -> dict[str, str]:
    """The headers of a stream: what it cost is known at its end, in its receipt."""
    return {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "x-request-id": request_id,
        "x-farthing-request-id": request_id,
    }


def _header_text(text: str) -> str:
    return text if text.isascii() and text.isprintable() else quote(text)


def usd(nanos: int) -> str:
    """An amount in dollars as decimal text, exact to the nano."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    return f"{sign}{nanos // 1_000_000_000}.{nanos % 1_000_000_000:09d}"
