"""Sums of usage on Postgres, from the roll-ups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from farthing_core.scopes import parse_scope

from farthing_budget.questions import DIMENSIONS_OF, Group, UsageQuestion, UsageSum
from farthing_budget.reports import Allocated, AllocationQuestion
from farthing_budget.rollups import Piece, pieces
from farthing_budget.store.connection import reaching
from farthing_budget.usage import FIGURES, Saving

# Sums of one roll-up and range stand together behind the index, and a month of them by place fits into memory: planners that think of a
# server's defaults rather read the whole table, and sort on disk.
_SESSION = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"
_SCOPE_KEY = """concat_ws('/', 'organizations', $1, 'workspaces/' || nullif(workspace, ''), 'projects/' || nullif(project, ''),
    'users/' || nullif(user_name, ''))"""
PLACES = " JOIN usage_places p ON p.organization = $1 AND p.rollup = facts.rollup AND p.place_number = facts.place_number"
_TIME_KEYS = {
    Group.DAY: "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    Group.HOUR: "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:00\"Z\"')",
}
_SUMS = ", ".join(f"sum({name})::bigint AS {name}" for name in FIGURES)

_ALLOCATED = {
    "requests": "coalesce(p.requests, 0)",
    "cost_usd_nanos": "coalesce(p.cost_usd_nanos, 0)",
    "previous_cost_usd_nanos": "coalesce(b.cost_usd_nanos, 0)",
    "saved_usd_nanos": "coalesce(p.saved_cache_usd_nanos + p.saved_prompt_usd_nanos + p.saved_route_usd_nanos, 0)",
    "estimated_usd_nanos": "coalesce(p.estimated_usd_nanos, 0)",
}


class Bound:
    """The arguments of a statement as it is put together."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def __call__(self, value: Any) -> str:
        """Adds an argument; what stands for it in the statement."""
        self.values.append(value)
        return f"${len(self.values)}"


class PostgresUsage:
    """The UsageStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def sums(self, question: UsageQuestion) -> list[UsageSum]:
        """A page of sums."""
        bound = Bound(parse_scope(question.scope).organization)
        parts = pieces(question.start, question.end, question.dimensions, hourly=Group.HOUR in question.groups)
        keys = [f"key{number}" for number in range(len(question.groups))]
        names = ", ".join(keys)
        grouped = grouped_sums(bound, parts, question)
        behind = f"WHERE ({names}) > ({', '.join(f'{bound(key)}::text' for key in question.after)})" if question.after else ""
        order = ", ".join([*(["cost_usd_nanos DESC"] if question.by_cost else []), *keys])
        sql = f"SELECT * FROM ({grouped}) AS grouped {behind} {f'ORDER BY {order}' if order else ''} LIMIT {bound(question.page_size)}"
        return [sum_of(row, keys) for row in await self._fetch(sql, bound) if row["facts"]]

    async def allocation(self, question: AllocationQuestion) -> tuple[list[Allocated], Allocated]:
        """The dearest groups of a range, at most one more than the lines that are asked for, and the sum of all."""
        bound = Bound(parse_scope(question.scope).organization)
        present, previous = (
            grouped_sums(bound, pieces(asked.start, asked.end, asked.dimensions, hourly=question.group is Group.HOUR), asked)
            for asked in (question.present(), question.previous())
        )
        keys = [f"key{number}" for number in range(len(question.groups))]
        names = ", ".join(keys)
        sums = ", ".join(f"{sql} AS {name}" for name, sql in _ALLOCATED.items())
        totals = ", ".join(f"sum({name}) OVER ()::bigint AS total_{name}" for name in _ALLOCATED)
        sql = (
            f"SELECT *, {totals} FROM (SELECT {names}, {sums} FROM ({present}) AS p FULL JOIN ({previous}) AS b USING ({names})) AS lines"
            f" ORDER BY cost_usd_nanos DESC, previous_cost_usd_nanos DESC, {names} LIMIT {bound(question.lines_max + 1)}"
        )
        found = await self._fetch(sql, bound)
        lines = [Allocated(tuple(row[key] for key in keys), *(row[name] for name in _ALLOCATED)) for row in found]
        return lines, Allocated((), *(found[0][f"total_{name}"] for name in _ALLOCATED)) if found else Allocated()

    async def _fetch(self, sql: str, bound: Bound) -> list[asyncpg.Record]:
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction(readonly=True):
                await connection.execute(_SESSION)
                found: list[asyncpg.Record] = await connection.fetch(sql, *bound.values)
                return found


def grouped_sums(bound: Bound, parts: Sequence[Piece], question: UsageQuestion) -> str:
    """A SELECT of the sums of a question by its groups, named key0, key1, …; `facts` counts what was added up."""
    times = any(group in _TIME_KEYS for group in question.groups)
    at = ", at" if times else ""
    # First by place, which is a number, then by the names that are asked for: hardly anything is left to compare texts on.
    facts = " UNION ALL ".join(facts_of(bound, piece, question.places, at) for piece in parts)
    selected = ", ".join(f"{key_of(group)} AS key{number}" for number, group in enumerate(question.groups))
    names = ", ".join(f"key{number}" for number in range(len(question.groups)))
    joined = any(DIMENSIONS_OF[group] for group in question.groups)
    return (
        f"SELECT {selected}{', ' if selected else ''}{_SUMS}, count(*) AS facts FROM ({facts}) AS facts"
        + (PLACES if joined else "")
        + (", unnest(p.tags) AS tag" if Group.TAG in question.groups else "")
        + (f" GROUP BY {names}" if names else "")
    )


def key_of(group: Group) -> str:
    """What a group's values are in SQL."""
    if group is Group.SCOPE:
        return _SCOPE_KEY
    if group is Group.TAG:
        return "tag"
    return _TIME_KEYS[group] if group in _TIME_KEYS else DIMENSIONS_OF[group][0]


def facts_of(bound: Bound, piece: Piece, places: dict[str, str], at: str) -> str:
    """A SELECT of the sums of a piece by place; `at` is ", at" where time is told apart too."""
    rollup = bound(piece.rollup.number)
    chosen = ""
    if places:
        values = " AND ".join(f"{name} = {bound(value)}" for name, value in places.items())
        chosen = f" AND place_number IN (SELECT place_number FROM usage_places WHERE organization = $1 AND rollup = {rollup} AND {values})"
    return (
        f"SELECT rollup, place_number{at}, {_SUMS} FROM usage_sums WHERE organization = $1 AND rollup = {rollup}"
        f" AND at >= {bound(piece.start)} AND at < {bound(piece.end)}{chosen} GROUP BY rollup, place_number{at}"
    )


def sum_of(row: asyncpg.Record, keys: Sequence[str]) -> UsageSum:
    """A row of sums."""
    figures = {name: row[name] for name in FIGURES if not name.startswith("saved_")}
    saving = Saving(row["saved_cache_usd_nanos"], row["saved_prompt_usd_nanos"], row["saved_route_usd_nanos"])
    return UsageSum(keys=tuple(row[key] for key in keys), saving=saving, **figures)
