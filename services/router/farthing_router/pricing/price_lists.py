"""Lists of prices: what is in force at a moment, and what the book has written down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_core.errors import FieldInvalid

from farthing_router.catalog import ModelUnknown
from farthing_router.pricing.price_book import PriceBook
from farthing_router.pricing.prices import Price, PriceUnknown
from farthing_router.store import PriceRow

_BETWEEN = "\t"
"""Between model and provider in a page token: no name has one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which prices, and which page of them; an empty provider or model stands for all."""

    provider: str
    model: str
    page_token: str
    page_size: int

    def fits(self, provider: str, model: str) -> bool:
        """Whether a price is wanted."""
        return self.provider in ("", provider) and self.model in ("", model)


@dataclass(frozen=True, slots=True)
class InForce:
    """The price of a model at a moment."""

    model: str
    provider: str
    price: Price


def in_force(book: PriceBook, organization: str, wanted: Wanted, *, at: datetime | None) -> tuple[list[InForce], str]:
    """The prices of the catalog's models and of those only the book knows, by model and provider, and the token of the next page."""
    named = {(model.name, each.provider) for model in book.catalog.models.values() for each in model.deployments}
    named |= {(row.price.model, row.price.provider) for row in book.all_rows() if row.price.organization in ("", organization)}
    names = sorted(name for name in named if name[0] and wanted.fits(name[1], name[0]))
    if wanted.page_token:
        after = tuple(wanted.page_token.split(_BETWEEN))
        names = [name for name in names if name > after]
    page, prices = names[: wanted.page_size], book.prices(organization, at=at)
    found = []
    for model, provider in page:
        try:
            found.append(InForce(model, provider, prices.of_named(model, provider)[1]))
        except (PriceUnknown, ModelUnknown):
            continue
    return found, _BETWEEN.join(page[-1]) if len(names) > len(page) else ""


def written(book: PriceBook, organization: str, wanted: Wanted, *, at: datetime | None) -> tuple[list[PriceRow], str]:
    """What the book has for exactly this organisation ("" for everybody's prices), newest first, and the token of the next page.

    Raises FieldInvalid for a page token of another list.
    """
    if wanted.page_token and not wanted.page_token.isdecimal():
        raise FieldInvalid(field="page_token", problem="is not from this list")
    before = int(wanted.page_token) if wanted.page_token else None
    rows = [
        row
        for row in book.all_rows()
        if row.price.organization == organization
        and wanted.fits(row.price.provider, row.price.model)
        and (at is None or row.holds_at(at))
        and (before is None or row.number < before)
    ]
    page = rows[: wanted.page_size]
    return page, str(page[-1].number) if len(rows) > len(page) else ""
