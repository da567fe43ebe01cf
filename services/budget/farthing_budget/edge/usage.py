"""RPCs that answer questions about usage."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock

from farthing_budget import messages
from farthing_budget.store import UsageStore


class UsageRpcs:
    """Usage."""

    def __init__(self, *, usage: UsageStore, clock: Clock) -> None:
        self._usage = usage
        self._clock = clock

    async def QueryUsage(self, request: Any, context: Any) -> Any:
        """Sums usage."""
        asked = messages.question(request, self._clock.now())
        size = asked.page_size
        found = await self._usage.sums(messages.one_more(asked))
        token = messages.page_token(found[size - 1].keys) if len(found) > size else ""
        return budget_pb2.QueryUsageResponse(
            rows=[messages.usage_row(each, asked.groups) for each in found[:size]], next_page_token=token
        )
