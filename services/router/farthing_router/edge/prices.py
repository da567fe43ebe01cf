"""RPCs that price usage, and that read and write the price book."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_core.money import NANOS_MAX, AmountInvalid

from farthing_router.edge import messages, price_messages
from farthing_router.pricing.price_book import PriceBook, check_named
from farthing_router.pricing.price_lists import Wanted, in_force, written
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.pricing.tokens import service_tier

_PAGE_SIZE = 1000


class PriceRpcs:
    """Prices."""

    def __init__(self, *, book: PriceBook, clock: Clock, new_id: NewId) -> None:
        self._book = book
        self._clock = clock
        self._new_id = new_id

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
        new = check_named(self._book.catalog, price_messages.new_price(request.price, self._new_id(), self._clock.now()))
        fingerprint = sha256(request.price.SerializeToString(deterministic=True)).digest()
        row, superseded, repeated = await self._book.write(new, request_id=request.request_id, fingerprint=fingerprint)
        return router_pb2.UpsertPriceResponse(price=price_messages.row(row), superseded_price_ids=superseded, repeated=repeated)
