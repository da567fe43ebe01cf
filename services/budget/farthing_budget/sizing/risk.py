"""From hazards to a risk: the distribution of what a stream may still cost, its quantile b and its cumulants K(θ)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import exp, expm1, log
from operator import mul

from farthing_core.money import TOKENS_PER_PRICE

from farthing_budget.sizing.bins import bin_end, bin_of
from farthing_budget.sizing.pool import NO_RISK, TAIL, THETAS, Risk, part_of


def risk_of(hazards: Sequence[Sequence[float]], index: int, *, tokens_max: int, price: int) -> Risk:
    """The risk of a stream that owns everything up to the end of bin `index`, by each memory's hazards of ending in a bin.

    `price` is in nanodollars per million output tokens; the stream ends at `tokens_max` at the latest.
    """
    last = bin_of(tokens_max)
    if index >= last or price <= 0:
        return NO_RISK
    parts = [_part(memory, index, last=last, tokens_max=tokens_max, price=price) for memory in hazards]
    return tuple([value for part in parts for value in part]) if any(part[0] for part in parts) else NO_RISK


def _part(hazards: Sequence[float], index: int, *, last: int, tokens_max: int, price: int) -> Risk:
    shares, beyond = [], 1.0
    quantile = index
    for bin_ in range(index, last):
        ending = beyond * hazards[bin_]
        shares.append(ending)
        beyond -= ending
        if beyond <= TAIL:
            quantile = bin_
            break
    else:
        quantile = last
        shares.append(0.0)
    if quantile == index:
        return _NOTHING
    # What lies beyond the quantile counts as the quantile itself: all of it at the very end of its bin.
    shares.append(beyond)
    end_tokens = min(bin_end(quantile), tokens_max)
    rest_usd_nanos = -(-(end_tokens - bin_end(index)) * price // TOKENS_PER_PRICE)
    weights = _weights(index, end_tokens, price)
    ks = [log(sum(map(mul, row, shares))) + theta * rest_usd_nanos for row, theta in zip(weights, THETAS, strict=True)]
    return part_of(rest_usd_nanos, ks)


_NOTHING = part_of(0, [0.0] * len(THETAS))


@lru_cache(maxsize=2048)
def _weights(index: int, end_tokens: int, price: int) -> tuple[tuple[float, ...], ...]:
    """By θ, E exp(θ · (cost − b)) of ending now, in each later bin evenly anywhere in it, and at b, which is at `end_tokens`."""
    rows = []
    ends = [bin_end(index)]
    while ends[-1] < end_tokens:
        ends.append(min(bin_end(bin_of(ends[-1] + 1)), end_tokens))
    for theta in THETAS:
        x = theta * price / TOKENS_PER_PRICE
        row = [exp(x * (ends[0] - end_tokens))]
        for start, end in pairwise(ends):
            width = x * (end - start)
            row.append(exp(x * (end - end_tokens)) * (-expm1(-width) / width))
        rows.append((*row, 1.0))
    return tuple(rows)
