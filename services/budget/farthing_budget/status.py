"""Which status each failure of the budget service becomes."""

from __future__ import annotations

from farthing_runtime.batching import QueueFull
from farthing_runtime.status import StatusRow, StatusTable
from grpc import StatusCode

from farthing_budget.rate_limits import (
    BucketsAway,
    BurstExceeded,
    RateLimited,
    RateLimitExists,
    RateLimitNotFound,
    RateLimitsTooMany,
)
from farthing_budget.refusals import (
    AlertRuleNotFound,
    AlertRulesFull,
    BudgetDegraded,
    BudgetExhausted,
    BudgetExists,
    BudgetNotFound,
    LedgerBusy,
    RequestIdReused,
    ReservationNotFound,
    ReservationOpen,
    ReservationReleased,
    ReservationSettled,
    StoreUnavailable,
    VersionMismatch,
)

STATUS_TABLE: StatusTable = {
    AlertRuleNotFound: StatusRow(StatusCode.NOT_FOUND, "ALERT_RULE_NOT_FOUND"),
    AlertRulesFull: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "ALERT_RULES_FULL"),
    BucketsAway: StatusRow(StatusCode.UNAVAILABLE, "RATE_LIMITS_UNAVAILABLE"),
    BudgetDegraded: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "BUDGET_DEGRADED", quota=True),
    BudgetExhausted: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED", quota=True),
    BudgetExists: StatusRow(StatusCode.ALREADY_EXISTS, "BUDGET_EXISTS"),
    BudgetNotFound: StatusRow(StatusCode.NOT_FOUND, "BUDGET_NOT_FOUND"),
    BurstExceeded: StatusRow(StatusCode.INVALID_ARGUMENT, "BURST_EXCEEDED", quota=True),
    LedgerBusy: StatusRow(StatusCode.UNAVAILABLE, "LEDGER_BUSY"),
    QueueFull: StatusRow(StatusCode.UNAVAILABLE, "LEDGER_BUSY"),
    RateLimitExists: StatusRow(StatusCode.ALREADY_EXISTS, "RATE_LIMIT_EXISTS"),
    RateLimitNotFound: StatusRow(StatusCode.NOT_FOUND, "RATE_LIMIT_NOT_FOUND"),
    RateLimited: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", quota=True),
    RateLimitsTooMany: StatusRow(StatusCode.FAILED_PRECONDITION, "RATE_LIMITS_TOO_MANY"),
    RequestIdReused: StatusRow(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"),
    ReservationNotFound: StatusRow(StatusCode.NOT_FOUND, "RESERVATION_NOT_FOUND"),
    ReservationOpen: StatusRow(StatusCode.FAILED_PRECONDITION, "RESERVATION_OPEN"),
    ReservationReleased: StatusRow(StatusCode.FAILED_PRECONDITION, "RESERVATION_RELEASED"),
    ReservationSettled: StatusRow(StatusCode.FAILED_PRECONDITION, "RESERVATION_SETTLED"),
    StoreUnavailable: StatusRow(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    VersionMismatch: StatusRow(StatusCode.ABORTED, "VERSION_MISMATCH"),
}
