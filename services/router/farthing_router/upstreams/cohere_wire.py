"""Cohere's chat, version 2: its requests, answers, and the events of its streams, in OpenAI's words."""

from __future__ import annotations

import re
from typing import Any

import orjson

from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamFailed, UpstreamPiece
from farthing_router.upstreams.cohere_requests import request_fields
from farthing_router.upstreams.exchange import Outgoing
from farthing_router.upstreams.failures import FailureKind, error_in_stream, garbage
from farthing_router.upstreams.logprobs import mean
from farthing_router.upstreams.openai_wire import openai_headers, with_query
from farthing_router.upstreams.payloads import read_usage
from farthing_router.upstreams.tool_calls import ToolCalls

_FINISH_REASONS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
_FAILED_REASONS = {"ERROR": FailureKind.SERVER_ERROR, "TIMEOUT": FailureKind.TIMEOUT}
_KNOWN_FIELDS = frozenset({"id", "message", "finish_reason", "usage", "logprobs", "model"})
_NONSENSE = (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError, ValueError)


class CohereFormat:
    """The WireFormat of Cohere."""

    bills_refusals = False

    def outgoing(self, call: Call, *, stream: bool) -> Outgoing:
        """The request."""
        url = with_query(cohere_url(call.deployment.base_url, "v2/chat"), call.deployment)
        headers = {**openai_headers(call.deployment), "x-request-id": call.request_id}
        return Outgoing(url, headers, orjson.dumps(request_fields(call, stream=stream)))

    def answer(self, raw: bytes) -> UpstreamAnswer:
        """The answer in a body."""
        try:
            parsed = orjson.loads(raw)
            message = parsed["message"]
            if not isinstance(message, dict):  # that is where its errors speak
                raise error_in_stream(parsed, may_be_billed=False)
            answer = _Answer()
            for part in message.get("content") or ():
                answer.take_part(part)
            answer.plan.append(message.get("tool_plan") or "")
            answer.calls.take(message.get("tool_calls") or [])
            answer.citations += message.get("citations") or ()
            answer.logprobs += parsed.get("logprobs") or ()
            answer.more = {name: parsed[name] for name in parsed.keys() - _KNOWN_FIELDS if parsed[name] is not None}
            return answer.whole(parsed.get("finish_reason"), {"usage": parsed.get("usage")})
        except _NONSENSE as error:
            raise garbage("the answer is no Cohere answer") from error

    def assembly(self) -> CohereAssembly:
        """For a streamed answer."""
        return CohereAssembly()


def cohere_url(base_url: str, path: str) -> str:
    """An address; the base may be written with or without a version."""
    return f"{re.sub(r'/v[12]$', '', base_url)}/{path}"


class _Answer:
    """What an answer's parts come to."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thoughts: list[str] = []
        self.plan: list[str] = []
        self.calls = ToolCalls()
        self.citations: list[Any] = []
        self.logprobs: list[dict[str, Any]] = []
        self.more: dict[str, Any] = {}

    def take_part(self, part: dict[str, Any]) -> tuple[str, str]:
        """A part of the content; the text and the thought in it."""
        text, thought = part.get("text") or "", part.get("thinking") or ""
        if not isinstance(text, str) or not isinstance(thought, str):
            raise TypeError(type(text))
        self.text.append(text)
        self.thoughts.append(thought)
        return text, thought

    def whole(self, finish_reason: Any, usage: dict[str, Any]) -> UpstreamAnswer:
        """The answer. Raises UpstreamFailed where it ended because Cohere broke down."""
        if finish_reason in _FAILED_REASONS:
            kind = _FAILED_REASONS[finish_reason]
            raise UpstreamFailed(what=f"the answer ended with {finish_reason}", retryable=True, may_be_billed=True, kind=kind)
        extra: dict[str, Any] = {}
        for name, value in (("reasoning_content", "".join(self.thoughts)), ("tool_plan", "".join(self.plan))):
            if value:
                extra[name] = value
        if calls := self.calls.whole():
            extra["tool_calls"] = calls
        if self.citations:
            extra["citations"] = self.citations
        if self.logprobs:
            self.more["logprobs"] = {"content": [_as_openai(item) for item in self.logprobs], "tokens": self.logprobs}
        return UpstreamAnswer(
            content="".join(self.text),
            extra_json=orjson.dumps(extra).decode() if extra else "",
            finish_reason=_FINISH_REASONS.get(finish_reason or "COMPLETE", str(finish_reason).lower()),
            response_extra_json=orjson.dumps(self.more).decode() if self.more else "",
            usage=read_usage(usage),
            mean_logprob=mean([each for item in self.logprobs for each in item.get("logprobs") or ()]),
        )


class CohereAssembly:
    """Puts a stream of events together."""

    def __init__(self) -> None:
        self.ended = False
        self._answer = _Answer()
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._heard = False

    @property
    def whole(self) -> bool:
        """Never: the end has an event of its own."""
        return self.ended

    def take(self, event: bytes) -> UpstreamPiece | None:
        """The piece in an event."""
        if event == b"[DONE]":
            return None
        try:
            said = orjson.loads(event)
            kind = said.get("type")
            if kind is None:  # no event at all: its way to say an error
                raise error_in_stream(said, may_be_billed=self._heard)
            delta = said.get("delta") or {}
            if kind == "message-end":
                self._end(delta)
                return None
            return self._piece(kind, said, delta.get("message") or {})
        except _NONSENSE as error:
            raise garbage("the stream is no Cohere stream") from error

    def answer(self) -> UpstreamAnswer:
        """The whole."""
        try:
            return self._answer.whole(self._finish_reason, {"usage": self._usage})
        except _NONSENSE as error:
            raise garbage("the stream is no Cohere stream") from error

    def _end(self, delta: dict[str, Any]) -> None:
        if delta.get("error"):
            raise error_in_stream(delta["error"], may_be_billed=self._heard)
        self._finish_reason, self._usage = delta.get("finish_reason"), delta.get("usage") or {}
        self.ended = True

    def _piece(self, kind: str, said: dict[str, Any], message: dict[str, Any]) -> UpstreamPiece | None:
        answer, text = self._answer, ""
        extra: dict[str, Any] = {}
        if kind in ("content-start", "content-delta"):
            text, thought = answer.take_part(message.get("content") or {})
            if thought:
                extra["reasoning_content"] = thought
            if said.get("logprobs"):
                answer.logprobs.append(said["logprobs"])
                extra["logprobs"] = {"content": [_as_openai(said["logprobs"])]}
        elif kind == "tool-plan-delta":
            answer.plan.append(message.get("tool_plan") or "")
            extra["tool_plan"] = answer.plan[-1]
        elif kind in ("tool-call-start", "tool-call-delta"):
            call = {**message["tool_calls"], "index": said.get("index", 0)}
            answer.calls.take([call])
            extra["tool_calls"] = [call]
        elif kind == "citation-start":
            citation = message["citations"]
            answer.citations.append(citation)
            extra["citations"] = [citation]
        if not text and not extra:
            return None
        self._heard = True
        return UpstreamPiece(text, orjson.dumps(extra).decode() if extra else "")


def _as_openai(item: dict[str, Any]) -> dict[str, Any]:
    """A chunk of text with its log-probability, as OpenAI tells it of a token."""
    logprob = sum(each for each in item.get("logprobs") or () if isinstance(each, int | float))
    return {"token": item.get("text") or "", "logprob": logprob, "bytes": None, "top_logprobs": []}
