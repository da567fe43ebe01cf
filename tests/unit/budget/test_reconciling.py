"""Case 16: the tracked total reconciles with the provider's invoice, per model and day, with the difference explained."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from farthing_budget.causes import Cause
from farthing_budget.invoices import Invoice, InvoiceLine, Moments, Rates, Suspended, lines_of_csv, rates_of
from farthing_budget.questions import UsageSum
from farthing_budget.reconciling import Comparison, Known, compare
from farthing_core.errors import FieldInvalid

DAY = date(2026, 3, 10)
IN, CACHED, OUT = 2_500, 1_250, 10_000
RATES = Rates(Fraction(IN), Fraction(CACHED), Fraction(OUT))


def hour_sum(moment: datetime, *, tokens: tuple[int, int, int] = (900, 100, 50), model: str = "m", **figures: int) -> UsageSum:
    """An hour in which so many uncached input, cached input and output tokens were used."""
    fresh, cached, out = tokens
    cost = figures.pop("cost_usd_nanos", fresh * IN + cached * CACHED + out * OUT)
    counted = {
        "requests": 1,
        "attempts": 1,
        "input_tokens": fresh + cached,
        "cached_input_tokens": cached,
        "output_tokens": out,
    }
    return UsageSum((model, moment.strftime("%Y-%m-%dT%H:00Z")), cost_usd_nanos=cost, **{**counted, **figures})


def at(hour: int, day: date = DAY) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


def billed(cost: int, *, model: str = "m", day: date = DAY, tokens: tuple[int, int] = (0, 0)) -> InvoiceLine:
    return InvoiceLine(model, day, *tokens, cost)


def compared(
    lines: Sequence[InvoiceLine], sums: Sequence[UsageSum], *, rates: Rates | None = RATES, suspended: Sequence[Suspended] = ()
) -> Comparison:
    invoice = Invoice("organizations/acme", "p", tuple(lines)).checked()
    return compare(invoice, Known(sums, rates={"m": rates}, suspended=suspended))


def causes(found: Comparison) -> list[Cause]:
    return [each.cause for each in found.differences]


COST = 900 * IN + 100 * CACHED + 50 * OUT


def test_what_was_billed_as_tracked_has_no_cause() -> None:
    found = compared([billed(COST)], [hour_sum(at(9))])
    assert causes(found) == [Cause.NONE]
    assert (found.billed_usd_nanos, found.tracked_usd_nanos, found.explained_usd_nanos) == (COST, COST, 0)


def test_an_invoice_in_whole_cents_differs_by_rounding() -> None:
    cents = [70_000_000, 30_000_000]
    sums = [hour_sum(at(9), cost_usd_nanos=68_000_000), hour_sum(at(9), model="n", cost_usd_nanos=34_999_000)]
    found = compared([billed(cents[0]), billed(cents[1], model="n")], sums)
    assert causes(found) == [Cause.ROUNDING] * 2
    assert found.explained_usd_nanos == found.billed_usd_nanos - found.tracked_usd_nanos


def test_lines_of_one_model_and_day_are_added_up_and_models_go_by_our_names() -> None:
    lines = [billed(COST - 500_000, model="m-2026"), billed(500_000, model="m-2026")]
    invoice = Invoice("organizations/acme", "p", tuple(lines)).named({"m-2026": "m"})
    assert causes(compare(invoice, Known([hour_sum(at(9))]))) == [Cause.NONE]


def test_what_is_missing_on_one_side_is_named() -> None:
    found = compared([billed(5_000_000, model="ghost")], [hour_sum(at(9))])
    by_model = {each.model: each for each in found.differences}
    assert by_model["ghost"].cause is Cause.NOT_TRACKED
    assert by_model["m"].cause is Cause.NOT_BILLED
    assert "1 attempts" in by_model["m"].explanation
    assert found.explained_usd_nanos == 5_000_000 - COST


def test_a_model_that_was_not_billed_is_listed_only_within_the_days_of_the_invoice() -> None:
    sums = [hour_sum(at(9)), hour_sum(at(9 + 24)), hour_sum(at(9 - 24))]
    assert [each.day for each in compared([billed(COST)], sums).differences] == [DAY]


@pytest.mark.parametrize("shift", [8, -5, 14, 1, -9])
def test_a_provider_whose_midnight_lies_elsewhere_is_found_out(shift: int) -> None:
    rng = random.Random(shift)
    sums = [
        hour_sum(at(hour), model=model, tokens=(rng.randrange(5_000), 0, rng.randrange(400)))
        for model in ("m", "n")
        for hour in range(-24, 6 * 24)
        if rng.random() < 0.7
    ]
    known = Known(sums)
    days = [DAY + timedelta(days=number) for number in range(5)]
    lines = [billed(known.cost_of_day(model, day, shift=shift), model=model, day=day) for model in ("m", "n") for day in days]
    found = compared(lines, sums)
    assert set(causes(found)) == {Cause.DAY_BOUNDARY}
    assert f"{abs(shift)} h {'after' if shift > 0 else 'before'}" in found.differences[0].explanation
    assert found.explained_usd_nanos == found.billed_usd_nanos - found.tracked_usd_nanos


def test_a_shifted_day_does_not_hide_a_model_that_nobody_tracked() -> None:
    rng = random.Random(3)
    sums = [hour_sum(at(hour), tokens=(rng.randrange(5_000), 0, 9)) for hour in range(-24, 6 * 24)]
    known = Known(sums)
    days = [DAY + timedelta(days=number) for number in range(5)]
    lines = [billed(known.cost_of_day("m", day, shift=8), day=day) for day in days]
    found = compared([*lines, billed(3_000_000, model="ghost", day=days[2])], sums)
    by_model = {each.model: each.cause for each in found.differences}
    assert by_model == {"m": Cause.DAY_BOUNDARY, "ghost": Cause.NOT_TRACKED}


def test_calls_that_ended_after_midnight_count_on_the_neighbouring_day() -> None:
    # What was settled at 00:00 of the second day began on the first; what was settled at 00:00 of the third did not.
    sums = [hour_sum(at(hour)) for hour in (12, 24, 40, 48, 60)]
    days = [DAY + timedelta(days=number) for number in range(3)]
    found = compared([billed(times * COST, day=day) for times, day in zip((2, 1, 2), days, strict=True)], sums)
    assert causes(found) == [Cause.DAY_BOUNDARY, Cause.DAY_BOUNDARY, Cause.NONE]
    assert "around midnight" in found.differences[0].explanation


def test_growing_traffic_at_a_higher_rate_is_no_shifted_day() -> None:
    sums = [hour_sum(at(hour), tokens=(10_000 + 40 * hour, 0, 0)) for hour in range(-24, 6 * 24)]
    known = Known(sums)
    days = [DAY + timedelta(days=number) for number in range(5)]
    lines = [billed(known.cost_of_day("m", day, shift=0) * 104 // 100, day=day) for day in days]
    found = compared(lines, sums, rates=Rates(Fraction(IN), Fraction(0), Fraction(0)))
    assert set(causes(found)) == {Cause.RATE}
    assert "1.0400 times" in found.differences[0].explanation
    assert found.explained_usd_nanos == found.billed_usd_nanos - found.tracked_usd_nanos


def test_cached_tokens_billed_at_the_full_price_are_found_by_the_rates_of_usage() -> None:
    sums = [hour_sum(at(hour), tokens=(1_000, 200 * hour, 50)) for hour in range(1, 6)]
    cached = sum(each.cached_input_tokens for each in sums)
    tracked = sum(each.cost_usd_nanos for each in sums)
    found = compared([billed(tracked + cached * (IN - CACHED))], sums)
    assert causes(found) == [Cause.CACHED_INPUT]
    assert f"{cached} cached input tokens" in found.differences[0].explanation
    assert found.explained_usd_nanos == cached * (IN - CACHED)


def test_without_known_rates_cached_tokens_are_named_only_as_far_as_they_can_reach() -> None:
    sums = [hour_sum(at(9), tokens=(500, 500, 0), cost_usd_nanos=750_000)]
    likely = compared([billed(1_000_000, tokens=(1_000, 0))], sums, rates=None)
    assert causes(likely) == [Cause.CACHED_INPUT]
    assert likely.explained_usd_nanos == 0  # it may be so; nothing proves it
    assert causes(compared([billed(1_600_000, tokens=(1_000, 0))], sums, rates=None)) == [Cause.RATE]


def test_the_same_tokens_at_another_price_are_another_rate() -> None:
    found = compared([billed(COST * 11 // 10, tokens=(1_000, 50))], [hour_sum(at(9), tokens=(900, 100, 50))])
    assert causes(found) == [Cause.RATE]
    assert found.explained_usd_nanos == found.billed_usd_nanos - found.tracked_usd_nanos


def test_without_tokens_on_the_invoice_a_rate_is_a_guess_that_explains_nothing() -> None:
    found = compared([billed(COST * 3)], [hour_sum(at(9), tokens=(900, 0, 50), cost_usd_nanos=COST)])
    assert causes(found) == [Cause.RATE]
    assert found.explained_usd_nanos == 0


def test_other_tokens_that_make_the_difference_are_named() -> None:
    cost = COST + 300 * IN + 20 * OUT
    found = compared([billed(cost, tokens=(1_300, 70))], [hour_sum(at(9))])
    assert causes(found) == [Cause.TOKENS]
    assert "1300 input and 70 output tokens, tracked 1000 and 50" in found.differences[0].explanation
    assert found.explained_usd_nanos == cost - COST
    # The same more tokens do not account for twice as much money.
    dear = compared([billed(2 * cost, tokens=(1_300, 70))], [hour_sum(at(9))])
    assert causes(dear) == [Cause.RATE]
    assert dear.explained_usd_nanos == 0


def test_estimates_of_our_own_account_for_differences_within_them() -> None:
    guessed = hour_sum(at(9), tokens=(900, 0, 50), estimated_usd_nanos=400_000)
    found = compared([billed(guessed.cost_usd_nanos - 300_000)], [guessed])
    assert causes(found) == [Cause.TOKENS]
    assert found.differences[0].estimated_usd_nanos == 400_000


def test_money_in_suspense_accounts_for_what_is_billed_beyond_usage() -> None:
    suspended = [Suspended("m", DAY, 500_000), Suspended("m", DAY + timedelta(days=1), 10**9)]
    found = compared([billed(COST + 420_000)], [hour_sum(at(9))], suspended=suspended)
    assert causes(found) == [Cause.SUSPENSE]
    assert found.differences[0].estimated_usd_nanos == 500_000
    assert found.explained_usd_nanos == 420_000
    too_little = compared([billed(COST + 600_000)], [hour_sum(at(9), tokens=(900, 100, 50))], suspended=suspended[:1])
    assert causes(too_little) != [Cause.SUSPENSE]
    untracked = compared([billed(400_000)], [], suspended=suspended)
    assert causes(untracked) == [Cause.SUSPENSE]


def test_suspense_of_an_unknown_model_goes_where_most_is_missing() -> None:
    sums = [hour_sum(at(9)), hour_sum(at(9), model="n")]
    lines = [billed(COST + 90_000), billed(COST + 400_000, model="n")]
    found = compared(lines, sums, suspended=[Suspended("", DAY, 450_000)])
    assert {each.model: each.cause for each in found.differences}["n"] is Cause.SUSPENSE
    assert {each.model: each.cause for each in found.differences}["m"] is not Cause.SUSPENSE


def test_an_upper_bound_for_want_of_a_price_accounts_for_less_being_billed() -> None:
    dear = hour_sum(at(9), cost_usd_nanos=9_000_000, unpriced_usd_nanos=8_000_000, estimated_usd_nanos=8_000_000)
    found = compared([billed(2_345_678)], [dear])
    assert causes(found) == [Cause.UNPRICED]
    assert found.explained_usd_nanos == 2_345_678 - 9_000_000


def test_the_largest_difference_comes_first_and_everything_adds_up() -> None:
    sums = [hour_sum(at(9)), hour_sum(at(9), model="n"), hour_sum(at(9), model="o")]
    lines = [billed(COST + 7_000_001), billed(COST - 9_000_001, model="n"), billed(COST, model="o")]
    found = compared(lines, sums)
    assert [each.model for each in found.differences] == ["n", "m", "o"]
    assert found.billed_usd_nanos - found.tracked_usd_nanos == sum(each.difference_usd_nanos for each in found.differences)


def moments_of(rows: Sequence[tuple[int, int, int, int]]) -> Moments:
    def product(one: int, other: int) -> int:
        return sum(row[one] * row[other] for row in rows)

    at_places = {"u": 0, "c": 1, "o": 2, "y": 3}
    return Moments(**{name: product(at_places[name[0]], at_places[name[1]]) for name in Moments.__slots__})


def priced(tokens: tuple[int, int, int], price: Callable[[int, int, int], int]) -> tuple[int, int, int, int]:
    return (*tokens, price(*tokens))


def test_rates_are_worked_out_from_usage_to_within_its_rounding() -> None:
    rng = random.Random(1)
    rows = [
        priced(
            (rng.randrange(10_000), rng.randrange(3_000), rng.randrange(2_000)),
            lambda u, c, o: -(-(u * 150_500 + c * 75_250 + o * 600_000) // 1_000),
        )
        for _ in range(50)
    ]
    rates = rates_of(moments_of(rows))
    assert rates is not None
    assert abs(rates.input_usd_nanos - Fraction("150.5")) < Fraction("0.01")
    assert abs(rates.cached_usd_nanos - Fraction("75.25")) < Fraction("0.01")
    assert abs(rates.output_usd_nanos - 600) < Fraction("0.01")


def test_rates_stay_unknown_where_usage_does_not_tell() -> None:
    same = [(100, 50, 10, 400)] * 5
    assert rates_of(moments_of(same)) is None
    changed = [priced((number * 100, number * number, 7 * number % 13), lambda u, c, o: u * 10) for number in range(1, 9)]
    changed += [(row[0], row[1], row[2], row[3] * 3) for row in changed]
    assert rates_of(moments_of(changed)) is None
    only_input = rates_of(moments_of([(10, 0, 0, 50), (30, 0, 0, 150)]))
    assert only_input == Rates(Fraction(5), Fraction(0), Fraction(0))


def test_a_csv_is_read_by_its_header() -> None:
    text = '\ufeffDay,Model,"cost_usd",Input_Tokens,region\r\n2026-03-10, m ,$1.5,12,eu\r\n,,,,\r\n2026-03-11,"\'=m",-0.000000001,,\r\n'
    assert lines_of_csv(text) == (
        InvoiceLine("m", DAY, 12, 0, 1_500_000_000),
        InvoiceLine("=m", date(2026, 3, 11), 0, 0, -1),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "model"),
        ("model,day\n", "cost_usd"),
        ("model,day,cost_usd\nm,2026-13-01,1\n", "line 2, day"),
        ("model,day,cost_usd\nm,2026-03-01,1\nm,2026-03-01,much\n", "line 3, cost_usd"),
        ("model,day,cost_usd\nm,2026-03-01,NaN\n", "cost_usd"),
        ("model,day,cost_usd\nm,2026-03-01,1e99\n", "cost_usd"),
        ("model,day,cost_usd\n,2026-03-01,1\n", "line 2"),
        ("model,day,cost_usd\nm,2026-03-01\n", "line 2"),
        ("model,day,cost_usd" + ",x" * 1_000 + "\n", "columns"),
        ("model,day,cost_usd\n" + "m" * 201 + ",2026-03-01,1\n", "200 characters"),
        ("model,day,cost_usd,input_tokens\nm,2026-03-01,1,-5\n", "input_tokens"),
        ("model,day,cost_usd\n" + "m,2026-03-01,1\n" * 10_001, "csv"),
        ('model,day,cost_usd\nm,"2026', "csv"),
        ("model,day,cost_usd\n" + "m" * 200_000 + ",2026-03-01,1\n", "csv"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_with_its_place(text: str, named: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        lines_of_csv(text)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([], "lines"),
        ([billed(1), billed(1, day=DAY + timedelta(days=100))], "lines"),
        ([billed(2**53 - 1), billed(-1)], "lines"),
    ],
)
def test_an_invoice_out_of_bounds_is_refused(lines: list[InvoiceLine], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        Invoice("organizations/acme", "p", tuple(lines)).checked()
    assert caught.value.field == field
