"""Ranges of time in requests: whole hours, in steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from farthing_core.errors import FieldInvalid

HOUR = timedelta(hours=1)
_DAYS = 30
_STEPS_MAX = 1_000
_YEARS = range(1970, 2200)


def moment(request: Any, field: str) -> datetime | None:
    """A moment that a request may give. Raises FieldInvalid for one that no calendar here holds."""
    if not request.HasField(field):
        return None
    try:
        found: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldInvalid(field=field, problem="is no moment") from error
    if found.year not in _YEARS:
        raise FieldInvalid(field=field, problem=f"must lie between the years {_YEARS.start} and {_YEARS.stop - 1}")
    return found


def hours(request: Any, *, now: datetime) -> tuple[datetime, datetime]:
    """The range from start_time to end_time in whole hours; the 30 days up to now where they are absent. Raises FieldInvalid."""
    end = moment(request, "end_time") or now
    start = moment(request, "start_time") or end - timedelta(days=_DAYS)
    if end <= start:
        raise FieldInvalid(field="end_time", problem="must be after start_time")
    return floor(start), ceiling(end)


def floor(at: datetime) -> datetime:
    """The hour that a moment lies in."""
    return at.replace(minute=0, second=0, microsecond=0)


def ceiling(at: datetime) -> datetime:
    """The first full hour that is not before a moment."""
    return at if floor(at) == at else floor(at) + HOUR


def step(step_h: int, start: datetime, end: datetime) -> timedelta | None:
    """How long each step is; None for the whole range. Raises FieldInvalid for more steps than anybody draws."""
    if not step_h:
        return None
    length = step_h * HOUR
    if -(-(end - start) // length) > _STEPS_MAX:
        raise FieldInvalid(field="step_h", problem=f"makes more than {_STEPS_MAX} steps of the range")
    return length
