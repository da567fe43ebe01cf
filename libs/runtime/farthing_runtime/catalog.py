"""The whole system as a table: every target, where its app is, and what it needs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from farthing_runtime.registration import App
from farthing_runtime.settings import SettingsInvalid


@dataclass(frozen=True, slots=True)
class Target:
    """One service that can be hosted, named by import strings so that only what is hosted is imported.

    `schema` is the Postgres schema it owns, "" for none; `peers` are the targets that it calls.
    """

    name: str
    package: str
    schema: str = ""
    peers: tuple[str, ...] = ()

    def app(self) -> App:
        """Its composition root."""
        return importlib.import_module(f"{self.package}.app").app  # type: ignore[no-any-return]

    def settings_type(self) -> Any:
        """Its settings class."""
        return importlib.import_module(f"{self.package}.settings").Settings


CATALOG: dict[str, Target] = {
    target.name: target
    for target in (
        Target("budget", "farthing_budget", schema="budget"),
        Target("privacy", "farthing_privacy", schema="privacy", peers=("budget",)),
        Target("cache", "farthing_cache", schema="cache", peers=("privacy",)),
        Target("optimizer", "farthing_optimizer"),
        Target("router", "farthing_router", schema="router"),
        Target("orchestrator", "farthing_orchestrator", peers=("budget", "cache", "optimizer", "router", "privacy")),
        Target("gateway", "farthing_gateway", schema="gateway", peers=("orchestrator", "router")),
    )
}
"""In the order in which they start: peers before their callers."""


def targets_named(names: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets of these names in starting order; all when none is named.

    Raises SettingsInvalid for a name that is not in the catalog.
    """
    for name in names:
        if name not in CATALOG:
            raise SettingsInvalid(field="target", problem=f"{name!r} is unknown; known are {', '.join(CATALOG)}")
    return tuple(target for target in CATALOG.values() if not names or target.name in names)
