"""The port to the price book's rows, and its promises.

- A row is durable before `add` returns, and is never changed after.
- Rows become visible in the order of their numbers: whoever has seen number n has seen every row before it.
- The same request_id gives the stored row, whoever asks and however many ask at once; with another body it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from farthing_core.errors import FarthingError

from farthing_router.pricing.rates import RateCard


class RequestIdReused(FarthingError):
    """A request_id under which something else was written down."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} belongs to another request", request_id=request_id)


class PriceBookFull(FarthingError):
    """The book holds as many rows as every replica can keep in memory."""

    def __init__(self, *, rows_max: int) -> None:
        super().__init__(f"the price book holds {rows_max} prices, which is all it may", rows_max=rows_max)


class StoreUnavailable(FarthingError):
    """The database is out of reach."""

    unreachable = True

    def __init__(self, *, problem: str) -> None:
        super().__init__(f"the database is out of reach ({problem})")


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price to be written down. With neither card nor discount it says that the book has none for its time.

    `organization` is empty for everybody's price; `model` is empty for a discount on all of a provider's models.
    """

    price_id: str
    organization: str
    provider: str
    model: str
    effective_at: datetime
    expires_at: datetime | None
    card: RateCard | None
    discount_bps: int | None
    source: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A price as it was written down; of two that hold for a moment the one with the larger number counts."""

    number: int
    price: NewPrice

    @property
    def withdrawn(self) -> bool:
        """Whether it only says that there is no price."""
        return self.price.card is None and self.price.discount_bps is None

    def holds_at(self, moment: datetime) -> bool:
        """Whether a moment falls into its time."""
        expires_at = self.price.expires_at
        return self.price.effective_at <= moment and (expires_at is None or moment < expires_at)

    def overlaps(self, other: PriceRow) -> bool:
        """Whether it is about the same thing as another row, for a time that they share."""
        mine, its = self.price, other.price
        if (mine.organization, mine.provider, mine.model) != (its.organization, its.provider, its.model):
            return False
        begins_first = mine.expires_at is None or its.effective_at < mine.expires_at
        return begins_first and (its.expires_at is None or mine.effective_at < its.expires_at)


class PriceStore(Protocol):
    """Durable rows."""

    async def add(self, price: NewPrice, *, request_id: str, fingerprint: bytes) -> tuple[PriceRow, bool]:
        """Writes a row; True where it was there before under this request_id.

        Raises RequestIdReused, PriceBookFull, StoreUnavailable.
        """
        ...

    async def after(self, number: int, *, rows_max: int) -> list[PriceRow]:
        """The rows with larger numbers, in order, at most so many. Raises StoreUnavailable."""
        ...
