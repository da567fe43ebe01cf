"""Settings of the budget service: FARTHING_BUDGET_…"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """How the ledger batches and sweeps, what keeps rate limits, and how alerts are delivered."""

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
    sharing_interval_s: float = Field(
        default=2.0,
        gt=0,
        le=3600,
        description="How often what was learned of the lengths of answers is saved and shared among replicas; a crash loses as much.",
    )
    rate_limits_refresh_s: float = Field(
        default=0.5, gt=0, le=1, description="How often changes of rate limits made elsewhere are looked for."
    )
    rate_limits_known_max: int = Field(
        default=50_000, ge=1, description="Rate limits, and organisations with or without any, that a process remembers."
    )
    rate_buckets_max: int = Field(default=100_000, ge=100, description="Buckets of rate limits in memory.")
    rate_admissions_max: int = Field(
        default=200_000, ge=100, description="Admitted requests in memory; with more in ten minutes, the oldest are forgotten."
    )
    redis_away: Literal["memory", "refuse"] = Field(
        default="memory", description="While Redis is away: rate limits in each process's memory, or no admission."
    )
    redis_timeout_s: float = Field(default=0.5, gt=0, le=10, description="How long one answer of Redis may take.")
    redis_retry_s: float = Field(default=1.0, gt=0, le=60, description="How often Redis is tried while it is away.")
    alert_sweep_interval_s: float = Field(
        default=3600.0, gt=0, description="How often every budget is looked at for alerts; settlements raise them at once."
    )
    alert_poll_s: float = Field(
        default=5.0, gt=0, le=3600, description="How often rules that others changed, and deliveries due again, are looked for."
    )
    alert_attempts_max: int = Field(default=12, ge=1, le=100, description="Attempts at a delivery before it is given up.")
    alert_timeout_s: float = Field(default=10.0, gt=0, le=60, description="How long one attempt may take.")
    alert_private_addresses: bool = Field(
        default=False, description="Whether webhooks may be on private networks and on this machine; link-local ones never may."
    )
    smtp_host: str = Field(default="", description="The SMTP server that sends alerts by e-mail. Empty: none are sent.")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(default="starttls", description="How its connection is secured.")
    smtp_username: str = Field(default="", description="Who we are to it; empty: nobody.")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="The password that goes with it.")
    smtp_sender: str = Field(
        default="farthing@localhost", pattern=r"^[^@\s<>,]+@[^@\s<>,]+$", description="The address that alerts come from."
    )
    smtp_ca_file: Path | None = Field(default=None, description="Certificates to trust besides the system's, as a PEM file.")
