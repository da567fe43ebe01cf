"""Calibrations as they are kept: what was fitted, what is expected of it, whether it is in force. And the port to where they are.

What a store promises:

- A calibration is durable before `add` returns; its policy and report never change after. Versions count from 1 within scope and task.
- At most one calibration is in force for a scope and task, whoever activates at the same time; which ones, changes in one transaction.
- The same request_id gives the stored answer, however often and by however many it is asked; with another body it is refused.
- Rows become visible in the order of their numbers, a changed row has a new one: whoever has seen number n has seen every change before.
- Nothing of an organisation is read by the name of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from farthing_core.errors import FarthingError

CALIBRATIONS_MAX = 1_000
"""So many calibrations may an organisation keep."""


class CalibrationUnknown(FarthingError):
    """No calibration of this name in the organisation."""

    def __init__(self, *, calibration_id: str) -> None:
        super().__init__(f"no calibration {calibration_id!r} in this scope", calibration_id=calibration_id)


class CalibrationsFull(FarthingError):
    """An organisation keeps as many calibrations as it may."""

    def __init__(self, *, calibrations_max: int) -> None:
        super().__init__(
            f"{calibrations_max} calibrations are kept, which is all that may be", calibrations_max=calibrations_max
        )


class State(IntEnum):
    """What becomes of a calibration; the numbers are the contract's."""

    DRAFT = 1
    ACTIVE = 2
    RETIRED = 3


Span = tuple[float, float, float]
"""An expectation, and the lower and the upper end of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point on the curve of cost against quality, as shares of the strong model's."""

    threshold: float
    cost_share: float
    quality_share: float
    escalated_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a fit says of its policy. `target` is in words; `quality_ratio_min` is the promise, None where the target was none."""

    opening_models: tuple[str, ...]
    strong_model: str
    target: str
    quality_ratio_min: float | None
    guaranteed: bool
    confidence: float
    threshold: float
    saving: Span
    quality_ratio: Span
    risk: float
    escalated_share: float
    examples: int
    query_only: bool = False
    alternative_models: tuple[str, ...] = ()
    curve: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCalibration:
    """A fitted policy that is to be kept; `policy` is its artefact."""

    calibration_id: str
    organization: str
    scope: str
    task: str
    report: Report
    policy: bytes = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration that is kept. `made.policy` is empty where it was not asked for; `created_number` grows with each that is made."""

    number: int
    made: NewCalibration
    version: int
    state: State
    created_number: int
    activated_at: datetime | None = None
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """What is in force for a scope and task after a change, None where nothing is, and the name of what was before."""

    calibration: Calibration | None
    retired_calibration_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calibrations are listed: those of `scope` and above, with `descendants` also those below; those made before
    the one with the `created_number` `before` where it is given."""

    organization: str
    scope: str
    task: str = ""
    descendants: bool = False
    before: int | None = None


class CalibrationStore(Protocol):
    """Durable calibrations. Every method raises StoreUnavailable."""

    async def find_request(self, organization: str, request_id: str) -> tuple[Calibration, bytes] | None:
        """The calibration that was made under a request_id, and its fingerprint."""
        ...

    async def add(
        self, new: NewCalibration, *, request_id: str, fingerprint: bytes, activate: bool
    ) -> tuple[Calibration, bool]:
        """Keeps a calibration and, if asked to, puts it in force; True where it was there before. Raises RequestIdReused,
        CalibrationsFull."""
        ...

    async def get(self, organization: str, calibration_id: str) -> Calibration:
        """One, with its policy. Raises CalibrationUnknown."""
        ...

    async def list_from(self, wanted: Wanted, *, rows_max: int) -> list[Calibration]:
        """Calibrations without their policies, newest first."""
        ...

    async def activate(
        self, scope: str, task: str, calibration_id: str, *, request_id: str, fingerprint: bytes, at: datetime
    ) -> Activation:
        """Puts a calibration in force for its own scope and task, or none where its name is empty: then for those that are named. Raises
        CalibrationUnknown, RequestIdReused."""
        ...

    async def after(self, number: int, *, rows_max: int) -> Sequence[Calibration]:
        """The rows with larger numbers, in order; only those in force come with their policy."""
        ...
