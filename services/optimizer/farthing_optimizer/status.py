"""Which status each failure of the optimizer becomes."""

from __future__ import annotations

import grpc
from farthing_runtime.status import StatusRow, StatusTable

from farthing_optimizer.fitting import CannotFit
from farthing_optimizer.tokens import EncodingUnknown

STATUS_TABLE: StatusTable = {
    EncodingUnknown: StatusRow(grpc.StatusCode.INVALID_ARGUMENT, "ENCODING_UNKNOWN"),
    CannotFit: StatusRow(grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_FIT"),
}
