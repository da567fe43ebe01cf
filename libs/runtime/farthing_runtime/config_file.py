"""farthing.yaml: what is too large for environment variables. Each section belongs to one service, which validates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from farthing_runtime.settings import SettingsInvalid

SECTIONS = {
    "version": "the format: 1",
    "providers": "router",
    "models": "router",
    "routing": "router",
    "policy": "orchestrator",
}
"""Top-level keys and who owns them."""
FILE_BYTES_MAX = 4 * 1024 * 1024


def load_config(path: Path | None) -> dict[str, Any]:
    """The sections of farthing.yaml; {} without a file.

    Raises SettingsInvalid, naming the file or the key, when the file cannot be read, is no YAML mapping, or has a key that nobody owns.
    """
    if path is None:
        return {}
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise SettingsInvalid(field=str(path), problem=f"larger than {FILE_BYTES_MAX} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsInvalid(field=str(path), problem=f"cannot be read: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsInvalid(field=str(path), problem="must be a mapping")
    for key in content:
        if key not in SECTIONS:
            raise SettingsInvalid(field=f"{path.name}: {key}", problem=f"unknown; known are {', '.join(SECTIONS)}")
    if content.get("version", 1) != 1:
        raise SettingsInvalid(field=f"{path.name}: version", problem="must be 1")
    return content
