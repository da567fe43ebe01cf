"""RPCs that answer questions about usage."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_budget import messages
from farthing_budget.questions import Group, UsageFilter, UsageQuestion, UsageSum
from farthing_budget.store import UsageStore

_RANGE_DAYS = 30
_PAGE_SIZE = 1000
_KEY_FIELDS = {group: group.name.lower() for group in Group} | {Group.KEY: "key_id"}


class UsageRpcs:
    """Usage."""

    def __init__(self, *, usage: UsageStore, clock: Clock) -> None:
        self._usage = usage
        self._clock = clock

    async def QueryUsage(self, request: Any, context: Any) -> Any:
        """Sums usage."""
        asked = question(request, self._clock.now())
        size = asked.page_size
        found = await self._usage.sums(replace(asked, page_size=size + 1))
        token = messages.page_token(found[size - 1].keys) if len(found) > size and not asked.by_cost else ""
        return budget_pb2.QueryUsageResponse(
            rows=[usage_row(each, asked.groups) for each in found[:size]], next_page_token=token
        )


def question(request: Any, now: datetime) -> UsageQuestion:
    """What sums are asked for. Raises FieldInvalid for a range that ends before it starts or a page token that is not ours."""
    start, end = whole_hours(*time_range(request, now))
    return UsageQuestion(
        scope=request.scope,
        start=start,
        end=end,
        groups=tuple(Group(number) for number in request.group_by),
        page_size=request.page_size or _PAGE_SIZE,
        after=messages.page_keys(request.page_token),
        only=usage_filter(request.filter),
        by_cost=request.by_cost,
    ).checked()


def time_range(request: Any, now: datetime) -> tuple[datetime, datetime]:
    """The range that is asked for: the last 30 days where nothing is said. Raises FieldInvalid for one that ends before it starts."""
    end = messages.moment(request, "end_time") or now
    start = messages.moment(request, "start_time") or end - timedelta(days=_RANGE_DAYS)
    if end <= start:
        raise FieldInvalid(field="end_time", problem="must be after start_time")
    return start, end


def whole_hours(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The whole hours around a range."""
    whole = _hour(end)
    return _hour(start), whole if whole == end else whole + timedelta(hours=1)


def usage_filter(given: Any) -> UsageFilter:
    """Which usage counts."""
    names = ("model", "provider", "task", "service", "domain", "key_id")
    return UsageFilter(**{name: messages.text(getattr(given, name), field=f"filter.{name}") for name in names})


def usage_row(given: UsageSum, groups: tuple[Group, ...]) -> Any:
    """A row of sums."""
    return budget_pb2.UsageRow(
        requests=given.requests,
        attempts=given.attempts,
        input_tokens=given.input_tokens,
        cached_input_tokens=given.cached_input_tokens,
        output_tokens=given.output_tokens,
        cost_usd_nanos=given.cost_usd_nanos,
        baseline_usd_nanos=given.baseline_usd_nanos,
        saving=budget_pb2.Saving(
            cache_usd_nanos=given.saving.cache_usd_nanos,
            prompt_usd_nanos=given.saving.prompt_usd_nanos,
            route_usd_nanos=given.saving.route_usd_nanos,
        ),
        estimated_attempts=given.estimated_attempts,
        **{_KEY_FIELDS[group]: key for group, key in zip(groups, given.keys, strict=True)},
    )


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
