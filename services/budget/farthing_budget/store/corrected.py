"""What is to be known of reservations that are corrected."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from farthing_budget.operations import Hold
from farthing_budget.store import rows
from farthing_budget.store.statements import ORIGINS
from farthing_budget.usage import PaidLine, UsageOrigin

Paid = dict[tuple[str, str], list[PaidLine]]
"""By (organisation, request)."""


async def corrected_usage(
    connection: asyncpg.Connection, holds: Sequence[Hold]
) -> tuple[dict[tuple[str, str], UsageOrigin], Paid]:
    """What these reservations were, and what each of their attempts cost."""
    if not holds:
        return {}, {}
    keys = [(hold.organization, hold.changed_at, hold.request_id) for hold in holds]
    found = await connection.fetch(ORIGINS, *(list(column) for column in zip(*keys, strict=True)))
    paid: Paid = {}
    for row in found:
        line = PaidLine(row["model"], row["provider"], row["cost_usd_nanos"], row["tokens"])
        paid.setdefault((row["organization"], str(row["request_id"])), []).append(line)
    return rows.origins_by_id(found), paid
