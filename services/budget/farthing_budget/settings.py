"""Settings of the budget service: FARTHING_BUDGET_…"""

from __future__ import annotations

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field


class Settings(ServiceSettings):
    """How the ledger batches and sweeps."""

    model_config = service_config("budget")

    pool_size_max: int = Field(default=6, ge=2, le=100, description="Connections to Postgres; one of them commits batches.")
    batch_size_max: int = Field(default=1_000, ge=1, le=5000, description="Operations that share a transaction.")
    queue_size_max: int = Field(
        default=20_000, ge=1, description="Operations that may wait; more are refused with LEDGER_BUSY."
    )
    linger_s: float = Field(
        default=0.01, ge=0, le=0.1, description="How long a busy ledger waits at most for more to share a transaction."
    )
    hold_ttl_s_default: int = Field(
        default=600, ge=1, le=86_400, description="Seconds until a hold lapses when its caller says nothing."
    )
    sweep_interval_s: float = Field(default=15.0, gt=0, description="How often holds whose time is up are moved into suspense.")
