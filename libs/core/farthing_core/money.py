"""Money as whole nanodollars, rounded once, up."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import NewType

from farthing_core.errors import FarthingError

Nanos = NewType("Nanos", int)
"""An amount of US dollars in units of 10⁻⁹. A plain int on the hot path: `+`, `-` and `<` are all that money needs."""

NANOS_PER_USD = 1_000_000_000
NANOS_MAX = 2**53 - 1
"""The largest amount (about 9.007 million USD): what JSON numbers and Lua still hold exactly."""
TOKENS_PER_PRICE = 1_000_000


class AmountInvalid(FarthingError):
    """An amount that is no number, negative, or larger than NANOS_MAX."""

    def __init__(self, *, amount: object) -> None:
        super().__init__(f"not an amount of money: {amount!r}", amount=str(amount))


def nanos_from_usd(usd: str | int | Decimal) -> Nanos:
    """Nanodollars of a decimal amount of dollars, rounded up. Floats are refused: they have lost the cents already.

    Raises AmountInvalid for what is no number, is negative or is larger than NANOS_MAX.
    """
    if isinstance(usd, float):
        raise AmountInvalid(amount=usd)
    try:
        nanos = (Decimal(usd) * NANOS_PER_USD).to_integral_value(rounding=ROUND_CEILING)
        amount = int(nanos)
    except (InvalidOperation, OverflowError, ValueError) as error:
        raise AmountInvalid(amount=usd) from error
    if not 0 <= amount <= NANOS_MAX:
        raise AmountInvalid(amount=usd)
    return Nanos(amount)


def price_of_tokens(*parts: tuple[int, int]) -> Nanos:
    """The price of (tokens, nanodollars per million tokens) pairs: multiplied first, summed, divided once, rounded up."""
    total = 0
    for tokens, usd_nanos_per_million in parts:
        total += tokens * usd_nanos_per_million
    return Nanos(-(-total // TOKENS_PER_PRICE))


def usd_text(nanos: int, *, digits: int = 6) -> str:
    """An amount for people, such as `$0.001234`."""
    sign = "-" if nanos < 0 else ""
    return f"{sign}${Decimal(abs(nanos)) / NANOS_PER_USD:.{digits}f}"
