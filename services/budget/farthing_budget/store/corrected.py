"""What is to be known of reservations that are corrected."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from farthing_budget.budgets import BalanceKey
from farthing_budget.operations import Hold
from farthing_budget.store import rows
from farthing_budget.store.statements import ENTRIES_OF_HOLD, ORIGINS
from farthing_budget.usage import UsageOrigin

Paid = dict[tuple[str, str, BalanceKey], tuple[int, int]]
"""By (organisation, request, balance), in nanodollars and tokens."""


async def origins_of(connection: asyncpg.Connection, holds: Sequence[Hold]) -> dict[tuple[str, str], UsageOrigin]:
    """What these reservations were."""
    keys = [(hold.organization, hold.changed_at, hold.request_id) for hold in holds]
    return rows.origins_by_id(await connection.fetch(ORIGINS, *(list(column) for column in zip(*keys, strict=True))))


async def paid_by(connection: asyncpg.Connection, holds: Sequence[Hold]) -> Paid:
    """What each balance paid for these reservations, where not all of one's balances paid the same."""
    paid: Paid = {}
    for hold in holds:
        if any(charge.selector for charge in hold.charges):
            place = hold.organization, hold.request_id
            for row in await connection.fetch(ENTRIES_OF_HOLD, *place, hold.created_at, hold.changed_at):
                entry = rows.entry_of(row)
                for key in entry.keys if entry.request_id == hold.request_id else ():
                    usd_nanos, tokens = paid.get((*place, key), (0, 0))
                    paid[(*place, key)] = usd_nanos + entry.spent_usd_nanos, tokens + entry.spent_tokens
    return paid
