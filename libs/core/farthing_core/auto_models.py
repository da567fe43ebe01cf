"""The model names that let the router choose, in every service the same."""

from __future__ import annotations

AUTO_MODEL = "farthing/auto"
"""The model name that lets the router choose."""
AUTO_MODELS = {
    "": "",
    AUTO_MODEL: "",
    f"{AUTO_MODEL}:cheap": "cost",
    f"{AUTO_MODEL}:fast": "latency",
    f"{AUTO_MODEL}:quality": "quality",
    f"{AUTO_MODEL}:balanced": "balanced",
}
"""The names that let the router choose, and what each says matters most."""
