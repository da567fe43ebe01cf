"""Log-probabilities of an answer's tokens, summed up for the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TOKENS_MAX = 20_000
# What providers send where a token had no probability at all; it would drown every mean.
_FLOOR = -100.0


def summary(logprobs: Any) -> tuple[float | None, float | None]:
    """Mean log-probability of the tokens, and the mean margin of each over the best other token that is told; None where none are.

    Reads OpenAI's shape (`{"content": [{"logprob", "top_logprobs": [{"logprob"}]}]}`) and that of older completions (`token_logprobs`).
    """
    if not isinstance(logprobs, Mapping):
        return None, None
    tokens = logprobs.get("content")
    if isinstance(tokens, Sequence) and not isinstance(tokens, str):
        told = [each for each in tokens[:_TOKENS_MAX] if isinstance(each, Mapping)]
        margins = [margin for each in told if (margin := _margin(each)) is not None]
        return mean([each.get("logprob") for each in told]), mean(margins)
    older = logprobs.get("token_logprobs")
    return (mean(older[:_TOKENS_MAX]), None) if isinstance(older, list) else (None, None)


def mean(values: Sequence[Any]) -> float | None:
    """The mean of what are numbers among values, none counted below a floor; None for none."""
    numbers = [max(_FLOOR, float(each)) for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    return sum(numbers) / len(numbers) if numbers else None


def _margin(token: Mapping[str, Any]) -> float | None:
    taken, others = token.get("logprob"), token.get("top_logprobs")
    if not isinstance(taken, int | float) or not isinstance(others, list):
        return None
    best = [
        float(each["logprob"])
        for each in others
        if isinstance(each, Mapping)
        and each.get("token") != token.get("token")
        and isinstance(each.get("logprob"), int | float)
    ]
    return max(_FLOOR, float(taken)) - max(_FLOOR, max(best)) if best else None
