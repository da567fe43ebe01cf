"""Identifiers, handed in like time."""

from __future__ import annotations

import uuid
from collections.abc import Callable

NewId = Callable[[], str]
"""Makes a fresh identifier."""


def random_uuid() -> str:
    """A random UUID as text."""
    return str(uuid.uuid4())
