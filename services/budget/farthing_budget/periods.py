"""Periods: calendar ones in a budget's time zone, and rolling windows in slots."""

from __future__ import annotations

from dataclasses import dataclass
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
    ROLLING = 6


SLOTS_OF_A_WINDOW = 24
"""A rolling window forgets what was spent in steps of a 24th of itself."""
SLOTS_AHEAD = 2
"""Clocks of replicas differ, and are set back: what was charged to so many slots to come counts too, so that nobody overlooks it."""
WINDOW_S_MIN = 60


@dataclass(frozen=True, slots=True)
class PeriodTerms:
    """How a period is reckoned: where years, quarters and months begin, and how long a rolling window is."""

    period: Period
    time_zone: str
    start_month: int = 1
    start_day: int = 1
    window_s: int = 0

    def checked(self) -> PeriodTerms:
        """These terms; raises FieldInvalid for a window without a length, or a length without a window."""
        if self.period is Period.ROLLING and self.window_s < WINDOW_S_MIN:
            raise FieldInvalid(field="period_terms.window_s", problem=f"a rolling window takes at least {WINDOW_S_MIN} seconds")
        if self.period is not Period.ROLLING and self.window_s:
            raise FieldInvalid(field="period_terms.window_s", problem="is only for PERIOD_ROLLING")
        if self.start_month != 1 and self.period not in (Period.QUARTER, Period.YEAR):
            raise FieldInvalid(field="period_terms.fiscal_start_month", problem="is only for quarters and years")
        if self.start_day != 1 and self.period not in (Period.MONTH, Period.QUARTER, Period.YEAR):
            raise FieldInvalid(field="period_terms.start_day", problem="is only for months, quarters and years")
        return self


def time_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name; UTC for the empty one. Raises FieldInvalid for a zone that does not exist."""
    try:
        return _zone(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise FieldInvalid(field="time_zone", problem=f"{name!r} is no IANA time zone") from error


@lru_cache(maxsize=512)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=1024)
def period_bounds(terms: PeriodTerms, now: datetime) -> tuple[datetime, datetime]:
    """When the period around `now` began and when it ends, in UTC; of a rolling window, its present slot.

    Days have 23 to 25 hours where clocks change.
    """
    if terms.period is Period.ROLLING:
        slot_s = _slot_s(terms)
        start = datetime.fromtimestamp(int(now.timestamp()) // slot_s * slot_s, UTC)
        return start, start + timedelta(seconds=slot_s)
    tz = time_zone(terms.time_zone)
    today = now.astimezone(tz).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    begin = _start(terms, today)
    return _utc(begin, tz), _utc(_following(terms.period, begin), tz)


def window_starts(terms: PeriodTerms, now: datetime) -> list[datetime]:
    """The starts of the slots that a rolling window still counts: the oldest first, then those ahead, and the present one last.

    A slot counts until all of it has left the window, so the window is never shorter than promised.
    """
    present, _ = period_bounds(terms, now)
    slot_s = _slot_s(terms)
    back = -(-terms.window_s // slot_s)
    steps = (*range(-back, 0), *range(1, SLOTS_AHEAD + 1), 0)
    return [present + timedelta(seconds=slot_s * step) for step in steps]


def neighbours(terms: PeriodTerms, now: datetime) -> list[tuple[datetime, datetime]]:
    """The present period; of a rolling window, the present slot and those around it. Each with its start and its end.

    All of them are locked together: whose clocks are at most `SLOTS_AHEAD` slots apart then have one in common, and wait for each other.
    """
    present = period_bounds(terms, now)
    if terms.period is not Period.ROLLING:
        return [present]
    slot = timedelta(seconds=_slot_s(terms))
    return [(start, start + slot) for start in (present[0] - slot, present[0], present[0] + slot)]


def leaves_at(terms: PeriodTerms, slot_start: datetime) -> datetime:
    """When what was spent in a slot stops counting."""
    slot_s = _slot_s(terms)
    return slot_start + timedelta(seconds=slot_s * (-(-terms.window_s // slot_s) + 1))


def _slot_s(terms: PeriodTerms) -> int:
    return max(1, -(-terms.window_s // SLOTS_OF_A_WINDOW))


def _start(terms: PeriodTerms, today: datetime) -> datetime:
    match terms.period:
        case Period.DAY | Period.ROLLING:
            return today
        case Period.WEEK:
            return today - timedelta(days=today.weekday())
        case Period.MONTH:
            months = 1
        case Period.QUARTER:
            months = 3
        case Period.YEAR:
            months = 12
    # Days before the starting day of a month belong to the month before.
    month = _months_later(today.replace(day=1), 0 if today.day >= terms.start_day else -1)
    behind = (month.month - terms.start_month) % months
    return _months_later(month, -behind).replace(day=terms.start_day)


def _following(period: Period, start: datetime) -> datetime:
    match period:
        case Period.DAY | Period.ROLLING:
            return start + timedelta(days=1)
        case Period.WEEK:
            return start + timedelta(days=7)
        case Period.MONTH:
            return _months_later(start, 1)
        case Period.QUARTER:
            return _months_later(start, 3)
        case Period.YEAR:
            return _months_later(start, 12)


def _months_later(start: datetime, months: int) -> datetime:
    index = start.month - 1 + months
    return start.replace(year=start.year + index // 12, month=index % 12 + 1)


def _utc(local: datetime, tz: ZoneInfo) -> datetime:
    """A local midnight in UTC; a midnight that clocks skip begins when the day does."""
    return local.replace(tzinfo=tz).astimezone(UTC)
