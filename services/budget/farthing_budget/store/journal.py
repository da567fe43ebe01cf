"""The journal on Postgres: pages of it, and the comparison with the balances."""

from __future__ import annotations

import asyncpg

from farthing_budget.journal import DIFFERENCES_MAX, EntriesQuestion, Figures, Verification
from farthing_budget.operations import Entry
from farthing_budget.store.connection import reaching
from farthing_budget.store.rows import entry_of

_ENTRIES = """
    SELECT * FROM journal JOIN charge_sets USING (organization, charges_number)
    WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND ($3 = '' OR request_id::text = $3) AND ($4 = '' OR E'\\n' || charges LIKE E'%\\n' || $4 || '@%')
        AND ($5::timestamptz IS NULL OR (at, entry_id) < ($5, $6))
    ORDER BY at DESC, entry_id DESC LIMIT $7
"""
# Entries of one path name the same balances: they are summed before their charges are taken apart.
_FROM_JOURNAL = """
    WITH summed AS (
        SELECT charges_number, count(*) AS entries, sum(held_usd_nanos) AS held_usd_nanos, sum(spent_usd_nanos) AS spent_usd_nanos,
            sum(suspense_usd_nanos) AS suspense_usd_nanos, sum(held_tokens) AS held_tokens, sum(spent_tokens) AS spent_tokens,
            sum(suspense_tokens) AS suspense_tokens, sum(held_requests) AS held_requests, sum(spent_requests) AS spent_requests
        FROM journal WHERE organization = $1 GROUP BY charges_number
    )
    SELECT charge, sum(held_usd_nanos)::bigint AS held_usd_nanos, sum(spent_usd_nanos)::bigint AS spent_usd_nanos,
        sum(suspense_usd_nanos)::bigint AS suspense_usd_nanos, sum(held_tokens)::bigint AS held_tokens,
        sum(spent_tokens)::bigint AS spent_tokens, sum(suspense_tokens)::bigint AS suspense_tokens,
        sum(held_requests)::bigint AS held_requests, sum(spent_requests)::bigint AS spent_requests
    FROM summed JOIN charge_sets ON organization = $1 AND charge_sets.charges_number = summed.charges_number,
        unnest(string_to_array(charges, E'\\n')) AS charge WHERE charge <> '' GROUP BY charge
"""
_FROM_BALANCES = """
    SELECT budget_id || '@' || extract(epoch FROM period_start)::bigint AS charge, held_usd_nanos, spent_usd_nanos, suspense_usd_nanos,
        held_tokens, spent_tokens, suspense_tokens, held_requests, spent_requests
    FROM balances WHERE organization = $1
"""
_FROM_HOLDS = """
    SELECT split_part(charge, '|', 1) AS charge,
        coalesce(sum(amount_usd_nanos) FILTER (WHERE state IN (1, 5)), 0)::bigint AS held_usd_nanos,
        coalesce(sum(amount_usd_nanos) FILTER (WHERE state = 4), 0)::bigint AS suspense_usd_nanos,
        coalesce(sum(tokens) FILTER (WHERE state IN (1, 5)), 0)::bigint AS held_tokens,
        coalesce(sum(tokens) FILTER (WHERE state = 4), 0)::bigint AS suspense_tokens,
        (count(*) FILTER (WHERE state IN (1, 5)))::bigint AS held_requests
    FROM reservations JOIN charge_sets USING (organization, charges_number), unnest(string_to_array(charges, E'\\n')) AS charge
    WHERE organization = $1 AND state IN (1, 4, 5) AND charge <> '' GROUP BY 1
"""
# From one organisation's first row to the next one's: the index is never read through.
_ORGANIZATIONS = """
    WITH RECURSIVE found (organization, number) AS (
        SELECT min(organization), 1 FROM charge_sets WHERE organization > $1
        UNION ALL SELECT (SELECT min(organization) FROM charge_sets WHERE organization > found.organization), number + 1
        FROM found WHERE found.organization IS NOT NULL AND number < $2
    )
    SELECT organization FROM found WHERE organization IS NOT NULL
"""
_COUNT = "SELECT count(*) FROM journal WHERE organization = $1"
_TIMEOUT_S = 600.0


class PostgresJournal:
    """The JournalStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def entries(self, question: EntriesQuestion) -> list[Entry]:
        """A page of entries."""
        with reaching():
            found = await self._pool.fetch(
                _ENTRIES,
                question.organization,
                question.scope,
                question.request_id,
                question.budget_id,
                *(question.before or (None, 0)),
                question.page_size,
            )
        return [entry_of(row) for row in found]

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """A page of organisations."""
        with reaching():
            found = await self._pool.fetch(_ORGANIZATIONS, after, count_max)
        return [row["organization"] for row in found]

    async def verify(self, organization: str) -> Verification:
        """Compares balances, journal and open holds as they were at one moment."""
        with reaching():
            async with (
                self._pool.acquire(timeout=10.0) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                count = await connection.fetchval(_COUNT, organization, timeout=_TIMEOUT_S)
                journal = _figures(await connection.fetch(_FROM_JOURNAL, organization, timeout=_TIMEOUT_S))
                holds = _figures(await connection.fetch(_FROM_HOLDS, organization, timeout=_TIMEOUT_S))
                balances = _figures(await connection.fetch(_FROM_BALANCES, organization, timeout=_TIMEOUT_S))
        differences: list[str] = []
        for charge in sorted(journal.keys() | balances.keys() | holds.keys()):
            balance = balances.get(charge, Figures())
            differences += balance.differences(journal.get(charge, Figures()), where=charge, what="the journal")
            held = holds.get(charge, Figures())
            expected = Figures(
                held.held_usd_nanos,
                balance.spent_usd_nanos,
                held.suspense_usd_nanos,
                held.held_tokens,
                balance.spent_tokens,
                held.suspense_tokens,
                held.held_requests,
                balance.spent_requests,
            )
            differences += balance.differences(expected, where=charge, what="the sum of open holds")
        return Verification(count, len(balances), tuple(differences[:DIFFERENCES_MAX]))


def _figures(found: list[asyncpg.Record]) -> dict[str, Figures]:
    return {row["charge"]: Figures(**{name: row[name] for name in row.keys() if name != "charge"}) for row in found}  # noqa: SIM118
