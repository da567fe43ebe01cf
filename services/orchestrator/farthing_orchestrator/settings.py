"""Settings of the orchestrator: FARTHING_ORCHESTRATOR_…"""

from __future__ import annotations

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field


class Settings(ServiceSettings):
    """How the orchestrator treats its peers; what it does for a request is in farthing.yaml's `policy`."""

    model_config = service_config("orchestrator")

    mask_timeout_s: float = Field(default=2.0, gt=0, description="How long masking may take.")
    lookup_timeout_s: float = Field(
        default=1.0, gt=0, description="How long a cache look-up may take before it counts as a miss."
    )
    shape_timeout_s: float = Field(
        default=2.0, gt=0, description="How long shortening may take before the prompt goes as it is."
    )
    plan_timeout_s: float = Field(default=5.0, gt=0, description="How long planning a route may take.")
    ledger_timeout_s: float = Field(default=10.0, gt=0, description="How long the ledger may take.")
    price_ttl_s: float = Field(
        default=60.0, gt=0, description="How long the catalog's prices are kept for reckoning baselines."
    )
    deferred_max: int = Field(default=2000, ge=1, description="Settlements and stores under way beside the answers' path.")
    deferred_attempts_max: int = Field(
        default=12,
        ge=1,
        description="How often storing an answer is tried while the cache is unavailable. Settlements are tried until they are done.",
    )
    shadows_at_once_max: int = Field(
        default=16, ge=1, le=1000, description="Answers that are bought for comparison at once, beside those that are served."
    )
    shadows_waiting_max: int = Field(
        default=32, ge=0, le=10_000, description="How many of those may wait for their turn; more are dropped and counted."
    )
    deferred_grace_s: float = Field(
        default=15.0, ge=0, description="How long outstanding settlements are waited for at shutdown."
    )
