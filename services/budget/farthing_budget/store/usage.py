"""Sums of usage on Postgres, from the hourly roll-up."""

from __future__ import annotations

import asyncpg
from farthing_core.scopes import parse_scope

from farthing_budget.store.connection import reaching
from farthing_budget.usage import Group, Saving, UsageQuestion, UsageSum

_COLUMNS = {
    Group.MODEL: "model",
    Group.SCOPE: "scope",
    Group.DAY: "to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    Group.TASK: "task",
    Group.PROVIDER: "provider",
}
_SUMS = (
    "requests",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cost_usd_nanos",
    "baseline_usd_nanos",
    "saved_cache_usd_nanos",
    "saved_prompt_usd_nanos",
    "saved_route_usd_nanos",
)


class PostgresUsage:
    """The UsageStore."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def sums(self, question: UsageQuestion) -> list[UsageSum]:
        """A page of sums."""
        scope = parse_scope(question.scope)
        keys = [f"{_COLUMNS[group]} AS key{number}" for number, group in enumerate(question.groups)]
        sums = [f"coalesce(sum({name}), 0)::bigint AS {name}" for name in _SUMS]
        names = ", ".join(f"key{number}" for number in range(len(keys)))
        # The inner query groups, the outer one pages: keys are computed columns.
        sql = (
            f"SELECT * FROM (SELECT {', '.join([*keys, *sums])} FROM usage_hourly WHERE organization = $1 "
            "AND (scope = $2 OR starts_with(scope, $2 || '/')) AND hour >= $3 AND hour < $4"
            + (f" GROUP BY {names}" if keys else "")
            + ") AS grouped"
            + (f" WHERE ({names}) > ({', '.join(f'${5 + n}::text' for n in range(len(keys)))})" if question.after else "")
            + (f" ORDER BY {names}" if keys else "")
            + f" LIMIT {int(question.page_size)}"
        )
        with reaching():
            rows = await self._pool.fetch(
                sql, scope.organization, scope.path, question.start, question.end, *(question.after or ())
            )
        return [_sum(row, len(keys)) for row in rows if keys or row["attempts"]]


def _sum(row: asyncpg.Record, keys: int) -> UsageSum:
    return UsageSum(
        keys=tuple(row[f"key{number}"] for number in range(keys)),
        requests=row["requests"],
        attempts=row["attempts"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost_usd_nanos=row["cost_usd_nanos"],
        baseline_usd_nanos=row["baseline_usd_nanos"],
        saving=Saving(row["saved_cache_usd_nanos"], row["saved_prompt_usd_nanos"], row["saved_route_usd_nanos"]),
    )
