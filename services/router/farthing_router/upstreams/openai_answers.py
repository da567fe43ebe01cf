"""Answers on the OpenAI wire, whole and streamed, as OpenAI sends them and as everybody else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from farthing_router.pricing.tokens import service_tier
from farthing_router.upstreams import UpstreamAnswer, UpstreamFailed, UpstreamPiece
from farthing_router.upstreams.failures import FailureKind, error_in_stream, garbage
from farthing_router.upstreams.logprobs import summary
from farthing_router.upstreams.payloads import Reported, read_usage
from farthing_router.upstreams.tool_calls import ToolCalls

_KNOWN_MESSAGE_FIELDS = frozenset({"role", "content"})
_KNOWN_CHOICE_FIELDS = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "usage"})
_KNOWN_RESPONSE_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage", "error"})
_FINISH_REASONS = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
}
_FAILED_REASONS = {"error": FailureKind.SERVER_ERROR, "insufficient_system_resource": FailureKind.OVERLOADED}
_CHOICES_MAX = 128
_NONSENSE = (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError, ValueError)


def read_answer(raw: bytes) -> UpstreamAnswer:
    """The answer in a body. Raises UpstreamFailed where it is none, and for an error that comes with status 200."""
    try:
        return answer_of(orjson.loads(raw))
    except _NONSENSE as error:
        raise garbage("the answer is no OpenAI answer") from error


def answer_of(parsed: dict[str, Any]) -> UpstreamAnswer:
    """The answer in a parsed body."""
    choices: Any = parsed.get("choices")
    if not choices and parsed.get("error"):
        raise error_in_stream(parsed["error"], may_be_billed=False)
    choice = choices[0]
    message = choice["message"]
    content, reasoning = _text(message.get("content"))
    extra = {name: value for name, value in message.items() if name not in _KNOWN_MESSAGE_FIELDS and value}
    if reasoning:
        extra["reasoning_content"] = reasoning
    more = {name: parsed[name] for name in parsed.keys() - _KNOWN_RESPONSE_FIELDS if parsed[name] is not None}
    logprobs = choice.get("logprobs")
    if logprobs:
        more["logprobs"] = logprobs
    if len(choices) > 1:
        more["choices"] = choices
    elif not choice.keys() <= _KNOWN_CHOICE_FIELDS and (aside := _aside(choice)):
        more["choices"] = [{"index": 0, **aside}]
    mean_logprob, mean_margin = summary(logprobs) if logprobs else (None, None)
    return UpstreamAnswer(
        content=content,
        extra_json=orjson.dumps(extra).decode() if extra else "",
        finish_reason=_finish_reason(choice.get("finish_reason"), bool(extra.get("tool_calls"))),
        response_extra_json=orjson.dumps(more).decode() if more else "",
        usage=with_tier(_usage(parsed), parsed),
        mean_logprob=mean_logprob,
        mean_margin=mean_margin,
    )


class OpenAIAssembly:
    """Puts a streamed answer together: the first choice in pieces, any other beside it."""

    def __init__(self) -> None:
        self.ended = False
        self._choices: dict[int, _Choice] = {0: _Choice()}
        self._response_extra: dict[str, Any] = {}
        self._usage: Reported | None = None

    @property
    def whole(self) -> bool:
        """Whether every choice said why it stopped: some never send the end marker."""
        return all(choice.finish_reason for choice in self._choices.values())

    def take(self, event: bytes) -> UpstreamPiece | None:
        """The piece in an event; None where it carries none."""
        if event == b"[DONE]":
            self.ended = True
            return None
        try:
            return self._take(orjson.loads(event))
        except _NONSENSE as error:
            raise garbage("the stream is no OpenAI stream") from error

    def answer(self) -> UpstreamAnswer:
        """The whole."""
        try:
            return self._answer()
        except _NONSENSE as error:
            raise garbage("the stream is no OpenAI stream") from error

    def _answer(self) -> UpstreamAnswer:
        first, more = self._choices[0], dict(self._response_extra)
        if first.logprobs:
            more["logprobs"] = first.logprobs
        if len(self._choices) > 1:
            more["choices"] = [self._choices[index].plain(index) for index in sorted(self._choices)]
        elif first.aside:
            more["choices"] = [{"index": 0, **first.aside}]
        mean_logprob, mean_margin = summary(first.logprobs) if first.logprobs else (None, None)
        extra = first.message_extra()
        return UpstreamAnswer(
            content="".join(first.content),
            extra_json=orjson.dumps(extra).decode() if extra else "",
            finish_reason=_finish_reason(first.finish_reason, "tool_calls" in extra),
            response_extra_json=orjson.dumps(more).decode() if more else "",
            usage=with_tier(self._usage, self._response_extra),
            mean_logprob=mean_logprob,
            mean_margin=mean_margin,
        )

    def _take(self, chunk: dict[str, Any]) -> UpstreamPiece | None:
        if chunk.get("error"):
            raise error_in_stream(chunk["error"], may_be_billed=any(choice.heard for choice in self._choices.values()))
        choices = chunk.get("choices") or ()
        if (chunk.get("usage") or "x_groq" in chunk or (choices and "usage" in choices[0])) and (said := _usage(chunk)):
            self._usage = said if self._usage is None else self._usage.then(said)
        if not chunk.keys() <= _KNOWN_RESPONSE_FIELDS:
            for name in chunk.keys() - _KNOWN_RESPONSE_FIELDS:
                if chunk[name] is not None:
                    self._response_extra[name] = chunk[name]
        piece = None
        for given in choices:
            index = int(given.get("index") or 0)
            choice = self._choices.get(index)
            if choice is None:
                if not 0 < index < _CHOICES_MAX:
                    raise ValueError(index)
                choice = self._choices[index] = _Choice()
            found = choice.take(given)
            piece = found if index == 0 else piece
        return piece


class _Choice:
    """One choice of a streamed answer."""

    __slots__ = ("_extra", "_tool_calls", "aside", "content", "finish_reason", "heard", "logprobs")

    def __init__(self) -> None:
        self.heard = False
        self.content: list[str] = []
        self.finish_reason = ""
        self.logprobs: dict[str, Any] = {}
        self.aside: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._tool_calls = ToolCalls()

    def take(self, choice: dict[str, Any]) -> UpstreamPiece | None:
        """The piece in a chunk's choice."""
        delta = choice.get("delta") or choice.get("message") or {}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        logprobs = choice.get("logprobs")
        if logprobs:
            _append(self.logprobs, logprobs)
        if not choice.keys() <= _KNOWN_CHOICE_FIELDS:
            self.aside |= _aside(choice)
        content = delta.get("content")
        # Nearly every chunk has a text and nothing else.
        if content.__class__ is str and not logprobs and delta.keys() <= _KNOWN_MESSAGE_FIELDS:
            if not content:
                return None
            self.heard = True
            self.content.append(content)
            return UpstreamPiece(content, "")
        content, reasoning = _text(content)
        extra = {name: value for name, value in delta.items() if name not in _KNOWN_MESSAGE_FIELDS and value}
        if reasoning:
            extra["reasoning_content"] = reasoning
        if not content and not extra:
            return None
        self.heard = True
        self.content.append(content)
        self._keep(extra)
        if logprobs:
            extra["logprobs"] = logprobs
        return UpstreamPiece(content, orjson.dumps(extra).decode() if extra else "")

    def _keep(self, extra: dict[str, Any]) -> None:
        for name, value in extra.items():
            if name == "tool_calls":
                self._tool_calls.take(value)
            else:
                self._extra[name] = _joined(self._extra.get(name), value)

    def message_extra(self) -> dict[str, Any]:
        """The fields of the message that are not its text."""
        calls = self._tool_calls.whole()
        return {**self._extra, "tool_calls": calls} if calls else self._extra

    def plain(self, index: int) -> dict[str, Any]:
        """The choice as an answer that is not streamed has it."""
        message = {"role": "assistant", "content": "".join(self.content), **self.message_extra()}
        reason = self.finish_reason or "stop"
        return {"index": index, "message": message, "finish_reason": reason, "logprobs": self.logprobs or None, **self.aside}


def with_tier(said: Reported | None, body: Mapping[str, Any]) -> Reported | None:
    """The usage with the tier of service that another part of the answer names; also where no usage is reported."""
    tier = body.get("service_tier")
    if not isinstance(tier, str) or (said is not None and said.tier is not None):
        return said
    return replace(said or Reported(), tier=service_tier(tier))


def _usage(body: dict[str, Any]) -> Reported | None:
    """The usage wherever it stands: in its place, in a choice (Moonshot), or in Groq's own corner."""
    if body.get("usage"):
        return read_usage(body)
    aside = body.get("x_groq")
    if isinstance(aside, dict) and aside.get("usage"):
        return read_usage(aside)
    choices = body.get("choices")
    if choices and choices[0].get("usage"):
        return read_usage(choices[0])
    return read_usage(body) if "usage" not in body and "choices" not in body else None


def _text(content: Any) -> tuple[str, str]:
    """The text and the thoughts of a content: a text, nothing, or a list of parts (Mistral)."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise TypeError(type(content))
    text: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thoughts.append(inner if isinstance(inner, str) else "".join(each.get("text") or "" for each in inner or ()))
        else:
            text.append(part.get("text") or "")
    return "".join(text), "".join(thoughts)


def _finish_reason(said: Any, calls_tools: bool) -> str:
    """Why it stopped, in OpenAI's words. Raises UpstreamFailed where it stopped because the provider broke down."""
    if not isinstance(said, str) or not said:
        return "tool_calls" if calls_tools else "stop"
    reason = said.lower()
    if reason in _FAILED_REASONS:
        raise UpstreamFailed(
            what=f"the answer ended with {reason}", retryable=True, may_be_billed=True, kind=_FAILED_REASONS[reason]
        )
    if reason.startswith("content_filter"):
        return "content_filter"
    return _FINISH_REASONS.get(reason, said)


def _aside(choice: dict[str, Any]) -> dict[str, Any]:
    return {name: choice[name] for name in choice.keys() - _KNOWN_CHOICE_FIELDS if choice[name] is not None}


def _append(whole: dict[str, Any], more: Any) -> None:
    for name, value in more.items():
        if isinstance(value, list):
            whole.setdefault(name, []).extend(value)
        elif value is not None:
            whole[name] = value


def _joined(before: Any, value: Any) -> Any:
    """Texts and lists of a message's other fields come in pieces, too (reasoning, refusal); anything else stands as it came last."""
    if isinstance(before, str) and isinstance(value, str):
        return before + value
    if isinstance(before, list) and isinstance(value, list):
        return before + value
    return value
