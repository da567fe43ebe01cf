"""Usage as the ledger's batches write it: one row an attempt, and the hourly roll-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from farthing_budget.book import Book
from farthing_budget.store.statements import WRITE_HOURLY

_USAGE_COLUMNS = (
    "organization",
    "request_id",
    "line",
    "recorded_at",
    "scope",
    "task",
    "model",
    "provider",
    "deployment",
    "outcome",
    "estimated",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cost_usd_nanos",
    "baseline_usd_nanos",
)


async def write_usage(connection: asyncpg.Connection, book: Book) -> None:
    """Writes what the batch recorded."""
    await _copy_usage(connection, book)
    await connection.execute(WRITE_HOURLY, *_hourly_columns(book))


async def _copy_usage(connection: asyncpg.Connection, book: Book) -> None:
    """Writes usage lines; the baseline stands on the line that was served."""
    records = [
        (
            scope.organization,
            request_id,
            number,
            book.now,
            scope.path,
            record.task,
            line.model,
            line.provider,
            line.deployment,
            line.outcome,
            line.estimated,
            line.input_tokens,
            line.cached_input_tokens,
            line.output_tokens,
            line.cost_usd_nanos,
            record.baseline_usd_nanos if carries else 0,
        )
        for scope, request_id, record in book.usage
        for number, line, carries in record.attempts()
    ]
    await connection.copy_records_to_table("usage", records=records, columns=_USAGE_COLUMNS)


def _hourly_columns(book: Book) -> list[list[Any]]:
    """What the batch adds to the hourly sums, by column: each row once, in one order for everybody."""
    hour = book.now.replace(minute=0, second=0, microsecond=0)
    sums: dict[tuple[Any, ...], list[int]] = {}
    for scope, _, record in book.usage:
        for place, added in record.sums():
            key = (scope.organization, hour, scope.path, *place, record.task)
            total = sums.setdefault(key, [0] * len(added))
            for index, value in enumerate(added):
                total[index] += value
    return _columns([(*key, *sums[key]) for key in sorted(sums)])


def _columns(records: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*records, strict=True)]
