"""Whom the planner asks. Any of them may be missing, and one that fails is as if it were: a request is routed without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from farthing_router.routing.ports import Assignments, Calibrations, Learned, Pacing, Qualities, Shadowing, Speeds
from farthing_router.routing.routes import Wish
from farthing_router.routing.rules import Rule

_log = structlog.get_logger()
_T = TypeVar("_T")


class Rules(Protocol):
    """Rules in force."""

    def find(self, wish: Wish, *, tier: str, complexity: Callable[[], float]) -> Rule | None:
        """The rule for a request; None without any."""
        ...


@dataclass(frozen=True, slots=True)
class Advisers:
    """Everybody who knows something that helps to choose."""

    rules: Rules | None = None
    speeds: Speeds | None = None
    qualities: Qualities | None = None
    assignments: Assignments | None = None
    calibrations: Calibrations | None = None
    learned: Learned | None = None
    pacing: Pacing | None = None
    shadowing: Sequence[Shadowing] = ()


def asked(whom: str, question: Callable[[], _T], *, otherwise: _T) -> _T:
    """The answer of an adviser; `otherwise`, and a line in the log, where it fails."""
    try:
        return question()
    except Exception as error:  # whatever it is, the request can be routed without
        _log.error("an adviser of the planner failed; it is routed without", adviser=whom, error=type(error).__name__)
        return otherwise
