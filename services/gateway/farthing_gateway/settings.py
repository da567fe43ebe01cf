"""Settings of the gateway: FARTHING_GATEWAY_…"""

from __future__ import annotations

from typing import Literal, Self

from farthing_core.scopes import parse_scope
from farthing_runtime.settings import LOOPBACK_HOSTS, ServiceSettings, service_config
from pydantic import Field, model_validator


class Settings(ServiceSettings):
    """Where HTTP is served, and to whom."""

    model_config = service_config("gateway")

    http_host: str = Field(default="127.0.0.1", description="Address on which HTTP is served.")
    http_port: int = Field(default=8080, ge=0, le=65535, description="Port of HTTP; 0 takes a free one.")
    auth: Literal["auto", "required", "open"] = Field(
        default="auto",
        description="auto asks for keys unless HTTP is served to this machine only; open never does, and only there.",
    )
    scope_default: str = Field(default="organizations/default", description="The scope of callers without a key.")
    key_trust_s: float = Field(
        default=15.0, ge=0, le=30, description="How long a checked key is believed; a revoked one dies within it."
    )
    body_bytes_max: int = Field(default=16 * 1024 * 1024, ge=1024, description="The largest request body.")
    requests_max: int = Field(default=2000, ge=1, le=100_000, description="HTTP requests served at once; more are refused.")
    request_timeout_s: float = Field(default=600.0, gt=0, le=3600, description="How long a request may take.")
    body_timeout_s: float = Field(default=30.0, gt=0, le=600, description="How long a client may take to send its body.")
    pool_size_max: int = Field(default=4, ge=1, le=100, description="Connections to Postgres.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parse_scope(self.scope_default, field="scope_default")
        if self.auth == "open" and self.http_host not in LOOPBACK_HOSTS:
            raise ValueError("FARTHING_GATEWAY_AUTH=open serves everybody: only on a loopback address")
        return self

    @property
    def keys_required(self) -> bool:
        """Whether a caller must bring a key."""
        return self.auth == "required" or (self.auth == "auto" and self.http_host not in LOOPBACK_HOSTS)
