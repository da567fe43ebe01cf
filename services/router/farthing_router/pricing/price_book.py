"""The price book: dated prices from contracts, the book's own rows, farthing.yaml and lists, asked in that order.

All rows are kept in memory, and what was written since is read every few seconds: a look-up is a few dictionary accesses. The book only
ever grows, so what one replica writes the others know after one interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_runtime.refreshing import Watched

from farthing_router.catalog import Catalog, Model, ModelUnknown
from farthing_router.deployments.declared import Deployment
from farthing_router.pricing.list_prices import Listed
from farthing_router.pricing.prices import Price, PriceUnknown, upper_bound
from farthing_router.store import NewPrice, PriceRow, PriceStore

UNKNOWN_FACTOR = 2
"""An unknown price is bounded by the dearest known rates of its provider, else of the catalog, times this."""
ROWS_MAX = 20_000
SUPERSEDED_MAX = 100
_BOUNDS_MAX = 1_000
_Key = tuple[str, str, str]


class PriceBook:
    """Prices for everybody and for each organisation, now and at any moment."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: PriceStore,
        clock: Clock,
        list_price: Callable[[str, str], Listed | None],
    ) -> None:
        self.catalog = catalog
        self.list_price = list_price
        self._store = store
        self._clock = clock
        self._rows: dict[_Key, tuple[PriceRow, ...]] = {}
        self.watched = Watched("prices", after=store.after, take=self._take)
        self._bounds: dict[tuple[str, str], tuple[tuple[int, int], Price | None]] = {}

    def prices(self, organization: str = "", *, at: datetime | None = None) -> Prices:
        """What holds for an organisation (for nobody in particular when empty) at a moment (now when None)."""
        return Prices(self, organization, at or self._clock.now())

    def rows(self, key: _Key) -> tuple[PriceRow, ...]:
        """The rows about (organisation, provider, model), newest first."""
        return self._rows.get(key, ())

    def all_rows(self) -> list[PriceRow]:
        """Every row, newest first."""
        return sorted((row for rows in self._rows.values() for row in rows), key=lambda row: -row.number)

    def providers_of(self, model: str) -> set[str]:
        """The providers for whose model of this name the book has rows."""
        return {provider for _, provider, name in self._rows if name == model}

    async def write(self, price: NewPrice, *, request_id: str, fingerprint: bytes) -> tuple[PriceRow, list[str], bool]:
        """Writes a price down: the row, the ids of those it takes precedence over, and whether it was there before.

        Raises RequestIdReused, PriceBookFull, StoreUnavailable.
        """
        row, repeated = await self._store.add(price, request_id=request_id, fingerprint=fingerprint)
        await self.watched.refresh()
        rows = self.rows((price.organization, price.provider, price.model))
        older = [each.price.price_id for each in rows if each.number < row.number and each.overlaps(row)]
        return row, older[:SUPERSEDED_MAX], repeated

    def _take(self, row: PriceRow) -> None:
        key = (row.price.organization, row.price.provider, row.price.model)
        self._rows[key] = (row, *self._rows.get(key, ()))

    def bound(self, prices: Prices, provider: str) -> Price | None:
        """The upper bound of a provider's unknown price, remembered for a minute."""
        key, stamp = (prices.organization, provider), prices.stamp
        found = self._bounds.get(key)
        if found is None or found[0] != stamp:
            known = [
                (deployment.provider, price)
                for model in self.catalog.models.values()
                for deployment in model.deployments
                if (price := prices.find(model, deployment)) is not None
            ]
            family = upper_bound([price for seller, price in known if seller == provider], factor=UNKNOWN_FACTOR)
            found = (stamp, family or upper_bound([price for _, price in known], factor=UNKNOWN_FACTOR))
            if len(self._bounds) >= _BOUNDS_MAX:
                self._bounds.clear()
            self._bounds[key] = found
        return found[1]


class Prices:
    """What holds for one organisation at one moment. Cheap to make: one a request."""

    __slots__ = ("_book", "at", "organization")

    def __init__(self, book: PriceBook, organization: str, at: datetime) -> None:
        self._book = book
        self.organization = organization
        self.at = at

    @property
    def bounds_unknown(self) -> bool:
        """Whether an unknown price is bounded instead of being an error."""
        return self._book.catalog.unknown_price == "upper_bound"

    @property
    def stamp(self) -> tuple[int, int]:
        """What is looked up stays the same while this does: the book's last row, and the minute."""
        return self._book.watched.last_number, int(self.at.timestamp()) // 60

    def of(self, model: Model, deployment: Deployment | None = None) -> Price:
        """The price of a model at a deployment, or an upper bound where that is the policy. Raises PriceUnknown.

        Without a deployment it is that of the first whose price is known.
        """
        found = self.find(model, deployment)
        if found is None and self.bounds_unknown:
            found = self._book.bound(self, (deployment or model).provider)
        if found is None:
            raise PriceUnknown(model=model.name)
        return found

    def knows(self, model: Model, deployment: Deployment | None = None) -> bool:
        """Whether a model has a price at a deployment (at any of them without one), or a bound by policy."""
        try:
            return bool(self.of(model, deployment))
        except PriceUnknown:
            return False

    def find(self, model: Model, deployment: Deployment | None = None) -> Price | None:
        """The known price of a model at a deployment; without one, at the first whose price is known."""
        if deployment is not None:
            return self._look_up(deployment.provider, model.name, deployment.stated, deployment.listed)
        for each in model.deployments:
            if (found := self._look_up(each.provider, model.name, each.stated, each.listed)) is not None:
                return found
        return None

    def of_named(self, name: str, provider: str) -> tuple[str, Price]:
        """The provider and the price of a model that may not be in the catalog any more. Raises ModelUnknown, PriceUnknown."""
        catalog, book = self._book.catalog, self._book
        model = catalog.models.get(name)
        if model is not None:
            at = next((each for each in model.deployments if provider in ("", each.provider)), None)
            if at is not None:
                return at.provider, self.of(model, at)
        written = book.providers_of(name)
        if not provider:
            if len(written) != 1:
                raise ModelUnknown(model=name)
            provider = next(iter(written))
        listed = book.list_price(provider, name)
        if listed is None and provider not in written:
            raise ModelUnknown(model=name)
        found = self._look_up(provider, name, None, listed) or (book.bound(self, provider) if self.bounds_unknown else None)
        if found is None:
            raise PriceUnknown(model=name)
        return provider, found

    def cheap_to_dear(self) -> list[str]:
        """The catalog's models with a known price, in order of it."""
        known = [(price.level, model.name) for model in self._book.catalog.models.values() if (price := self.find(model))]
        return [name for _, name in sorted(known, key=lambda each: each[0])]

    def baseline_model(self) -> str:
        """The model savings are reckoned against: the catalog's, else the dearest; empty without any."""
        if self._book.catalog.baseline_model:
            return self._book.catalog.baseline_model
        return next(reversed(self.cheap_to_dear()), "")

    def _look_up(self, provider: str, model: str, stated: Price | None, listed: Listed | None) -> Price | None:
        if self.organization:
            for key in ((self.organization, provider, model), (self.organization, provider, "")):
                row = self._row(key)
                if row is None or row.withdrawn:
                    continue
                source = f"contract/{row.price.price_id}"
                if row.price.card is not None:
                    return Price(row.price.card, source, row=row)
                below = self._without_contract(provider, model, stated, listed)
                if below is None:
                    return None
                bps = row.price.discount_bps or 0
                return replace(below, source=f"{source} on {below.source}"[:200], discount_bps=bps, row=row)
        return self._without_contract(provider, model, stated, listed)

    def _without_contract(self, provider: str, model: str, stated: Price | None, listed: Listed | None) -> Price | None:
        row = self._row(("", provider, model))
        if row is not None and row.price.card is not None:
            return Price(row.price.card, f"price book/{row.price.price_id}", row=row)
        return stated or (listed.at(self.at) if listed is not None else None)

    def _row(self, key: _Key) -> PriceRow | None:
        for row in self._book.rows(key):
            if row.holds_at(self.at):
                return row
        return None


def check_named(catalog: Catalog, price: NewPrice) -> NewPrice:
    """The price with its provider, taken from the catalog where it names none. Raises FieldInvalid."""
    known = catalog.models.get(price.model)
    if price.provider:
        return price
    if known is None:
        raise FieldInvalid(field="price.provider", problem="must be given for a model that the catalog does not have")
    if len({each.provider for each in known.deployments}) > 1:
        raise FieldInvalid(field="price.provider", problem="must be given: the model has several")
    return replace(price, provider=known.provider)
