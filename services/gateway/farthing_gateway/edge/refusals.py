"""Failures in OpenAI's words: an HTTP status, an error object that names the field or header, and when to ask again."""

from __future__ import annotations

import math
import re

import grpc
from aiohttp import web
from farthing_core.errors import FarthingError
from farthing_runtime.status import code_of, error_info, peer_failure, retry_after_s, status_of

from farthing_gateway.openai_shapes import error_body
from farthing_gateway.status import ERROR_TYPES, HTTP_STATUS, STATUS_TABLE

JSON = "application/json"
_OVER_BUDGET = frozenset({"BUDGET_EXHAUSTED", "BUDGET_DEGRADED"})
_OVER_BUDGET_FACTS = ("verdict", "cause", "budget_id", "alternatives", "output_tokens_max")
"""What the ledger says besides its message; OpenAI's error object has no room for it."""
_INDEX = re.compile(r"\[[^\]]*\]")
_CALLERS_NAMES = {
    "scope": "x-farthing-scope",
    "task": "x-farthing-task",
    "tier": "x-farthing-tier",
    "tags": "x-farthing-tags",
    "service": "x-farthing-service",
    "domain": "x-farthing-domain",
    "overrides.critical": "x-farthing-critical",
    "request_id": "x-farthing-request-id",
    "overrides.cache_ttl_s": "x-farthing-cache-ttl-s",
    "overrides.allowed_providers": "x-farthing-providers",
    "parameters.output_tokens_max": "max_tokens",
    "parameters.tools_json": "tools",
    "parameters.response_format_json": "response_format",
    "parameters.extra_json": "body",
}
"""What a caller over HTTP calls the fields of a CompleteRequest, where the names differ."""


class HttpProblem(Exception):
    """A refusal that only HTTP knows: no such path, too large, too slow, too many."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers


def refusal(error: Exception, *, request_id: str = "") -> web.Response:
    """The response for a failure; `request_id` goes along so that the log can be searched for it."""
    status, raw, headers = told(error)
    if request_id:
        headers["x-request-id"] = headers["x-farthing-request-id"] = request_id
    return web.Response(status=status, body=raw, content_type=JSON, headers=headers)


def told(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """(HTTP status, OpenAI's error object, headers) of a failure: an RPC error, a FarthingError, an HttpProblem, or a bug."""
    if isinstance(error, HttpProblem):
        return error.status, _body(error.status, error.message, error.param, error.code), dict(error.headers or {})
    if isinstance(error, grpc.aio.AioRpcError):
        error = peer_failure(error, peer="farthing")
    if not isinstance(error, FarthingError):
        return 500, _body(500, "internal error; the log of the gateway tells more", None, "internal"), {}
    rich = status_of(error, STATUS_TABLE)
    status, info = HTTP_STATUS.get(code_of(rich), 500), error_info(rich)
    reason = info.reason if info else "UNKNOWN"
    field, message = (info.metadata.get("field", "") if info else ""), rich.message
    param = callers_name(field) if field else None
    if param and param != field:
        message = message.replace(f"{field}: ", f"{param}: ", 1)
    if reason == "MODEL_UNKNOWN":
        status, reason, param = 404, "MODEL_NOT_FOUND", "model"
    headers = {}
    wait_s = retry_after_s(rich)
    if wait_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(wait_s)))
    if reason in _OVER_BUDGET:
        # OpenAI's clients ask a 429 again by themselves, and obey this header; a budget does not refill in their seconds.
        headers["x-should-retry"] = "false"
        facts = info.metadata if info else {}
        headers |= {
            f"x-farthing-{name.replace('_', '-')}": facts[name] for name in _OVER_BUDGET_FACTS if facts.get(name, "0") != "0"
        }
    kind = "rate_limit_exceeded" if reason == "RATE_LIMITED" else None
    return status, _body(status, message, param, reason.lower(), kind=kind), headers


def callers_name(field: str) -> str:
    """What a caller over HTTP calls a field of the orchestrator's messages: `request.parameters.stop` is `stop`."""
    field = field.removeprefix("request.")
    known = _CALLERS_NAMES.get(_INDEX.sub("", field))
    if known is not None:
        return known
    return field.removeprefix("parameters.").replace(".content_parts_json", ".content").replace(".extra_json", "")


def _body(status: int, message: str, param: str | None, code: str, *, kind: str | None = None) -> bytes:
    return error_body(message, kind=kind or ERROR_TYPES.get(status, "server_error"), param=param, code=code)
