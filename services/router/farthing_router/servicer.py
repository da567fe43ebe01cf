"""Translates: messages in, the router's call, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from hashlib import sha256
from typing import Any

from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX, AmountInvalid

from farthing_router import messages, price_messages
from farthing_router.cascade import Cascade
from farthing_router.errands import Attempt, Finished
from farthing_router.planning import Planner
from farthing_router.price_book import PriceBook, Prices, check_named
from farthing_router.price_lists import Wanted, in_force, written
from farthing_router.prices import PriceUnknown
from farthing_router.tokens import service_tier

_PAGE_SIZE = 1000


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """`farthing.router.v1.RouterService`."""

    def __init__(
        self,
        *,
        book: PriceBook,
        planner: Planner,
        cascade: Cascade,
        clock: Clock,
        new_id: Callable[[], str],
        generate_timeout_s: float,
    ) -> None:
        self._catalog = book.catalog
        self._book = book
        self._new_id = new_id
        self._planner = planner
        self._cascade = cascade
        self._clock = clock
        self._generate_timeout_s = generate_timeout_s

    async def ListModels(self, request: Any, context: Any) -> Any:
        """Lists the models, by name."""
        names = [name for name in sorted(self._catalog.models) if name > request.page_token]
        size = request.page_size or _PAGE_SIZE
        prices = self._prices(request)
        return router_pb2.ListModelsResponse(
            models=[messages.model(self._catalog.models[name], prices) for name in names[:size]],
            next_page_token=names[size - 1] if len(names) > size else "",
            baseline_model=prices.baseline_model(),
        )

    async def PlanRoute(self, request: Any, context: Any) -> Any:
        """Plans a route."""
        wish, prices = messages.wish(request), self._prices(request)
        route = self._planner.plan(wish, prices)
        baseline_model, baseline_usd_nanos = self._planner.baseline(wish, prices)
        return router_pb2.PlanRouteResponse(
            route=messages.route(route), baseline_model=baseline_model, baseline_likely_usd_nanos=baseline_usd_nanos
        )

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

    async def RateUsage(self, request: Any, context: Any) -> Any:
        """Prices usage."""
        prices = self._book.prices(messages.organization(request.scope), at=price_messages.moment(request, "at"))
        provider, price = prices.of_named(request.model, request.provider)
        tokens, tier = messages.tokens(request.usage), service_tier(request.service_tier)
        rated = price.rate(tokens, tier)
        if rated.unknown and not prices.bounds_unknown:
            raise PriceUnknown(model=request.model, kinds=price.unknown_kinds(tokens, tier))
        if rated.cost_usd_nanos > NANOS_MAX:
            raise AmountInvalid(amount=rated.cost_usd_nanos)
        return price_messages.rated(rated, price, price.parts(tokens, tier), provider=provider, model=request.model)

    async def ListPrices(self, request: Any, context: Any) -> Any:
        """Lists prices."""
        organization, at = messages.organization(request.scope), price_messages.moment(request, "at")
        wanted = Wanted(request.provider, request.model, request.page_token, request.page_size or _PAGE_SIZE)
        if request.history:
            rows, token = written(self._book, organization, wanted, at=at)
            return router_pb2.ListPricesResponse(prices=[price_messages.row(row) for row in rows], next_page_token=token)
        found, token = in_force(self._book, organization, wanted, at=at)
        return router_pb2.ListPricesResponse(prices=[price_messages.listed(each) for each in found], next_page_token=token)

    async def UpsertPrice(self, request: Any, context: Any) -> Any:
        """Writes a price down."""
        new = check_named(self._catalog, price_messages.new_price(request.price, self._new_id(), self._clock.now()))
        fingerprint = sha256(request.price.SerializeToString(deterministic=True)).digest()
        row, superseded, repeated = await self._book.write(new, request_id=request.request_id, fingerprint=fingerprint)
        return router_pb2.UpsertPriceResponse(price=price_messages.row(row), superseded_price_ids=superseded, repeated=repeated)

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
