"""RPCs that admit requests within rate limits, and make, list and delete those."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.admissions import Admissions, Ask
from farthing_budget.known_limits import KnownLimits
from farthing_budget.rate_limits import BURST_S, RateLimit, RateLimitDraft
from farthing_budget.store import RateLimitStore

_PAGE_SIZE = 100
_TTL_S = 600


class RateLimitRpcs:
    """Rate limits."""

    def __init__(
        self, admissions: Admissions, *, limits: RateLimitStore, known: KnownLimits, clock: Clock, new_id: NewId
    ) -> None:
        self._admissions = admissions
        self._limits = limits
        self._known = known
        self._clock = clock
        self._new_id = new_id

    async def AdmitRequest(self, request: Any, context: Any) -> Any:
        """Lets a request through."""
        scope, model = parse_scope(request.scope), messages.text(request.model, field="model")
        ask = Ask(scope, request.request_id.lower(), model, request.tokens, request.ttl_s or _TTL_S)
        limited, requests_left, tokens_left = await self._admissions.admit(ask)
        return budget_pb2.AdmitRequestResponse(limited=limited, requests_left=requests_left, tokens_left=tokens_left)

    async def FinishRequest(self, request: Any, context: Any) -> Any:
        """Ends an admitted request."""
        tokens = request.tokens if request.HasField("tokens") else None
        await self._admissions.finish(parse_scope(request.scope), request.request_id.lower(), tokens)
        return budget_pb2.FinishRequestResponse()

    async def CreateRateLimit(self, request: Any, context: Any) -> Any:
        """Creates a rate limit."""
        scope = parse_scope(request.scope)
        limit = RateLimit(
            organization=scope.organization,
            rate_limit_id=self._new_id(),
            scope=scope.path,
            model=messages.text(request.model, field="model"),
            requests_per_minute=request.requests_per_minute,
            tokens_per_minute=request.tokens_per_minute,
            concurrent_requests=request.concurrent_requests,
            burst_s=request.burst_s or BURST_S,
        ).checked()
        draft = RateLimitDraft(limit, request.request_id.lower(), messages.body_hash(request), self._clock.now())
        made = await self._limits.create(draft)
        await self._known.reread(scope.organization)
        return budget_pb2.CreateRateLimitResponse(rate_limit=_message(made))

    async def ListRateLimits(self, request: Any, context: Any) -> Any:
        """Lists rate limits."""
        size, after = request.page_size or _PAGE_SIZE, _after(request.page_token)
        found = await self._limits.list_from(parse_scope(request.scope), after=after, count_max=size + 1)
        token = messages.page_token((found[size - 1].scope, found[size - 1].model)) if len(found) > size else ""
        return budget_pb2.ListRateLimitsResponse(rate_limits=[_message(each) for each in found[:size]], next_page_token=token)

    async def DeleteRateLimit(self, request: Any, context: Any) -> Any:
        """Deletes a rate limit."""
        organization = parse_scope(request.scope).organization
        await self._limits.delete(organization, messages.text(request.rate_limit_id, field="rate_limit_id"))
        await self._known.reread(organization)
        return budget_pb2.DeleteRateLimitResponse()


def _message(limit: RateLimit) -> Any:
    return budget_pb2.RateLimit(
        rate_limit_id=limit.rate_limit_id,
        scope=limit.scope,
        model=limit.model,
        requests_per_minute=limit.requests_per_minute,
        tokens_per_minute=limit.tokens_per_minute,
        concurrent_requests=limit.concurrent_requests,
        burst_s=limit.burst_s,
    )


def _after(token: str) -> tuple[str, str] | None:
    keys = messages.page_keys(token)
    if keys is not None and len(keys) != 2:
        raise FieldInvalid(field="page_token", problem="belongs to another question")
    return (keys[0], keys[1]) if keys else None
