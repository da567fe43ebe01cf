"""Which status each failure of the privacy service becomes."""

from __future__ import annotations

import grpc
from farthing_runtime.status import StatusRow, StatusTable

from farthing_privacy.keys.keyring import KeysFull
from farthing_privacy.keys.masters import MasterKeyMissing
from farthing_privacy.noise import NoiseUnproven
from farthing_privacy.statistics import LedgerUnavailable
from farthing_privacy.store import KeysErased, PrivacyBudgetExhausted, RequestIdReused, StoreUnavailable

STATUS_TABLE: StatusTable = {
    KeysErased: StatusRow(grpc.StatusCode.FAILED_PRECONDITION, "KEYS_ERASED"),
    KeysFull: StatusRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "KEYS_FULL"),
    MasterKeyMissing: StatusRow(grpc.StatusCode.FAILED_PRECONDITION, "MASTER_KEY_MISSING"),
    PrivacyBudgetExhausted: StatusRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "PRIVACY_BUDGET_EXHAUSTED", quota=True),
    RequestIdReused: StatusRow(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"),
    StoreUnavailable: StatusRow(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    LedgerUnavailable: StatusRow(grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE"),
    NoiseUnproven: StatusRow(grpc.StatusCode.INTERNAL, "NOISE_UNPROVEN"),
}
