"""Putting models in order, best first, by what each strategy looks for.

Balanced: score = weight · log2(cost) + weight · log2(latency) − weight · quality / 0.1, the least is best. So with equal weights half the
price, half the time and ten points of quality are worth the same, whatever the units; and since a logarithm turns proportions into
differences, the order of two models does not depend on which others are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from typing import Any

from farthing_router.routing.ports import Option
from farthing_router.routing.rules import Weights

QUALITY_UNIT = 0.1
"""The gain in quality that is worth as much as half the price."""
_COST_USD_NANOS_MIN = 1_000
"""Below this, prices are the same for a balanced choice: a millionth of a dollar. A model that costs nothing is not infinitely good."""


def ranked(options: Sequence[Option], strategy: str, *, weights: Weights | None = None) -> list[Option]:
    """Options from best to worst for "cheapest", "fastest", "quality" or "balanced" (each matters the same without weights)."""
    if strategy == "balanced":
        used = weights or Weights()
        return sorted(options, key=lambda each: (score(each, used), each.likely_usd_nanos, each.model))
    return sorted(options, key=_KEYS[strategy])


def score(option: Option, weights: Weights) -> float:
    """How a model does in a balanced choice; less is better."""
    total = weights.cost + weights.latency + weights.quality
    return (
        weights.cost * log2(max(_COST_USD_NANOS_MIN, option.likely_usd_nanos))
        + weights.latency * log2(max(1, option.latency_ms))
        - weights.quality * option.quality / QUALITY_UNIT
    ) / total


_KEYS: dict[str, Callable[[Option], Any]] = {
    "cheapest": lambda each: (each.likely_usd_nanos, -each.quality, each.model),
    "fastest": lambda each: (each.latency_ms, each.likely_usd_nanos, each.model),
    "quality": lambda each: (-each.quality, not each.quality_known, each.likely_usd_nanos, each.model),
}
