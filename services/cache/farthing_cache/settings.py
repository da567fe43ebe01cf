"""Settings of the cache: FARTHING_CACHE_…"""

from __future__ import annotations

from typing import Literal

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field


class Settings(ServiceSettings):
    """What is kept, for how long, and how alike is alike enough."""

    model_config = service_config("cache")

    ttl_s_default: int = Field(default=86_400, ge=1, description="Seconds an answer is kept at most when nobody says.")
    similarity_min: float = Field(
        default=0.86, ge=0, le=1, description="Cosine from which a similar question is considered at all."
    )
    semantic_characters_max: int = Field(default=400, ge=1, le=2000, description="Longer questions are compared exactly only.")
    candidates_max: int = Field(default=5, ge=1, le=100, description="Neighbours considered for one question.")
    hot_bytes_max: int = Field(default=64 * 1024 * 1024, ge=0, description="Room for hot entries in memory.")
    vectors_remembered_max: int = Field(default=2_000, ge=0, description="Texts whose vectors are remembered in memory.")
    seal: Literal["on", "off"] = Field(
        default="on",
        description="Whether answers and questions are kept under the organisation's data key, which the privacy service lends; off where "
        "disks are encrypted instead.",
    )
    seal_organizations_max: int = Field(default=10_000, ge=1, description="Organisations whose keys are on loan at once.")
    embedding_threads: int = Field(default=1, ge=1, le=32, description="Threads of the embedding model.")
    batch_size_max: int = Field(default=256, ge=1, description="Look-ups or stores that share a statement.")
    queue_size_max: int = Field(default=10_000, ge=1, description="Look-ups or stores that may wait.")
    pool_size_max: int = Field(default=6, ge=2, le=100, description="Connections to Postgres.")
    sweep_interval_s: float = Field(default=60.0, gt=0, description="How often expired entries are forgotten.")
    flush_interval_s: float = Field(default=5.0, gt=0, description="How often counts of look-ups are written down.")
