"""Which status each failure of the gateway becomes, and which HTTP status each gRPC status."""

from __future__ import annotations

from farthing_runtime.status import StatusRow, StatusTable
from grpc import StatusCode

from farthing_gateway.keys import KeyInvalid, KeyNotFound, OriginForbidden, ScopeForbidden, StoreUnavailable

STATUS_TABLE: StatusTable = {
    KeyInvalid: StatusRow(StatusCode.UNAUTHENTICATED, "KEY_INVALID"),
    KeyNotFound: StatusRow(StatusCode.NOT_FOUND, "KEY_NOT_FOUND"),
    OriginForbidden: StatusRow(StatusCode.PERMISSION_DENIED, "ORIGIN_FORBIDDEN"),
    ScopeForbidden: StatusRow(StatusCode.PERMISSION_DENIED, "SCOPE_FORBIDDEN"),
    StoreUnavailable: StatusRow(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
}

HTTP_STATUS = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
"""What is not listed is 500."""

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    417: "invalid_request_error",
    429: "insufficient_quota",
}
"""The `type` of OpenAI's error object; what is not listed is `server_error`."""
