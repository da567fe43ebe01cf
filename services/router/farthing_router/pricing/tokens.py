"""Tokens of one call by kind, and where the counts are from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

USUAL_TIER_NAMES = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand", "none"})
"""How providers call the tier of service that everybody gets."""


class TokensSource(IntEnum):
    """Where counts are from; the numbers are the contract's."""

    REPORTED = 1
    DERIVED = 2
    ESTIMATED = 3
    MISSING = 4


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one call.

    Cached tokens, cache writes, audio and images are parts of their side's total; what is cached of audio and images is a part of
    both. Reasoning is a part of the output. `images` counts images made, where they are billed by the piece.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    cached_audio_input_tokens: int = 0
    image_input_tokens: int = 0
    cached_image_input_tokens: int = 0
    image_output_tokens: int = 0
    images: int = 0
    source: TokensSource = TokensSource.REPORTED

    @property
    def estimated(self) -> bool:
        """Whether a count is our own estimate."""
        return self.source is TokensSource.ESTIMATED


def service_tier(name: str) -> str:
    """A tier of service as the price book calls it: "" for the usual one, else the provider's name in lower case."""
    tier = name.strip().lower()[:40]
    return "" if tier in USUAL_TIER_NAMES else tier
