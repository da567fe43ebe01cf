"""Shares that add up, budgets of ranges, and which roll-up answers what."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from farthing_budget.budgets import Limits, Selector, Terms
from farthing_budget.exports import Csv, plain, safe, usd
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.questions import DIMENSIONS_OF, Group, UsageFilter, UsageQuestion
from farthing_budget.reports import (
    Allocated,
    AllocationQuestion,
    allocatable,
    budget_for,
    budgets_for,
    chosen,
    lines_of,
    shares_ppm,
)
from farthing_budget.rollups import DIMENSIONS, ROLLUPS, Grain, pieces, place_number
from farthing_core.errors import FieldInvalid
from hypothesis import given
from hypothesis import strategies as st

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@given(st.lists(st.integers(-(2**53), 2**53), max_size=50))
def test_shares_add_up_to_a_million_wherever_something_was_spent(costs: list[int]) -> None:
    shares = shares_ppm(costs)
    assert sum(shares) == (1_000_000 if any(cost > 0 for cost in costs) else 0)
    assert all(0 <= share <= 1_000_000 for share in shares)
    whole = sum(cost for cost in costs if cost > 0)
    assert all(
        abs(share * whole - max(cost, 0) * 1_000_000) < whole for share, cost in zip(shares, costs, strict=True) if whole
    )


def test_what_is_left_over_goes_to_the_largest_remainders() -> None:
    assert shares_ppm([1, 1, 1]) == [333_334, 333_333, 333_333]
    assert shares_ppm([2, 1]) == [666_667, 333_333]
    assert shares_ppm([5, -3, 5]) == [500_000, 0, 500_000]
    assert shares_ppm([]) == []


def terms(limit: int, period: Period, *, scope: str = "organizations/acme", window_s: int = 0, zone: str = "UTC") -> Terms:
    return Terms("acme", f"{period}", scope, "", PeriodTerms(period, zone, window_s=window_s), Limits(limit, None))


@pytest.mark.parametrize(
    ("period", "expected"),
    [(Period.MONTH, 3_100), (Period.DAY, 31 * 3_100), (Period.WEEK, 13_729), (Period.YEAR, 264)],
)
def test_a_budget_allows_in_a_month_what_its_limit_makes_a_day(period: Period, expected: int) -> None:
    assert budget_for(terms(3_100, period), MARCH, APRIL) == expected


def test_a_window_and_a_range_over_several_months_are_shared_out_too() -> None:
    assert budget_for(terms(700, Period.ROLLING, window_s=7 * 86_400), MARCH, APRIL) == 3_100
    assert budget_for(terms(3_100, Period.MONTH), MARCH, APRIL + timedelta(days=15)) == 3_100 + 1_550
    half = datetime(2026, 3, 16, 12, tzinfo=UTC)
    assert budget_for(terms(3_100, Period.MONTH), half, APRIL) == 1_550


def test_a_range_of_very_many_periods_is_answered_all_the_same() -> None:
    first, last = datetime(1970, 1, 1, tzinfo=UTC), datetime(8970, 1, 1, tzinfo=UTC)
    assert budget_for(terms(10, Period.DAY), first, last) == 10 * (last - first).days


def test_the_tightest_budget_of_all_work_on_a_scope_counts() -> None:
    day, month = terms(100, Period.DAY), terms(2_000, Period.MONTH)
    of_a_model = Terms("acme", "b", day.scope, "", day.period_terms, Limits(1, None), selector=Selector("model", "m"))
    of_tokens = Terms("acme", "c", day.scope, "", day.period_terms, Limits(None, 5))
    assert budgets_for([day, month, of_a_model, of_tokens], MARCH, APRIL) == {day.scope: 2_000}


def question(group: Group, *, lines_max: int = 10, scope: str = "organizations/acme") -> AllocationQuestion:
    return AllocationQuestion(scope, MARCH, APRIL, group, lines_max)


def test_lines_that_do_not_fit_are_one_line_and_nothing_is_lost() -> None:
    found = [Allocated((f"w{number}",), 2, 10 - number, 5, 1, 3) for number in range(4)]
    total = Allocated((), 12, 45, 30, 6, 18)  # there are two more that were not even fetched
    lines = chosen(found, total, lines_max=3)
    assert lines == [*found[:2], Allocated((), 8, 26, 20, 4, 12)]
    assert chosen(found[:3], total, lines_max=3) == found[:3]
    assert [line.name for line in lines_of(question(Group.WORKSPACE), lines, {})] == ["w0", "w1", "(other)"]


def test_places_of_one_name_are_told_apart_by_their_parents() -> None:
    found = [Allocated(keys, 1, 10) for keys in (("ads", "ranker"), ("search", "ranker"), ("search", "index"), ("search", ""))]
    budgets = {"organizations/acme/workspaces/search/projects/index": 7, "organizations/acme/workspaces/search": 9}
    lines = lines_of(question(Group.PROJECT), found, budgets)
    assert [(line.name, line.budget_usd_nanos) for line in lines] == [
        ("ads/ranker", None),
        ("search/ranker", None),
        ("index", 7),
        ("(none)", None),
    ]


def test_the_range_before_is_as_long_and_starts_no_earlier_than_time_itself() -> None:
    asked = question(Group.MODEL)
    assert asked.previous().start == MARCH - timedelta(days=31)
    assert asked.previous().end == MARCH
    ancient = AllocationQuestion("organizations/acme", datetime(1971, 1, 1, tzinfo=UTC), APRIL, Group.MODEL, 1)
    assert ancient.previous_start.year == 1970


def test_spending_is_allocated_to_the_level_below() -> None:
    path = "organizations/acme/workspaces/w/projects/p/users/u"
    parts = path.split("/")
    levels = ["/".join(parts[: 2 * depth]) for depth in (1, 2, 3, 4)]
    assert [allocatable(None, each) for each in levels] == [Group.WORKSPACE, Group.PROJECT, Group.USER, Group.MODEL]
    assert allocatable(Group.KEY, path) is Group.KEY
    with pytest.raises(FieldInvalid):
        allocatable(Group.TAG, path)


def test_every_question_has_a_rollup_and_the_smallest_is_taken() -> None:
    at = MARCH + timedelta(hours=5)

    def numbers(*dimensions: str, hourly: bool = False, hours: int = 100) -> list[int]:
        return [each.rollup.number for each in pieces(at, at + timedelta(hours=hours), dimensions, hourly=hourly)]

    assert numbers("model") == [1]
    assert numbers("workspace") == [3, 2, 3]
    assert numbers("user_name") == [7, 2, 7]
    assert numbers("service", "project") == [7, 4, 7]
    assert numbers("key_id") == [7, 6, 7]
    assert numbers("key_id", hourly=True) == [7]
    assert numbers("key_id", hours=10) == [7]
    assert numbers("tags") == [8]
    assert numbers("tags", "key_id") == [7, 9, 7]
    for group in Group:
        assert pieces(MARCH, APRIL, DIMENSIONS_OF[group], hourly=group is Group.HOUR)


@given(st.integers(0, 2_000), st.integers(1, 2_000), st.sets(st.sampled_from(DIMENSIONS)), st.booleans())
def test_pieces_cover_a_range_once_and_days_are_whole(first: int, hours: int, dimensions: set[str], hourly: bool) -> None:
    start = MARCH + timedelta(hours=first)
    end = start + timedelta(hours=hours)
    found = pieces(start, end, dimensions, hourly=hourly)
    assert (found[0].start, found[-1].end) == (start, end)
    for one, other in itertools.pairwise(found):
        assert one.end == other.start
    for each in found:
        assert each.start < each.end
        assert each.rollup.grain is Grain.HOUR or (each.start.hour, each.end.hour) == (0, 0)
        assert set(dimensions) <= each.rollup.dimensions
        assert not each.rollup.by_tag or "tags" in dimensions


def test_places_are_told_apart_however_their_values_run_together() -> None:
    place = ("", "", "", "ab", "c", "", "", "", "", ())
    others = [
        ("", "", "", "a", "bc", "", "", "", "", ()),
        ("", "", "", "ab", "", "c", "", "", "", ()),
        ("", "", "", "ab", "c", "", "", "", "", ("",)),
        ("", "", "", "ab", "c", "", "", "", "", ("x", "y")),
        ("", "", "", "ab", "c", "", "", "", "", ("x1:y",)),
    ]
    assert len({place_number(each) for each in (place, *others)}) == 6
    assert len({each.number for each in ROLLUPS}) == len(ROLLUPS)


def test_a_question_knows_which_places_count() -> None:
    asked = UsageQuestion(
        "organizations/acme/workspaces/w/projects/p", MARCH, APRIL, (Group.KEY, Group.DAY), 1, only=UsageFilter(task="chat")
    )
    assert asked.places == {"workspace": "w", "project": "p", "task": "chat"}
    assert asked.dimensions == {"workspace", "project", "task", "key_id"}


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.000000000"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (2**53 - 1, "9007199.254740991"),
        (-1_500_000_000, "-1.500000000"),
    ],
)
def test_money_is_exact_decimal_text(nanos: int, text: str) -> None:
    assert usd(nanos) == text


@given(st.text(max_size=20))
def test_no_cell_begins_as_a_formula_and_defusing_can_be_undone(text: str) -> None:
    assert safe(text)[:1] not in {"=", "+", "-", "@", "\t", "\r"}
    if not text.startswith("'"):
        assert plain(safe(text)) == text


def test_chunks_are_whole_lines_and_bounded() -> None:
    made = Csv(["a", "b"])
    chunks = [*made.add(["x" * 100, f"two\nlines {number}"] for number in range(10_000)), made.rest()]
    assert made.rows == 10_000
    assert len(chunks) > 3
    assert all(chunk.endswith(b'"\n') for chunk in chunks if chunk)
    assert max(map(len, chunks)) < 256 * 1024 + 200
