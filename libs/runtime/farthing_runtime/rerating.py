"""Rating history again: what attempts would have cost at the prices that are now known for their moments, and the difference booked.

The books only ever get entries, so what was booked for an attempt is its row and every correction of it made here. Their request ids
are derived from the row, one after another: a run that is repeated, or that meets another, finds them and books nothing twice.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, UUID, uuid5

from farthing_core.errors import FarthingError

CORRECTIONS_MAX = 1_000_000
_AT_ONCE = 32
_UNPRICED_OUTCOMES = frozenset({"cache_exact", "cache_semantic"})
_CORRECTION_OUTCOMES = frozenset({"refund", "correction"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NAMESPACE = uuid5(NAMESPACE_URL, "farthing:rerate")
COUNTS = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
)
Row = Mapping[str, str]
"""A line of the ledger's own CSV export, by column."""


class TooManyCorrections(FarthingError):
    """More corrections were booked since than are kept in memory."""

    def __init__(self) -> None:
        super().__init__(f"more than {CORRECTIONS_MAX} corrections were booked since then: take a shorter range")


class ExportUnreadable(FarthingError):
    """An export that lacks a column."""

    def __init__(self, *, column: str) -> None:
        super().__init__(
            f"the export of usage has no column {column}: ledger and command are of different versions", column=column
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as the ledger has it."""

    request_id: str
    line: int
    recorded_at: str
    scope: str
    model: str
    provider: str
    service_tier: str
    counts: Mapping[str, int]
    cost_usd_nanos: int

    @property
    def day(self) -> str:
        """Its day, as YYYY-MM-DD in UTC."""
        return self.recorded_at[:10]

    def correction_id(self, number: int) -> str:
        """The request id of the correction of this number."""
        return str(uuid5(_NAMESPACE, f"{UUID(self.request_id)}/{self.line}/{number}"))


@dataclass(frozen=True, slots=True)
class Rating:
    """What an attempt costs, or why nobody can say."""

    cost_usd_nanos: int = 0
    price_source: str = ""
    problem: str = ""


@dataclass(slots=True)
class Sum:
    """What the attempts of one model and day come to."""

    attempts: int = 0
    changed: int = 0
    booked_usd_nanos: int = 0
    rated_usd_nanos: int = 0

    @property
    def difference_usd_nanos(self) -> int:
        """What is to be booked."""
        return self.rated_usd_nanos - self.booked_usd_nanos


@dataclass(slots=True)
class Report:
    """What rating again came to: sums by (day, model), attempts that could not be rated by reason, and what was booked."""

    sums: dict[tuple[str, str], Sum] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    booked: int = 0
    failed: dict[str, int] = field(default_factory=dict)


Rate = Callable[[Attempt], Awaitable[Rating]]
"""What an attempt costs at the price of its moment."""
Book = Callable[[Attempt, str, int, str], Awaitable[str]]
"""Books (attempt, request id, difference in nanodollars, reason); gives the reason of a refusal, or an empty text."""


async def read_rows(chunks: AsyncIterator[bytes]) -> AsyncIterator[Row]:
    """The lines of an export, by column. Chunks hold whole lines; the first begins with the header."""
    columns: list[str] = []
    async for chunk in chunks:
        for line in csv.reader(io.StringIO(chunk.decode(), newline="")):
            if columns:
                yield dict(zip(columns, line, strict=True))
            else:
                columns = line


async def corrections_of(rows: AsyncIterator[Row]) -> dict[str, int]:
    """Every correction in an export: its request id and its amount. Raises TooManyCorrections, ExportUnreadable."""
    found: dict[str, int] = {}
    async for row in rows:
        if _of(row, "outcome") in _CORRECTION_OUTCOMES:
            found[_of(row, "request_id")] = int(_of(row, "cost_usd_nanos"))
            if len(found) > CORRECTIONS_MAX:
                raise TooManyCorrections
    return found


async def rerate(rows: AsyncIterator[Row], corrections: Mapping[str, int], *, rate: Rate, book: Book | None) -> Report:
    """Rates every attempt again, some at once, and books the differences where `book` is given.

    Raises ExportUnreadable, and the first that `rate` or `book` raise; what was booked until then stays booked.
    """
    report = Report()
    running: set[asyncio.Task[None]] = set()
    try:
        async with asyncio.TaskGroup() as group:
            async for row in rows:
                if (attempt := _attempt(row, report)) is None:
                    continue
                if len(running) >= _AT_ONCE:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                task = group.create_task(_rerate_one(attempt, corrections, report, rate=rate, book=book))
                running.add(task)
                task.add_done_callback(running.discard)
    except ExceptionGroup as error:
        raise error.exceptions[0] from error
    return report


async def _rerate_one(
    attempt: Attempt, corrections: Mapping[str, int], report: Report, *, rate: Rate, book: Book | None
) -> None:
    number, booked = 0, attempt.cost_usd_nanos
    while (amount := corrections.get(attempt.correction_id(number))) is not None:
        number, booked = number + 1, booked + amount
    rating = await rate(attempt)
    if rating.problem:
        report.left_out[rating.problem] = report.left_out.get(rating.problem, 0) + 1
        return
    difference = rating.cost_usd_nanos - booked
    found = report.sums.setdefault((attempt.day, attempt.model), Sum())
    found.attempts += 1
    found.changed += difference != 0
    found.booked_usd_nanos += booked
    found.rated_usd_nanos += rating.cost_usd_nanos
    if difference and book is not None:
        refusal = await book(attempt, attempt.correction_id(number), difference, f"rated again at {rating.price_source}")
        if refusal:
            report.failed[refusal] = report.failed.get(refusal, 0) + 1
        else:
            report.booked += 1


def _attempt(row: Row, report: Report) -> Attempt | None:
    """The attempt of a row; None where it has no price of its own, or nobody knows what it used."""
    outcome, cost = _of(row, "outcome"), int(_of(row, "cost_usd_nanos"))
    if outcome in _UNPRICED_OUTCOMES or outcome in _CORRECTION_OUTCOMES:
        return None
    counts = {name: int(_of(row, name)) for name in COUNTS}
    if not any(counts.values()):
        if cost:
            report.left_out["its tokens are not known"] = report.left_out.get("its tokens are not known", 0) + 1
        return None
    return Attempt(
        request_id=_of(row, "request_id"),
        line=int(_of(row, "line")),
        recorded_at=_of(row, "recorded_at"),
        scope=_of(row, "scope"),
        model=_of(row, "model"),
        provider=_of(row, "provider"),
        service_tier=_of(row, "service_tier"),
        counts=counts,
        cost_usd_nanos=cost,
    )


def _of(row: Row, column: str) -> str:
    """A value, without the sign that keeps spreadsheets from taking it for a formula."""
    value = row.get(column)
    if value is None:
        raise ExportUnreadable(column=column)
    return value[1:] if value.startswith("'") and value[1:].startswith(_FORMULA) else value
