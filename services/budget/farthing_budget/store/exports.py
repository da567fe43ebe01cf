"""Usage rows on Postgres, page by page in the order in which they were written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
from farthing_core.scopes import parse_scope

from farthing_budget.exports import ExportQuestion, ExportRow
from farthing_budget.store.connection import reaching
from farthing_budget.store.usage import Bound

_ROWS_A_PAGE = 500
_WINDOW = timedelta(days=1)
_BOUNDS = """
    SELECT min(recorded_at) AS first, max(recorded_at) AS last FROM usage
    WHERE organization = $1 AND recorded_at >= $2 AND recorded_at < $3
"""
_COLUMNS = ", ".join(ExportRow._fields)


class PostgresExports:
    """The ExportStore.

    Every page starts behind the last row of the one before. A cursor would keep a connection, and with it a snapshot that hinders the
    vacuum, for as long as its reader takes.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def pages(self, question: ExportQuestion) -> AsyncIterator[list[ExportRow]]:
        """The rows of a range."""
        scope = parse_scope(question.scope)
        with reaching():
            bounds = await self._pool.fetchrow(_BOUNDS, scope.organization, question.start, question.end)
        start, last = bounds["first"], bounds["last"]
        # A day at a time: where little belongs to the scope, no query looks for it through more rows than a day has.
        while start is not None and start <= last:
            end = min(start + _WINDOW, question.end)
            async for rows in self._window(question._replace(start=start, end=end)):
                yield rows
            start = end if end < question.end else None

    async def _window(self, question: ExportQuestion) -> AsyncIterator[list[ExportRow]]:
        last: ExportRow | None = None
        while True:
            bound = Bound()
            with reaching():
                found = await self._pool.fetch(_page(bound, question, last), *bound.values)
            rows = [ExportRow(*row) for row in found]
            if rows:
                yield rows
                last = rows[-1]
            if len(rows) < _ROWS_A_PAGE:
                return


def _page(bound: Bound, question: ExportQuestion, last: ExportRow | None) -> str:
    scope = parse_scope(question.scope)
    chosen = [f"organization = {bound(scope.organization)}", f"recorded_at < {bound(question.end)}"]
    if last is None:
        chosen.append(f"recorded_at >= {bound(question.start)}")
    else:
        behind = ", ".join(map(bound, (last.recorded_at, last.request_id, last.line)))
        chosen.append(f"(recorded_at, request_id, line) > ({behind})")
    if len(scope.ancestors) > 1:
        path = bound(scope.path)
        chosen.append(f"(scope = {path} OR starts_with(scope, {path} || '/'))")
    chosen += [f"{name} = {bound(value)}" for name, value in question.only.given()]
    return (
        f"SELECT {_COLUMNS} FROM usage WHERE {' AND '.join(chosen)} ORDER BY organization, recorded_at, request_id, line"
        f" LIMIT {_ROWS_A_PAGE}"
    )
