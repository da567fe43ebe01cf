"""RPCs that plan routes and follow them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_router.deployments.eligible import permitted
from farthing_router.edge import messages, rule_messages
from farthing_router.pricing.price_book import PriceBook, Prices
from farthing_router.routing.cascade import Cascade
from farthing_router.routing.errands import Attempt, Finished
from farthing_router.routing.explaining import explain
from farthing_router.routing.planning import Planner

_SHADOWS_MAX = 4


class RouteRpcs:
    """Routes."""

    def __init__(
        self,
        *,
        book: PriceBook,
        planner: Planner,
        cascade: Cascade,
        clock: Clock,
        generate_timeout_s: float,
    ) -> None:
        self._catalog = book.catalog
        self._book = book
        self._planner = planner
        self._cascade = cascade
        self._clock = clock
        self._generate_timeout_s = generate_timeout_s

    async def PlanRoute(self, request: Any, context: Any) -> Any:
        """Plans a route."""
        wish, prices = messages.wish(request), self._prices(request)
        route = self._planner.plan(wish, prices)
        baseline_model, baseline_usd_nanos = self._planner.costs.baseline(wish, prices)
        shadows = self._planner.shadows(wish, route, prices)
        return router_pb2.PlanRouteResponse(
            route=messages.route(route),
            baseline_model=baseline_model,
            baseline_likely_usd_nanos=baseline_usd_nanos,
            shadows=[router_pb2.Shadow(route=messages.route(each), cause=cause) for each, cause in shadows[:_SHADOWS_MAX]],
        )

    async def ExplainRoute(self, request: Any, context: Any) -> Any:
        """Explains a route."""
        wish, prices = messages.wish(request.plan), self._prices(request.plan)
        explained = explain(self._planner, wish, prices)
        baseline_model, baseline_usd_nanos = self._planner.costs.baseline(wish, prices)
        return rule_messages.explanation(explained, baseline_model, baseline_usd_nanos)

    async def Generate(self, request: Any, context: Any) -> Any:
        """Follows a route."""
        prices = self._prices(request)
        errand = messages.errand(request, self._ends_at_s(context), prices)
        self._check_models(request, prices)
        return messages.finished(await self._cascade.run(errand))

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Follows a route, streaming."""
        prices = self._prices(request)
        errand = messages.errand(request, self._ends_at_s(context), prices)
        self._check_models(request, prices)
        async with aclosing(self._cascade.stream(errand)) as items:
            async for item in items:
                if isinstance(item, Finished):
                    yield router_pb2.StreamGenerateResponse(finished=messages.finished(item))
                elif isinstance(item, Attempt):
                    yield router_pb2.StreamGenerateResponse(attempt=messages.attempt(item))
                else:
                    yield messages.piece(item, item.model)

    def _prices(self, request: Any) -> Prices:
        return self._book.prices(messages.organization(request.scope))

    def _ends_at_s(self, context: Any) -> float:
        remaining_s = context.time_remaining()
        return self._clock.monotonic_s() + (self._generate_timeout_s if remaining_s is None else remaining_s)

    def _check_models(self, request: Any, prices: Prices) -> None:
        for number, candidate in enumerate(request.route.candidates):
            known = self._catalog.models.get(candidate.model)
            if known is None or not prices.knows(known):
                raise FieldInvalid(field=f"route.candidates[{number}].model", problem="is not in the catalog, or has no price")
            places = permitted(known, candidate.deployments, batch=candidate.service_tier == "batch")
            if not places:
                raise FieldInvalid(field=f"route.candidates[{number}].deployments", problem="are not in the catalog")
            if not all(prices.knows(known, each) for each in places):  # what is called must be charged
                raise FieldInvalid(field=f"route.candidates[{number}].deployments", problem="have no price, or not all of them")
