"""Translates: messages in, the router's call, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_router import messages
from farthing_router.cascade import Cascade
from farthing_router.catalog import Catalog
from farthing_router.errands import Attempt, Finished
from farthing_router.planning import Planner
from farthing_router.prices import PriceUnknown

_PAGE_SIZE = 1000


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """`farthing.router.v1.RouterService`."""

    def __init__(
        self, *, catalog: Catalog, planner: Planner, cascade: Cascade, clock: Clock, generate_timeout_s: float
    ) -> None:
        self._catalog = catalog
        self._planner = planner
        self._cascade = cascade
        self._clock = clock
        self._generate_timeout_s = generate_timeout_s

    async def ListModels(self, request: Any, context: Any) -> Any:
        """Lists the models, by name."""
        names = [name for name in sorted(self._catalog.models) if name > request.page_token]
        size = request.page_size or _PAGE_SIZE
        return router_pb2.ListModelsResponse(
            models=[messages.model(self._catalog.models[name]) for name in names[:size]],
            next_page_token=names[size - 1] if len(names) > size else "",
            baseline_model=self._catalog.baseline_model,
        )

    async def PlanRoute(self, request: Any, context: Any) -> Any:
        """Plans a route."""
        wish = messages.wish(request)
        route = self._planner.plan(wish)
        baseline_model, baseline_usd_nanos = self._planner.baseline(wish)
        return router_pb2.PlanRouteResponse(
            route=messages.route(route), baseline_model=baseline_model, baseline_likely_usd_nanos=baseline_usd_nanos
        )

    async def Generate(self, request: Any, context: Any) -> Any:
        """Follows a route."""
        errand = messages.errand(request, self._ends_at_s(context))
        self._check_models(request)
        return messages.finished(await self._cascade.run(errand))

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Follows a route, streaming."""
        errand = messages.errand(request, self._ends_at_s(context))
        self._check_models(request)
        async with aclosing(self._cascade.stream(errand)) as items:
            async for item in items:
                if isinstance(item, Finished):
                    yield router_pb2.StreamGenerateResponse(finished=messages.finished(item))
                elif isinstance(item, Attempt):
                    yield router_pb2.StreamGenerateResponse(attempt=messages.attempt(item))
                else:
                    yield messages.piece(item, item.model)

    async def RateUsage(self, request: Any, context: Any) -> Any:
        """Prices usage."""
        model = self._catalog.model(request.model)
        if model.price is None:
            raise PriceUnknown(model=request.model)
        cost = model.price.of(messages.tokens(request.usage))
        return router_pb2.RateUsageResponse(cost_usd_nanos=cost, price_source=model.price.source)

    def _ends_at_s(self, context: Any) -> float:
        remaining_s = context.time_remaining()
        return self._clock.monotonic_s() + (self._generate_timeout_s if remaining_s is None else remaining_s)

    def _check_models(self, request: Any) -> None:
        for number, candidate in enumerate(request.route.candidates):
            known = self._catalog.models.get(candidate.model)
            if known is None or known.price is None:
                raise FieldInvalid(field=f"route.candidates[{number}].model", problem="is not in the catalog, or has no price")
