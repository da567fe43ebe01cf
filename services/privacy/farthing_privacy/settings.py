"""Settings of the privacy service: FARTHING_PRIVACY_…"""

from __future__ import annotations

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """How much may be learned, and how the service uses its store and its peer."""

    model_config = service_config("privacy")

    epsilon_total_micros: int = Field(
        default=10_000_000, ge=0, le=1_000_000_000, description="ε that an organisation may spend in all, in millionths."
    )
    master_keys: SecretStr = Field(
        default=SecretStr(""),
        description="Master keys as ID:BASE64,ID:BASE64 (32 random bytes each): the first wraps data keys, the others still unwrap. "
        "Empty: a key file in the data folder, which is for one machine; production sets its own.",
    )
    lease_s: int = Field(
        default=60, ge=1, le=3600, description="How long peers may use data keys before they ask again, in seconds."
    )
    users_max: int = Field(
        default=1_000_000, ge=1, le=10_000_000, description="Users that one question looks at; those beyond are left out."
    )
    ledger_timeout_s: float = Field(default=10.0, gt=0, description="How long one page of usage may take.")
    inline_characters_max: int = Field(
        default=65_536, ge=0, description="Texts up to this size are masked at once; larger ones in a worker thread."
    )
    workers: int = Field(default=2, ge=1, le=64, description="Threads for large texts and for noise.")
    pool_size_max: int = Field(default=4, ge=1, le=100, description="Database connections.")
