"""Calendar periods: time zones, clocks that change, leap days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from farthing_budget.periods import Period, PeriodTerms, period_bounds, time_zone
from farthing_core.errors import FieldInvalid
from hypothesis import given
from hypothesis import strategies as st

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Africa/Cairo",
)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.DAY, utc(2026, 5, 20), utc(2026, 5, 21)),
        (Period.WEEK, utc(2026, 5, 18), utc(2026, 5, 25)),
        (Period.MONTH, utc(2026, 5, 1), utc(2026, 6, 1)),
        (Period.QUARTER, utc(2026, 4, 1), utc(2026, 7, 1)),
        (Period.YEAR, utc(2026, 1, 1), utc(2027, 1, 1)),
    ],
)
def test_periods_follow_the_calendar(period: Period, start: datetime, end: datetime) -> None:
    assert period_bounds(PeriodTerms(period, "UTC"), utc(2026, 5, 20, 17, 3)) == (start, end)


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        (Period.MONTH, utc(2024, 2, 29, 12), utc(2024, 2, 1), utc(2024, 3, 1)),
        (Period.DAY, utc(2024, 2, 29), utc(2024, 2, 29), utc(2024, 3, 1)),
        (Period.MONTH, utc(2026, 2, 28, 23, 59), utc(2026, 2, 1), utc(2026, 3, 1)),
        (Period.YEAR, utc(2024, 2, 29), utc(2024, 1, 1), utc(2025, 1, 1)),
        (Period.QUARTER, utc(2024, 12, 31), utc(2024, 10, 1), utc(2025, 1, 1)),
        (Period.WEEK, utc(2026, 1, 1), utc(2025, 12, 29), utc(2026, 1, 5)),
        (Period.WEEK, utc(2026, 1, 4, 23, 59, 59), utc(2025, 12, 29), utc(2026, 1, 5)),
        (Period.WEEK, utc(2026, 1, 5), utc(2026, 1, 5), utc(2026, 1, 12)),
        (Period.MONTH, utc(2026, 12, 31), utc(2026, 12, 1), utc(2027, 1, 1)),
    ],
)
def test_leap_days_and_turns_of_the_year_are_right(period: Period, now: datetime, start: datetime, end: datetime) -> None:
    assert period_bounds(PeriodTerms(period, "UTC"), now) == (start, end)


def test_a_day_has_23_hours_when_clocks_go_forward_and_25_when_they_go_back() -> None:
    spring = period_bounds(PeriodTerms(Period.DAY, "Europe/Berlin"), utc(2026, 3, 29, 12))
    autumn = period_bounds(PeriodTerms(Period.DAY, "Europe/Berlin"), utc(2026, 10, 25, 12))
    assert spring == (utc(2026, 3, 28, 23), utc(2026, 3, 29, 22))
    assert autumn == (utc(2026, 10, 24, 22), utc(2026, 10, 25, 23))


def test_a_month_begins_at_local_midnight() -> None:
    assert period_bounds(PeriodTerms(Period.MONTH, "America/New_York"), utc(2026, 4, 1, 3, 59))[0] == utc(2026, 3, 1, 5)
    assert period_bounds(PeriodTerms(Period.MONTH, "America/New_York"), utc(2026, 4, 1, 4))[0] == utc(2026, 4, 1, 4)


def test_a_midnight_that_clocks_skip_still_divides_two_days() -> None:
    # In Cairo, 26 April 2024 begins at 01:00: the hour from midnight does not exist.
    start, end = period_bounds(PeriodTerms(Period.DAY, "Africa/Cairo"), utc(2024, 4, 26, 12))
    assert (start, end) == (utc(2024, 4, 25, 22), utc(2024, 4, 26, 21))
    assert start.astimezone(ZoneInfo("Africa/Cairo")).date().isoformat() == "2024-04-26"
    assert period_bounds(PeriodTerms(Period.DAY, "Africa/Cairo"), utc(2024, 4, 25, 12))[1] == start


@given(
    moment=st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1)),
    zone=st.sampled_from(ZONES),
    period=st.sampled_from(list(Period)),
)
def test_periods_tile_time_without_gap_or_overlap(moment: datetime, zone: str, period: Period) -> None:
    now = moment.replace(tzinfo=UTC)
    start, end = period_bounds(PeriodTerms(period, zone), now)
    assert start <= now < end
    assert period_bounds(PeriodTerms(period, zone), end)[0] == end
    assert period_bounds(PeriodTerms(period, zone), start - timedelta(microseconds=1))[1] == start


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "Europe", "a\x00b", "UTC "])
def test_a_time_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        time_zone(name)
    assert caught.value.field == "time_zone"


def test_the_empty_time_zone_is_utc() -> None:
    assert time_zone("").key == "UTC"
