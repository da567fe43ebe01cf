"""Calendar periods in a budget's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from farthing_core.errors import FieldInvalid


class Period(IntEnum):
    """How long a budget lasts before it starts afresh; the numbers are the contract's."""

    DAY = 1
    WEEK = 2
    MONTH = 3
    QUARTER = 4
    YEAR = 5


def time_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name; UTC for the empty one. Raises FieldInvalid for a zone that does not exist."""
    try:
        return _zone(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise FieldInvalid(field="time_zone", problem=f"{name!r} is no IANA time zone") from error


@lru_cache(maxsize=512)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=512)
def period_bounds(period: Period, zone: str, now: datetime) -> tuple[datetime, datetime]:
    """When the period around `now` began and when it ends, in UTC. Days have 23 to 25 hours where clocks change."""
    tz = time_zone(zone)
    today = now.astimezone(tz).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    start = _start(period, today)
    return _utc(start, tz), _utc(_following(period, start), tz)


def _start(period: Period, today: datetime) -> datetime:
    match period:
        case Period.DAY:
            return today
        case Period.WEEK:
            return today - timedelta(days=today.weekday())
        case Period.MONTH:
            return today.replace(day=1)
        case Period.QUARTER:
            return today.replace(month=(today.month - 1) // 3 * 3 + 1, day=1)
        case Period.YEAR:
            return today.replace(month=1, day=1)


def _following(period: Period, start: datetime) -> datetime:
    match period:
        case Period.DAY:
            return start + timedelta(days=1)
        case Period.WEEK:
            return start + timedelta(days=7)
        case Period.MONTH:
            return _months_later(start, 1)
        case Period.QUARTER:
            return _months_later(start, 3)
        case Period.YEAR:
            return start.replace(year=start.year + 1)


def _months_later(start: datetime, months: int) -> datetime:
    index = start.month - 1 + months
    return start.replace(year=start.year + index // 12, month=index % 12 + 1)


def _utc(local: datetime, tz: ZoneInfo) -> datetime:
    """A local midnight in UTC; a midnight that clocks skip begins when the day does."""
    return local.replace(tzinfo=tz).astimezone(UTC)
