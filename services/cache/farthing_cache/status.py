"""Which status each failure of the cache becomes."""

from __future__ import annotations

from farthing_runtime.batching import QueueFull
from farthing_runtime.status import StatusRow, StatusTable
from grpc import StatusCode

from farthing_cache.answers.forgetting import FilterEmpty
from farthing_cache.certifying.hits import HitUnknown, RequestIdReused
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.sealing.seals import KeysGone, SealUnavailable
from farthing_cache.store import StoreUnavailable

STATUS_TABLE: StatusTable = {
    EmbeddingUnavailable: StatusRow(StatusCode.UNAVAILABLE, "EMBEDDING_UNAVAILABLE"),
    FilterEmpty: StatusRow(StatusCode.INVALID_ARGUMENT, "FILTER_EMPTY"),
    HitUnknown: StatusRow(StatusCode.NOT_FOUND, "HIT_UNKNOWN"),
    RequestIdReused: StatusRow(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"),
    QueueFull: StatusRow(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    KeysGone: StatusRow(StatusCode.FAILED_PRECONDITION, "KEYS_ERASED"),
    SealUnavailable: StatusRow(StatusCode.UNAVAILABLE, "SEAL_UNAVAILABLE"),
    StoreUnavailable: StatusRow(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
}
