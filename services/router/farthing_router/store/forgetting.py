"""Deleting old rows, a bounded number at a time, without waiting for whoever uses them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

_FORGET = "DELETE FROM {0} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {0} WHERE {1} < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"


async def forget(connection: Any, table: str, column: str, *, before: datetime, count_max: int) -> int:
    """Deletes rows whose `column` lies before a moment; says how many. Table and column are names in the code, never input."""
    done = await connection.execute(_FORGET.format(table, column), before, count_max)
    return int(done.rsplit(" ", 1)[1])
