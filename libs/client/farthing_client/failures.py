"""What a suite's refusals become in Python."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class FarthingFailure(Exception):
    """A request that was not answered.

    `code` is gRPC's (`RESOURCE_EXHAUSTED`), `reason` the cause in UPPER_SNAKE_CASE (`BUDGET_EXHAUSTED`), `facts` what belongs to it
    (which budget, how much was asked), and `retry_after_s` says when asking again may help, None when nobody knows.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        facts: dict[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or code
        self.facts = facts or {}
        self.retry_after_s = retry_after_s

    @property
    def field(self) -> str | None:
        """The field that is wrong, where one is."""
        return self.facts.get("field")


class RequestInvalid(FarthingFailure):
    """The request, or its policy, cannot be served as it is: asking again will not help."""


class BudgetExhausted(FarthingFailure):
    """A budget on the path of the scope has no room for this request, or lets only open models answer and none can.

    The facts name the budget and what else could be done; `output_tokens_delivered` is among them where a stream was cut off.
    """


class RateLimited(FarthingFailure):
    """A rate limit on the path of the scope lets no more in for now."""


class NotAllowed(FarthingFailure):
    """Nobody who may do this."""


class Unreachable(FarthingFailure):
    """The suite, or a part of it that this request needs, is out of reach."""


class TimedOut(FarthingFailure):
    """No answer within the time it was given."""


class StreamBroken(FarthingFailure):
    """A stream that ended without saying that it was whole."""

    def __init__(self) -> None:
        super().__init__("the stream ended before the answer did", code="UNKNOWN", reason="STREAM_BROKEN")


_REASONS: dict[str, type[FarthingFailure]] = {
    "BUDGET_EXHAUSTED": BudgetExhausted,
    "BUDGET_DEGRADED": BudgetExhausted,
    "RATE_LIMITED": RateLimited,
}
_KINDS: dict[str, type[FarthingFailure]] = {
    "INVALID_ARGUMENT": RequestInvalid,
    "FAILED_PRECONDITION": RequestInvalid,
    "OUT_OF_RANGE": RequestInvalid,
    "UNAUTHENTICATED": NotAllowed,
    "PERMISSION_DENIED": NotAllowed,
    "UNAVAILABLE": Unreachable,
    "DEADLINE_EXCEEDED": TimedOut,
}


def failure_of(error: Any) -> FarthingFailure:
    """The exception for an RPC error (`grpc.aio.AioRpcError`, or `grpc.RpcError` of a blocking call)."""
    code: str = error.code().name
    status = _rich_status(error)
    if status is None:
        return _KINDS.get(code, FarthingFailure)(error.details() or code, code=code)
    reason, facts, retry_after_s = code, {}, None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, facts = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            # Zero says that waiting does not help.
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 or None
    kind = _REASONS.get(reason) or _KINDS.get(code, FarthingFailure)
    return kind(status.message, code=code, reason=reason, facts=facts, retry_after_s=retry_after_s)


def is_unavailable(error: Any) -> bool:
    """Whether the server was out of reach, which a request that is safe to repeat may try again."""
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE)


def _rich_status(error: Any) -> Any:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None
