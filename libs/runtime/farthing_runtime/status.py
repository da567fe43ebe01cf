"""From a named failure to `google.rpc.Status`, and back on the caller's side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from farthing_core.errors import FarthingError, FieldInvalid
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

STATUS_DETAILS_KEY = "grpc-status-details-bin"
ERROR_DOMAIN = "farthing"
_INTERNAL_TEXT = "internal error; the log of this service tells more under the request id"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class StatusRow:
    """What a domain error becomes: a code, a reason in UPPER_SNAKE_CASE, and whether it is about a quota."""

    code: grpc.StatusCode
    reason: str
    quota: bool = False


StatusTable = Mapping[type[FarthingError], StatusRow]
"""One per service: every error that its domain can raise stands in it."""


@dataclass
class PeerFailure(FarthingError):
    """A peer's refusal, as its caller passes it on: the peer's own code, reason, text, facts and details."""

    code: grpc.StatusCode
    reason: str
    message: str
    facts: dict[str, str] = field(default_factory=dict)
    status: status_pb2.Status | None = None

    def __post_init__(self) -> None:
        Exception.__init__(self, self.message)

    @property
    def unreachable(self) -> bool:
        """Whether the peer was out of reach, as opposed to having answered no."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def status_of(error: FarthingError, table: StatusTable) -> status_pb2.Status:
    """The status of a domain error: ErrorInfo first, then what fits. An error that stands in no table is INTERNAL."""
    if isinstance(error, PeerFailure):
        return error.status or _status(StatusRow(error.code, error.reason), error)
    if isinstance(error, FieldInvalid):
        return invalid_argument([(error.field, error.problem)])
    for kind in type(error).__mro__:
        row = table.get(kind)
        if row is not None:
            return _status(row, error)
    return internal()


def _status(row: StatusRow, error: FarthingError) -> status_pb2.Status:
    details = [error_details_pb2.ErrorInfo(reason=row.reason, domain=ERROR_DOMAIN, metadata=error.facts)]
    if row.quota:
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.facts.get("subject", ""), description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        seconds, nanos = divmod(round(retry_after_s * 1e9), 1_000_000_000)
        delay = duration_pb2.Duration(seconds=seconds, nanos=nanos)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _pack(row.code, error.message, details)


def invalid_argument(violations: list[tuple[str, str]]) -> status_pb2.Status:
    """INVALID_ARGUMENT that names each wrong field and what it may be."""
    text = "; ".join(f"{name}: {problem}" for name, problem in violations)
    info = error_details_pb2.ErrorInfo(reason="FIELD_INVALID", domain=ERROR_DOMAIN, metadata={"field": violations[0][0]})
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=name, description=problem) for name, problem in violations
        ]
    )
    return _pack(grpc.StatusCode.INVALID_ARGUMENT, text, [info, bad])


def internal() -> status_pb2.Status:
    """INTERNAL with a fixed text: what went wrong is for the log, not for the caller."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN)
    return _pack(grpc.StatusCode.INTERNAL, _INTERNAL_TEXT, [info])


def simple_status(code: grpc.StatusCode, reason: str, text: str, **facts: str) -> status_pb2.Status:
    """A status with nothing but an ErrorInfo."""
    return _pack(code, text, [error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=facts)])


def _pack(code: grpc.StatusCode, text: str, details: list) -> status_pb2.Status:  # type: ignore[type-arg]
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(code=code.value[0], message=text, details=packed)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code of a status; UNKNOWN for a number that gRPC does not know."""
    return _CODES.get(status.code, grpc.StatusCode.UNKNOWN)


def peer_failure(error: grpc.RpcError, *, peer: str) -> PeerFailure:
    """What a peer's error means to its caller, so that it never surfaces as UNKNOWN."""
    status = rich_status(error)
    if status is None:
        code = error.code()
        reason = "PEER_UNAVAILABLE" if code is grpc.StatusCode.UNAVAILABLE else code.name
        return PeerFailure(code, reason, f"{peer}: {error.details() or code.name.lower()}", {"peer": peer})
    info = error_info(status)
    return PeerFailure(
        code_of(status),
        info.reason if info else code_pb2.Code.Name(status.code),
        status.message,
        dict(info.metadata) if info else {},
        status,
    )


def rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    """The `google.rpc.Status` that came with an RPC error, if one did."""
    trailing = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == STATUS_DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None


def retry_after_s(status: status_pb2.Status) -> float | None:
    """When a status says that asking again may help; None where it does not say, and 0 where waiting does not help."""
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None


def error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo | None:
    """The ErrorInfo of a status, if it has one."""
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            return info
    return None
