"""Settings of the optimizer: FARTHING_OPTIMIZER_…"""

from __future__ import annotations

from farthing_runtime.settings import ServiceSettings, service_config
from pydantic import Field


class Settings(ServiceSettings):
    """How the optimizer uses the machine."""

    model_config = service_config("optimizer")

    inline_characters_max: int = Field(
        default=32_768, ge=0, description="Conversations up to this size are handled at once; larger ones in a worker thread."
    )
    workers: int = Field(default=2, ge=1, le=64, description="Threads for large conversations.")
    remembered_counts_max: int = Field(
        default=8192, ge=1, description="Counts that are remembered by a digest of the text; the text itself is not kept."
    )
