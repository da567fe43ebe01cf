"""Settings of the cache: FARTHING_CACHE_…"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """What is kept, for how long, and how alike is alike enough."""

    model_config = service_config("cache")

    ttl_s_default: int = Field(default=86_400, ge=1, description="Seconds an answer is kept at most when nobody says.")
    similarity_min: float = Field(
        default=0.86, ge=0, le=1, description="Cosine from which a similar question is considered at all."
    )
    error_budget_ppm: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Wrong answers per million look-ups that hits by meaning may give."
    )
    check_ppm: int = Field(
        default=20_000,
        ge=0,
        le=1_000_000,
        description="Share of hits by meaning, in millionths, that are checked against a fresh answer; more while little is known.",
    )
    hits_kept_max: int = Field(default=100_000, ge=1, description="Hits by meaning kept an organisation, for 30 days at most.")
    refresh_s: float = Field(default=2.0, gt=0, description="How often what other replicas have learned is read.")
    semantic_characters_max: int = Field(default=400, ge=1, le=2000, description="Longer questions are compared exactly only.")
    candidates_max: int = Field(default=5, ge=1, le=100, description="Neighbours considered for one question.")
    organization_bytes_max: int = Field(
        default=1 << 30, ge=1_000_000, description="Room for the answers of an organisation; what is worth least goes first."
    )
    organization_entries_max: int = Field(default=1_000_000, ge=100, description="How many answers an organisation may keep.")
    hot_bytes_max: int = Field(default=64 * 1024 * 1024, ge=0, description="Room for hot entries in memory.")
    readings_bytes_max: int = Field(
        default=16 * 1024 * 1024,
        ge=0,
        description="Room in memory for vectors and tokens of texts that were embedded a moment ago.",
    )
    embedder: str = Field(
        default="minilm",
        pattern=r"^(minilm|(sentence-transformers|openai):\S{1,200})$",
        description="The embedding model: minilm (built in), sentence-transformers:NAME-OR-FOLDER (needs the extra), or openai:MODEL (any "
        "API that speaks OpenAI's wire). Vectors of two models are never compared.",
    )
    embedder_base_url: str = Field(
        default="https://api.openai.com/v1", pattern=r"^https?://.+", description="Where the API of openai:MODEL is."
    )
    embedder_key: SecretStr = Field(default=SecretStr(""), description="Its key.")
    embedder_key_file: Path | None = Field(default=None, description="A file that holds its key; read each time it is needed.")
    embedder_dimensions: int = Field(
        default=0, ge=0, le=16_000, description="How long its vectors are to be; 0 for the model's own length."
    )
    embedder_timeout_s: float = Field(default=10.0, gt=0, le=120, description="How long it may take to answer.")
    embedder_device: str = Field(
        default="", description="Where sentence-transformers runs: cpu, cuda, mps …; the best there is when empty."
    )
    seal: Literal["on", "off"] = Field(
        default="on",
        description="Whether answers and questions are kept under the organisation's data key, which the privacy service lends; off where "
        "disks are encrypted instead.",
    )
    seal_organizations_max: int = Field(default=10_000, ge=1, description="Organisations whose keys are on loan at once.")
    embedding_threads: int = Field(default=1, ge=1, le=32, description="Threads of the embedding model.")
    embedding_queue_size_max: int = Field(
        default=512,
        ge=2,
        description="Texts that may wait to be embedded; beyond it look-ups miss and answers are found exactly only.",
    )
    flights: Literal["auto", "memory", "redis", "postgres"] = Field(
        default="auto",
        description="Where identical requests under way find one another: redis, or postgres where several replicas have none, or "
        "memory, which is right for one process. auto: redis where there is one, else memory.",
    )
    flight_lease_s: float = Field(
        default=10.0, gt=0, le=600, description="How long those who wait for a leader of whom nothing is heard are held up."
    )
    flight_failures_max: int = Field(
        default=3, ge=1, le=100, description="Leaders in a row that may fail before all who wait ask for themselves."
    )
    flight_waiters_max: int = Field(
        default=2_000, ge=0, le=100_000, description="Requests of a replica that may wait for others; more ask for themselves."
    )
    batch_size_max: int = Field(default=256, ge=1, description="Look-ups or stores that share a statement.")
    queue_size_max: int = Field(default=10_000, ge=1, description="Look-ups or stores that may wait.")
    pool_size_max: int = Field(default=6, ge=2, le=100, description="Connections to Postgres.")
    sweep_interval_s: float = Field(default=60.0, gt=0, description="How often expired entries are forgotten.")
    flush_interval_s: float = Field(default=5.0, gt=0, description="How often counts of look-ups are written down.")

    @property
    def embedder_kind(self) -> str:
        """minilm, sentence-transformers or openai."""
        return self.embedder.partition(":")[0]

    @property
    def embedder_model(self) -> str:
        """The model's name or folder; empty for the built-in one."""
        return self.embedder.partition(":")[2]
