"""Usage as the ledger's batches write it: one row an attempt, and the roll-ups."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Sequence
from typing import Any

import asyncpg

from farthing_budget.book import Book
from farthing_budget.rollups import Place, Target, by_place, placed, summed
from farthing_budget.store.statements import WRITE_PLACES, WRITE_SUMS

USAGE_COLUMNS = (
    "organization",
    "recorded_at",
    "request_id",
    "line",
    "scope",
    "task",
    "service",
    "domain",
    "key_id",
    "tags",
    "model",
    "provider",
    "deployment",
    "outcome",
    "carries",
    "estimated",
    "price_unknown",
    "tokens_source",
    "price_source",
    "service_tier",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
    "cost_usd_nanos",
    "baseline_usd_nanos",
    "saved_cache_usd_nanos",
    "saved_prompt_usd_nanos",
    "saved_route_usd_nanos",
)
_KNOWN_MAX = 20_000
Fresh = dict[tuple[str, Place], tuple[Target, ...]]
"""Places of an organisation that were not known, and where roll-ups count them."""


class UsageWriter:
    """Writes what batches recorded. Knows the places that are in the database already."""

    def __init__(self) -> None:
        self._known: Fresh = {}

    async def write(self, connection: asyncpg.Connection, book: Book) -> Fresh:
        """Writes what a batch recorded. Returns what `written` is told after the commit.

        Places, then sums, each in one order for everybody and after all else: batches wait for one another instead of deadlocking, and
        not for long.
        """
        await connection.copy_records_to_table("usage", records=_usage_records(book), columns=USAGE_COLUMNS)
        totals = by_place(book.usage)
        fresh: Fresh = {}
        new: dict[tuple[str, int, int], Place] = {}
        for key in totals.keys() - self._known.keys():
            found = placed(key[1])
            fresh[key] = tuple(target for target, _ in found)
            new |= {(key[0], rollup.number, number): its for (rollup, number), its in found}
        if new:
            await connection.execute(
                WRITE_PLACES, *_columns([(*key, *new[key][:-1], json.dumps(new[key][-1])) for key in sorted(new)])
            )
        sums = summed(totals, ChainMap(fresh, self._known), book.now)
        await connection.execute(WRITE_SUMS, *_columns([(*key, *sums[key]) for key in sorted(sums)]))
        return fresh

    def written(self, fresh: Fresh) -> None:
        """These places are in the database for good."""
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        self._known.update(fresh)


def _usage_records(book: Book) -> list[tuple[Any, ...]]:
    """Usage lines as rows; the baseline and the saving stand on the line that was served."""
    return [
        (
            scope.organization,
            book.now,
            request_id,
            number,
            scope.path,
            record.task,
            record.service,
            record.domain,
            record.key_id,
            record.tags,
            line.model,
            line.provider,
            line.deployment,
            line.outcome,
            carries,
            line.estimated,
            line.price_unknown,
            line.tokens_source,
            line.price_source,
            line.service_tier,
            line.input_tokens,
            line.cached_input_tokens,
            line.cache_write_5m_tokens,
            line.cache_write_1h_tokens,
            line.audio_input_tokens,
            line.output_tokens,
            line.reasoning_tokens,
            line.audio_output_tokens,
            line.cost_usd_nanos,
            record.baseline_usd_nanos if carries else 0,
            record.saving.cache_usd_nanos if carries else 0,
            record.saving.prompt_usd_nanos if carries else 0,
            record.saving.route_usd_nanos if carries else 0,
        )
        for scope, request_id, record in book.usage
        for number, line, carries in record.attempts()
    ]


def _columns(records: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*records, strict=True)]
