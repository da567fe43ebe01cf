"""What a provider's refusal means: one table from statuses and error bodies of every wire to a kind of failure.

Bodies are read by their words, since providers agree on neither codes nor shapes: `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`,
a list of one such object (Gemini), `{"detail": […]}`, `{"object": "error", …}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson
from farthing_core.errors import FarthingError

from farthing_router.upstreams.limits import RateLimits, read_limits, retry_after_s

_CHARACTERS_MAX = 300
NO_REASON = "no reason given"
# What a provider's support asks for.
_REQUEST_IDS = ("request-id", "apim-request-id", "x-request-id")


class FailureKind(StrEnum):
    """What went wrong, so that circuits and fallbacks can tell failures apart."""

    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    OUT_OF_CREDIT = "out_of_credit"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER_ERROR = "server_error"
    GARBAGE = "garbage"
    TOO_LARGE = "too_large"
    BROKEN_STREAM = "broken_stream"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    CONTENT_FILTER = "content_filter"
    CONTEXT_TOO_LONG = "context_too_long"
    UNSUPPORTED = "unsupported"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def speaks_for_the_deployment(self) -> bool:
        """Whether it says something about the deployment, and not only about this one request."""
        return self not in _ABOUT_THE_REQUEST


_ABOUT_THE_REQUEST = frozenset(
    {
        FailureKind.CONTENT_FILTER,
        FailureKind.CONTEXT_TOO_LONG,
        FailureKind.UNSUPPORTED,
        FailureKind.EXPIRED,
        FailureKind.CANCELLED,
    }
)
_AGAIN = frozenset({FailureKind.OVERLOADED, FailureKind.RATE_LIMITED, FailureKind.SERVER_ERROR})


class UpstreamFailed(FarthingError):
    """A provider gave no answer: down, overloaded, too slow, or talking nonsense. `retryable` says whether asking again may help.

    `may_be_billed` says that the provider got the request and nobody knows what became of it.
    """

    def __init__(
        self,
        *,
        what: str,
        retryable: bool,
        retry_after_s: float | None = None,
        may_be_billed: bool = False,
        kind: FailureKind = FailureKind.SERVER_ERROR,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(what)
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed
        self.kind = kind
        self.limits = limits


class UpstreamRejected(FarthingError):
    """A provider refused the request as malformed: asking anybody again would not help."""

    def __init__(self, *, provider: str, status: int, what: str) -> None:
        super().__init__(f"{provider} refused the request ({status}): {what}", provider=provider, status=status)


_KIND_BY_STATUS = {
    401: FailureKind.AUTH,
    402: FailureKind.OUT_OF_CREDIT,
    403: FailureKind.AUTH,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.TIMEOUT,
    409: FailureKind.OVERLOADED,
    413: FailureKind.CONTEXT_TOO_LONG,
    425: FailureKind.OVERLOADED,
    429: FailureKind.RATE_LIMITED,
    498: FailureKind.OVERLOADED,
    499: FailureKind.CANCELLED,
    503: FailureKind.OVERLOADED,
    529: FailureKind.OVERLOADED,
}
_CALLERS_FAULT = frozenset({400, 405, 406, 411, 415, 422, 431})
_NOT_AGAIN = frozenset({501, 505})
# Whoever answers with these may have had the whole answer made and lost it on the way.
_BILLED_PERHAPS = frozenset({408, 499, 502, 504, 520, 522, 524})
_CODES = {
    "context_length_exceeded": FailureKind.CONTEXT_TOO_LONG,
    "exceed_context_size_error": FailureKind.CONTEXT_TOO_LONG,
    "request_too_large": FailureKind.CONTEXT_TOO_LONG,
    "content_filter": FailureKind.CONTENT_FILTER,
    "responsibleaipolicyviolation": FailureKind.CONTENT_FILTER,
    "content_policy_violation": FailureKind.CONTENT_FILTER,
    "model_not_found": FailureKind.NOT_FOUND,
    "model_not_available": FailureKind.NOT_FOUND,
    "invalid_model": FailureKind.NOT_FOUND,
    "deploymentnotfound": FailureKind.NOT_FOUND,
    "not_found_error": FailureKind.NOT_FOUND,
    "insufficient_quota": FailureKind.OUT_OF_CREDIT,
    "billing_error": FailureKind.OUT_OF_CREDIT,
    "billing_hard_limit_reached": FailureKind.OUT_OF_CREDIT,
    "invalid_api_key": FailureKind.AUTH,
    "authentication_error": FailureKind.AUTH,
    "permission_error": FailureKind.AUTH,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "resource_exhausted": FailureKind.RATE_LIMITED,
    "overloaded_error": FailureKind.OVERLOADED,
    "overloaded": FailureKind.OVERLOADED,
    "unavailable": FailureKind.OVERLOADED,
    "timeout_error": FailureKind.TIMEOUT,
}
_WORDS = (
    (
        re.compile(
            r"context.{0,10}(?:length|window|size)|prompt is too long|input is too long|too many (?:input )?tokens|reduce the length"
            r"|max_new_tokens`? must be|maximum number of tokens|token count .{0,40}exceeds",
            re.IGNORECASE,
        ),
        FailureKind.CONTEXT_TOO_LONG,
    ),
    (re.compile(r"content (?:management )?(?:filter|policy)|flagged by|moderation", re.IGNORECASE), FailureKind.CONTENT_FILTER),
    (
        re.compile(
            r"model .{0,120}(?:does not exist|not found|not exist|is not supported|decommissioned)|(?:unknown|invalid|no such) model\b",
            re.IGNORECASE,
        ),
        FailureKind.NOT_FOUND,
    ),
    (
        re.compile(r"credit balance|insufficient (?:balance|credit|funds|quota)|exceeded your current quota", re.IGNORECASE),
        FailureKind.OUT_OF_CREDIT,
    ),
    (
        re.compile(r"api key (?:not valid|is invalid|expired)|invalid api key|incorrect api key", re.IGNORECASE),
        FailureKind.AUTH,
    ),
    (re.compile(r"\boverloaded\b|no capacity|at capacity", re.IGNORECASE), FailureKind.OVERLOADED),
)


def refusal(
    *, status: int, headers: Mapping[str, str], body: bytes, provider: str, bills_refusals: bool = False
) -> UpstreamFailed | UpstreamRejected:
    """What a response that is no answer means. `bills_refusals`: the provider charges for reading a prompt that it then refuses."""
    error = parsed(body)
    what = short(error)
    named = next((headers[name] for name in _REQUEST_IDS if name in headers), "")
    if named.isascii() and named.isprintable() and 0 < len(named) <= _CHARACTERS_MAX:
        what = f"{what} (request {named})"
    kind = _kind(status, error)
    if kind is None:
        return UpstreamRejected(provider=provider, status=status, what=what)
    billed = status in _BILLED_PERHAPS or (
        bills_refusals and status < 500 and kind in (FailureKind.CONTENT_FILTER, FailureKind.CONTEXT_TOO_LONG)
    )
    return UpstreamFailed(
        what=f"{status}: {what}",
        retryable=_again(kind, status, headers),
        retry_after_s=retry_after_s(headers),
        may_be_billed=billed,
        kind=kind,
        limits=read_limits(headers),
    )


def error_in_stream(error: Any, *, may_be_billed: bool) -> UpstreamFailed:
    """What an error object inside a stream, or inside an answer that claims success, means."""
    kind = _kind_said(error) or FailureKind.SERVER_ERROR
    return UpstreamFailed(what=short(error), retryable=kind in _AGAIN, may_be_billed=may_be_billed, kind=kind)


def garbage(what: str) -> UpstreamFailed:
    """An answer that is none: whoever made it may bill it."""
    return UpstreamFailed(what=what, retryable=True, may_be_billed=True, kind=FailureKind.GARBAGE)


def unsupported(what: str) -> UpstreamFailed:
    """A request that cannot be said on a deployment's wire, so that it was not sent; another one may understand it."""
    return UpstreamFailed(what=what, retryable=False, kind=FailureKind.UNSUPPORTED)


def parsed(body: bytes) -> Any:
    """The error in a body: an object where there is one, a text where there is not, None for nothing."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return found
    inner = found.get("error") or found.get("errors") or found.get("detail")
    if isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(inner, dict):
        # TGI and Anthropic name the type beside the error, FastAPI says `msg`.
        return {**{name: found[name] for name in ("error_type", "request_id") if name in found}, **inner}
    if inner:
        return {**found, "message": found.get("message") or inner}
    return found


def short(error: Any) -> str:
    """What an error says, in a few words."""
    text = (error.get("message") or error.get("msg") or error.get("type")) if isinstance(error, dict) else error
    return str(text or NO_REASON)[:_CHARACTERS_MAX]


def _kind(status: int, error: Any) -> FailureKind | None:
    """The kind of a refusal; None where the request itself is at fault."""
    said = _kind_said(error)
    if status in _CALLERS_FAULT or (status == 404 and _names_a_field(error)):
        return said
    if status < 500 and said in (FailureKind.OUT_OF_CREDIT, FailureKind.CONTENT_FILTER, FailureKind.CONTEXT_TOO_LONG):
        return said
    if status == 429 and said is FailureKind.OVERLOADED:
        return said
    if status == 498 and said is None and "token" in short(error):
        return FailureKind.AUTH  # Cohere's word for a key that is none; Groq says 498 where its capacity is used up
    if status in _KIND_BY_STATUS:
        return _KIND_BY_STATUS[status]
    if status >= 500:
        return said if said is FailureKind.OVERLOADED else FailureKind.SERVER_ERROR
    return FailureKind.NOT_FOUND if 300 <= status < 400 else FailureKind.GARBAGE if status < 300 else None


def _again(kind: FailureKind, status: int, headers: Mapping[str, str]) -> bool:
    """Whether asking again may help; OpenAI and Anthropic know best and say so in a header."""
    said = headers.get("x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    return (kind in _AGAIN and status not in _NOT_AGAIN) or kind is FailureKind.TIMEOUT


def _names_a_field(error: Any) -> bool:
    """Whether an error is about a field of the request that is not the model's name."""
    return isinstance(error, dict) and error.get("param") not in (None, "", "model")


def _kind_said(error: Any) -> FailureKind | None:
    """What an error says of itself: by its codes first, then by its words, then by the status that it repeats."""
    said = error if isinstance(error, dict) else {}
    inner = said.get("innererror") or said.get("metadata")
    for place in (said, inner if isinstance(inner, dict) else {}):
        for name in ("code", "type", "status", "error_type"):
            value = place.get(name)
            if isinstance(value, str) and (kind := _CODES.get(value.lower())) is not None:
                return kind
    text = short(error)
    by_words = next((kind for words, kind in _WORDS if words.search(text)), None)
    return by_words or (_KIND_BY_STATUS.get(said["code"]) if isinstance(said.get("code"), int) else None)
