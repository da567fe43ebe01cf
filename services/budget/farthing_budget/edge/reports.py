"""RPCs that report on usage: allocation, export and the comparison with invoices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.edge.usage import time_range, usage_filter, whole_hours
from farthing_budget.exports import INVOICE_HEADER, LINES, Csv, ExportQuestion, Format, invoice_line
from farthing_budget.questions import Group, UsageQuestion
from farthing_budget.reports import AllocationLine, AllocationQuestion, allocatable, budgets_for, chosen, lines_of, scope_of
from farthing_budget.store import BudgetStore, ExportStore, UsageStore

_LINES_MAX = 1_000
_PAGE_SIZE = 1_000


class ReportRpcs:
    """Reports."""

    def __init__(self, *, usage: UsageStore, exports: ExportStore, budgets: BudgetStore, clock: Clock) -> None:
        self._usage = usage
        self._exports = exports
        self._budgets = budgets
        self._clock = clock

    async def GetAllocationReport(self, request: Any, context: Any) -> Any:
        """Allocates what a scope spent."""
        asked = _allocation_question(request, self._clock.now())
        found, total = await self._usage.allocation(asked)
        lines = chosen(found, total, lines_max=asked.lines_max)
        scopes = [scope for scope in (scope_of(asked, each.keys) for each in lines) if scope]
        terms = await self._budgets.terms_of(parse_scope(asked.scope).organization, scopes) if scopes else []
        return budget_pb2.GetAllocationReportResponse(
            lines=[_line(each) for each in lines_of(asked, lines, budgets_for(terms, asked.start, asked.end))],
            cost_usd_nanos=total.cost_usd_nanos,
            previous_cost_usd_nanos=total.previous_cost_usd_nanos,
            requests=total.requests,
            estimated_usd_nanos=total.estimated_usd_nanos,
            start_time=messages.timestamp(asked.start),
            end_time=messages.timestamp(asked.end),
        )

    async def ExportUsage(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Exports usage in chunks of whole lines."""
        wanted = Format(request.format or Format.FOCUS)
        start, end = time_range(request, self._clock.now())
        asked = ExportQuestion(request.scope, start, end, usage_filter(request.filter))
        pages = self._invoice_pages(asked) if wanted is Format.INVOICE else self._row_pages(asked, wanted)
        made = Csv(INVOICE_HEADER if wanted is Format.INVOICE else LINES[wanted][0])
        async for page in pages:
            for chunk in made.add(page):
                yield budget_pb2.ExportUsageResponse(chunk=chunk, rows=made.rows)
        yield budget_pb2.ExportUsageResponse(chunk=made.rest(), rows=made.rows)

    async def _row_pages(self, asked: ExportQuestion, wanted: Format) -> AsyncIterator[list[list[Any]]]:
        async for rows in self._exports.pages(asked):
            yield [LINES[wanted][1](row) for row in rows]

    async def _invoice_pages(self, asked: ExportQuestion) -> AsyncIterator[list[list[Any]]]:
        hours = whole_hours(asked.start, asked.end)
        question = UsageQuestion(asked.scope, *hours, (Group.DAY, Group.MODEL, Group.PROVIDER), _PAGE_SIZE, only=asked.only)
        while True:
            found = await self._usage.sums(question)
            yield [invoice_line(each) for each in found]
            if len(found) < _PAGE_SIZE:
                return
            question = replace(question, after=found[-1].keys)


def _allocation_question(request: Any, now: datetime) -> AllocationQuestion:
    end = messages.moment(request, "end_time") or now
    start = messages.moment(request, "start_time") or _month_of(end)
    if end <= start:
        raise FieldInvalid(field="end_time", problem="must be after start_time")
    start, end = whole_hours(start, end)
    group = allocatable(Group(request.group) if request.group else None, request.scope)
    return AllocationQuestion(request.scope, start, end, group, request.lines_max or _LINES_MAX)


def _month_of(end: datetime) -> datetime:
    """The start of the calendar month that `end` ends or lies in."""
    return (end - timedelta(microseconds=1)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _line(given: AllocationLine) -> Any:
    found, budget = given.found, given.budget_usd_nanos
    return budget_pb2.AllocationLine(
        name=given.name,
        requests=found.requests,
        cost_usd_nanos=found.cost_usd_nanos,
        share_ppm=given.share_ppm,
        previous_cost_usd_nanos=found.previous_cost_usd_nanos,
        budget_usd_nanos=budget,
        variance_usd_nanos=None if budget is None else found.cost_usd_nanos - budget,
        saved_usd_nanos=found.saved_usd_nanos,
    )
