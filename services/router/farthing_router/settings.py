"""Settings of the router: FARTHING_ROUTER_…, and the API keys of providers, whose variables farthing.yaml names."""

from __future__ import annotations

import os

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field


class Settings(ServiceSettings):
    """How the router calls providers; which ones, and for what, is in farthing.yaml."""

    model_config = service_config("router")

    connections_max: int = Field(default=1000, ge=1, description="Connections to providers at once.")
    prices_refresh_s: float = Field(
        default=5.0, gt=0, le=300, description="Within how long a price that another replica wrote down is known here."
    )
    refresh_s: float = Field(
        default=2.0,
        gt=0,
        le=300,
        description="Within how long rules, calibrations, experiments and deployments that another replica changed are known here.",
    )
    decisions_flush_s: float = Field(default=1.0, gt=0, le=60, description="How often routing decisions are written down.")
    decisions_kept_days: int = Field(default=90, ge=1, le=3650, description="For how many days routing decisions are kept.")
    outcomes_write_s: float = Field(default=0.25, gt=0, le=60, description="How often answers are written down to learn from.")
    outcomes_keep_days: int = Field(default=90, ge=1, le=3650, description="For how long an answer takes opinions.")
    scored_per_s: float = Field(
        default=50.0,
        ge=0,
        le=100_000,
        description="How many answers a second are scored by machine; the others are only written down.",
    )
    calibration_examples_max: int = Field(
        default=50_000, ge=100, le=200_000, description="How many labelled examples one calibration takes."
    )
    calibration_bytes_max: int = Field(
        default=256 * 2**20, ge=2**20, le=2**32, description="How many bytes its examples may have together."
    )
    performance_flush_s: float = Field(default=5.0, gt=0, le=60, description="How often counts of calls are written down.")
    performance_refresh_s: float = Field(
        default=60.0, gt=0, le=3600, description="How often latencies and errors that all replicas saw are read."
    )
    performance_hours_kept_days: int = Field(
        default=35, ge=32, le=400, description="For how many days performance is kept by the hour."
    )
    performance_days_kept: int = Field(
        default=400, ge=32, le=3650, description="For how many days performance is kept by the day."
    )
    cooldowns_refresh_s: float = Field(
        default=1.0, gt=0, le=60, description="How often cooldowns of other replicas are heard of, where they share a Redis."
    )
    redis_timeout_s: float = Field(default=0.5, gt=0, le=10, description="How long one answer of Redis may take.")
    pool_size_max: int = Field(default=4, ge=1, le=100, description="Connections to Postgres.")
    generate_timeout_s: float = Field(
        default=600.0, gt=0, le=3600, description="How long a route may take when its caller sets no deadline."
    )


def key_in_environment(variable: str) -> str | None:
    """A provider's API key; None when its variable is not set or empty."""
    return os.environ.get(variable) or None
