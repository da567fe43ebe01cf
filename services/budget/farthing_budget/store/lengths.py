"""What is learned of the lengths of answers, on Postgres: one row a key, into which every replica adds what it saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import structlog
from farthing_core.errors import FieldInvalid

from farthing_budget.sizing.counts import Counts, unpacked
from farthing_budget.sizing.learner import KEYS_MAX, StreamKey
from farthing_budget.store import Shared
from farthing_budget.store.connection import reaching

_COLUMNS = "organization, scope, model, task, input_bucket, max_bucket"
# The order in which everybody takes rows, which is Python's: so exchanges wait for one another instead of deadlocking.
_IN_ORDER = 'organization COLLATE "C", scope COLLATE "C", model COLLATE "C", task COLLATE "C", input_bucket, max_bucket'
_ASKED = f"unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::smallint[]) AS asked ({_COLUMNS})"
_MAKE = f"""
    INSERT INTO answer_lengths ({_COLUMNS}, counts, changed_at) SELECT {_COLUMNS}, $7, clock_timestamp() FROM {_ASKED}
    ORDER BY {_IN_ORDER} ON CONFLICT DO NOTHING
"""
_LOCK = f"""
    SELECT l.* FROM answer_lengths l JOIN {_ASKED} USING ({_COLUMNS})
    ORDER BY {_IN_ORDER} FOR UPDATE OF l
"""
_WRITE = f"""
    UPDATE answer_lengths l SET counts = n.counts, changed_at = clock_timestamp()
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::smallint[], $7::bytea[])
        AS n ({_COLUMNS}, counts)
    WHERE (l.organization, l.scope, l.model, l.task, l.input_bucket, l.max_bucket)
        = (n.organization, n.scope, n.model, n.task, n.input_bucket, n.max_bucket)
"""
_FORGET = """
    DELETE FROM answer_lengths WHERE ctid IN (
        SELECT ctid FROM (
            SELECT ctid, row_number() OVER (PARTITION BY organization ORDER BY changed_at DESC) AS number
            FROM answer_lengths WHERE organization = ANY($1::text[])
        ) AS numbered WHERE number > $2
    )
"""
_CHANGED = "SELECT * FROM answer_lengths WHERE changed_at > $1 ORDER BY changed_at DESC LIMIT $2 OFFSET $3"
_DROP = f"DELETE FROM answer_lengths WHERE ({_COLUMNS}) = ($1, $2, $3, $4, $5, $6) AND counts = $7"
_PAGE_SIZE = 256
_CHUNK_SIZE = 64
_OVERLAP = timedelta(seconds=2)
_BEGINNING = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_log = structlog.get_logger()


class PostgresLengths:
    """The LengthStore."""

    def __init__(self, pool: asyncpg.Pool, *, keys_max: int = KEYS_MAX) -> None:
        self._pool = pool
        self._keys_max = keys_max

    async def exchange(self, fresh: Mapping[StreamKey, Counts], *, after: datetime | None) -> Shared:
        """Adds what is fresh to what is kept, and reads what was changed since by anybody."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection:
                if fresh:
                    async with connection.transaction():
                        await self._add(connection, fresh)
                return await self._changed(connection, after or _BEGINNING)

    async def _add(self, connection: Any, fresh: Mapping[StreamKey, Counts]) -> None:
        places = sorted((_organization(key), *key) for key in fresh)
        made = await connection.execute(_MAKE, *_columns(places), Counts().packed())
        for start in range(0, len(places), _CHUNK_SIZE):  # between two of them, requests have their turn
            rows = []
            for row in await connection.fetch(_LOCK, *_columns(places[start : start + _CHUNK_SIZE])):
                key = _key(row)
                counts = _counts(row) or Counts()
                counts.add(fresh[key])
                rows.append((row["organization"], *key, counts.packed()))
            await connection.execute(_WRITE, *_columns(rows))
        if not made.endswith(" 0"):
            await connection.execute(_FORGET, sorted({place[0] for place in places}), self._keys_max)

    async def _changed(self, connection: Any, after: datetime) -> Shared:
        """The keys changed last, in pages: reading them all in one go would keep requests waiting."""
        found: dict[StreamKey, Counts] = {}
        latest = after
        for offset in range(0, self._keys_max, _PAGE_SIZE):
            rows = await connection.fetch(_CHANGED, after, min(_PAGE_SIZE, self._keys_max - offset), offset)
            for row in rows:
                latest = max(latest, row["changed_at"])
                counts = _counts(row)
                if counts is None:
                    await connection.execute(_DROP, row["organization"], *_key(row), row["counts"])
                else:
                    found.setdefault(_key(row), counts)
            if len(rows) < _PAGE_SIZE:
                break
        # What was written before may be committed after: a little is read twice.
        return Shared(found, max(after, latest - _OVERLAP))


def _organization(key: StreamKey) -> str:
    return key.scope.split("/", 2)[1]


def _key(row: Any) -> StreamKey:
    return StreamKey(row["scope"], row["model"], row["task"], row["input_bucket"], row["max_bucket"])


def _counts(row: Any) -> Counts | None:
    """What a row keeps; None, and a line in the log, where that cannot be read: it is learned afresh."""
    try:
        return unpacked(row["counts"])
    except FieldInvalid as error:
        _log.warning("what was learned of a key cannot be read and is forgotten", scope=row["scope"], problem=str(error))
        return None


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
