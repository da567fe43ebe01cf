"""Providers' invoices: how they are read, and what is known of the same days from usage."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from fractions import Fraction

from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX, NANOS_PER_USD

from farthing_budget.exports import plain

LINES_MAX = 10_000
DAYS_MAX = 100
_YEARS = range(1970, 9000)
_NEEDED = ("model", "day", "cost_usd")
_READ = (*_NEEDED, "input_tokens", "output_tokens")
_COLUMNS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """What was billed for a model on a day; tokens are 0 where the invoice does not say."""

    model: str
    day: date
    input_tokens: int
    output_tokens: int
    cost_usd_nanos: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice in our own names of models."""

    scope: str
    provider: str
    lines: tuple[InvoiceLine, ...]

    def checked(self) -> Invoice:
        """This invoice; raises FieldInvalid for one without lines, too long, over too many days or of too much money."""
        if not self.lines:
            raise FieldInvalid(field="lines", problem="must not be empty, unless csv is given")
        if len(self.lines) > LINES_MAX:
            raise FieldInvalid(field="csv", problem=f"has more than {LINES_MAX} lines")
        first, last = self.days
        if (last - first).days >= DAYS_MAX:
            raise FieldInvalid(field="lines", problem=f"span more than {DAYS_MAX} days")
        for total in (sum(abs(line.cost_usd_nanos) for line in self.lines), sum(line.input_tokens for line in self.lines)):
            if total > NANOS_MAX:
                raise FieldInvalid(field="lines", problem=f"add up to more than {NANOS_MAX}")
        return self

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day."""
        days = [line.day for line in self.lines]
        return min(days), max(days)

    @property
    def hours(self) -> tuple[datetime, datetime]:
        """The hours that any provider could mean by these days, wherever its midnight is."""
        first, last = self.days
        return midnight(first) - timedelta(days=1), midnight(last) + timedelta(days=2)

    def named(self, names: Mapping[str, str]) -> Invoice:
        """The same with other names for models."""
        return replace(self, lines=tuple(replace(line, model=names.get(line.model, line.model)) for line in self.lines))


def midnight(day: date) -> datetime:
    """When a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def day_of(text: str, *, field: str) -> date:
    """A day. Raises FieldInvalid, naming `field`, for what is none."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid(field=field, problem=f"{text!r} is no day such as 2026-03-31") from error
    if day.year not in _YEARS:
        raise FieldInvalid(field=field, problem=f"must lie between the years {_YEARS.start} and {_YEARS.stop}")
    return day


def lines_of_csv(text: str) -> tuple[InvoiceLine, ...]:
    """The lines of an invoice as CSV with a header; columns that are not known are passed over.

    Raises FieldInvalid, naming the line, for what cannot be read.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    found: list[InvoiceLine] = []
    try:
        header = next(reader, [])
        if len(header) > _COLUMNS_MAX:
            raise FieldInvalid(field="csv", problem=f"has more than {_COLUMNS_MAX} columns")
        places = {name.strip().lower(): place for place, name in enumerate(header)}
        missing = [name for name in _NEEDED if name not in places]
        if missing:
            raise FieldInvalid(field="csv", problem=f"has no column {', '.join(missing)}")
        for row in reader:
            given = {name: row[places[name]].strip() for name in _READ if places.get(name, _COLUMNS_MAX) < len(row)}
            if any(given.values()):
                if len(found) == LINES_MAX:
                    raise FieldInvalid(field="csv", problem=f"has more than {LINES_MAX} lines")
                found.append(_line(given, f"csv, line {reader.line_num}"))
    except csv.Error as error:
        raise FieldInvalid(field="csv", problem=f"line {reader.line_num}: {error}") from error
    return tuple(found)


def _line(given: Mapping[str, str], where: str) -> InvoiceLine:
    missing = [name for name in _NEEDED if not given.get(name)]
    if missing:
        raise FieldInvalid(field=where, problem=f"has no {', '.join(missing)}")
    model = plain(given["model"])
    if len(model) > 200:
        raise FieldInvalid(field=where, problem="model must have at most 200 characters")
    return InvoiceLine(
        model=model,
        day=day_of(given["day"], field=f"{where}, day"),
        input_tokens=_count(given.get("input_tokens", ""), f"{where}, input_tokens"),
        output_tokens=_count(given.get("output_tokens", ""), f"{where}, output_tokens"),
        cost_usd_nanos=_nanos(given["cost_usd"], f"{where}, cost_usd"),
    )


def _count(text: str, where: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= NANOS_MAX):
        raise FieldInvalid(field=where, problem=f"must be a whole number up to {NANOS_MAX}")
    return int(text)


def _nanos(text: str, where: str) -> int:
    try:
        amount = Decimal(text.removeprefix("$"))
        nanos = int((amount * NANOS_PER_USD).to_integral_value(rounding=ROUND_CEILING)) if abs(amount) < NANOS_MAX else None
    except (InvalidOperation, ValueError) as error:
        raise FieldInvalid(field=where, problem="is no amount of dollars") from error
    if nanos is None or abs(nanos) > NANOS_MAX:
        raise FieldInvalid(field=where, problem=f"must be an amount of at most {NANOS_MAX} nanodollars")
    return nanos


@dataclass(frozen=True, slots=True)
class Suspended:
    """Money in suspense: a call of that day whose cost nobody reported. The model is empty where it was not said."""

    model: str
    day: date
    amount_usd_nanos: int


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of products of uncached input (u), cached input (c) and output tokens (o) with one another and with cost (y)."""

    uu: int
    uc: int
    uo: int
    cc: int
    co: int
    oo: int
    uy: int
    cy: int
    oy: int
    yy: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Nanodollars per token, as usage was charged."""

    input_usd_nanos: Fraction
    cached_usd_nanos: Fraction
    output_usd_nanos: Fraction


def rates_of(m: Moments) -> Rates | None:
    """The rates at which usage was charged, by least squares; None where it does not determine them, or was charged at several."""
    rows = [
        [m.uu, m.uc, m.uo, m.uy],
        [m.uc, m.cc, m.co, m.cy],
        [m.uo, m.co, m.oo, m.oy],
    ]
    # What was never used has no rate, and does not get in the way of the others.
    used = [index for index in range(3) if rows[index][index]]
    solved = _solved([[Fraction(rows[i][j]) for j in (*used, 3)] for i in used])
    if solved is None:
        return None
    rates = [Fraction(0)] * 3
    for index, value in zip(used, solved, strict=True):
        rates[index] = value
    predicted = sum((rates[i] * rows[i][3] for i in range(3)), Fraction(0))
    squares = sum((rates[i] * rates[j] * rows[i][j] for i in range(3) for j in range(3)), Fraction(0))
    left = abs(m.yy - 2 * predicted + squares)
    if min(rates) < 0 or left * 10_000 > m.yy:
        return None
    return Rates(*rates)


def _solved(rows: Sequence[list[Fraction]]) -> list[Fraction] | None:
    """The solution of linear equations, by elimination; None where there is not exactly one."""
    rows = [list(row) for row in rows]
    for index in range(len(rows)):
        pivot = next((number for number in range(index, len(rows)) if rows[number][index]), None)
        if pivot is None:
            return None
        rows[index], rows[pivot] = rows[pivot], rows[index]
        rows[index] = [value / rows[index][index] for value in rows[index]]
        for number, row in enumerate(rows):
            if number != index and row[index]:
                rows[number] = [value - row[index] * own for value, own in zip(row, rows[index], strict=True)]
    return [row[-1] for row in rows]
