"""Sizes holds."""

from __future__ import annotations

from farthing_core.money import price_of_tokens

from farthing_budget.operations import Sized, Sizing


class Sizer:
    """Says how large a hold is."""

    def first(self, sizing: Sizing, scope: str) -> Sized:
        """The hold with which a request starts."""
        return Sized(sizing, sizing.output_tokens_max, ())

    def more(self, sized: Sized, scope: str, output_tokens: int) -> Sized:
        """The hold that pays for at least so many output tokens."""
        return sized

    def usd_nanos(self, sized: Sized) -> int:
        """What a hold comes to, in nanodollars."""
        sizing = sized.sizing
        return sizing.input_usd_nanos + price_of_tokens((sized.output_tokens_held, sizing.output_usd_nanos_per_million_tokens))

    def tokens(self, sized: Sized) -> int:
        """What a hold comes to, in tokens."""
        return sized.sizing.input_tokens + sized.output_tokens_held
