"""What a request saved, split by cause so that the causes add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farthing_core.money import price_of_tokens


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """A model's rates in nanodollars per million tokens, and the encoding in which its tokens are counted."""

    input_usd_nanos_per_million_tokens: int
    output_usd_nanos_per_million_tokens: int
    encoding: str

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """The price of one call without any cached input, rounded up once."""
        return price_of_tokens(
            (input_tokens, self.input_usd_nanos_per_million_tokens), (output_tokens, self.output_usd_nanos_per_million_tokens)
        )


@dataclass(frozen=True, slots=True)
class Account:
    """Cost and baseline of one request with the saving by cause: cache + prompt + route = baseline − cost, to the nano."""

    cost_usd_nanos: int
    baseline_usd_nanos: int
    baseline_model: str
    cache_usd_nanos: int = 0
    prompt_usd_nanos: int = 0
    route_usd_nanos: int = 0
    input_tokens_before: int = 0
    input_tokens_after: int = 0


def account_of_hit(price: ModelPrice | None, *, baseline_model: str, input_tokens: int, output_tokens: int) -> Account:
    """The account of an answer from the cache: it cost nothing, and the cache saved all of the baseline.

    Without a price for the baseline model nothing is claimed.
    """
    if price is None:
        return Account(0, 0, "", input_tokens_before=input_tokens, input_tokens_after=input_tokens)
    baseline = price.of(input_tokens, output_tokens)
    return Account(0, baseline, baseline_model, baseline, input_tokens_before=input_tokens, input_tokens_after=input_tokens)


def account_of_answer(
    price: ModelPrice | None,
    *,
    baseline_model: str,
    cost_usd_nanos: int,
    tokens: TokensOfPrompt,
    output_tokens: int,
) -> Account:
    """The account of a bought answer: what the prompt's shortening saved at the baseline's rates, and the route the rest.

    The baseline is one call to the baseline model with the full prompt and an answer of the same length. Without a price for it
    nothing is claimed.
    """
    if price is None:
        before, after = tokens.in_encoding("")
        return Account(cost_usd_nanos, cost_usd_nanos, "", input_tokens_before=before, input_tokens_after=after)
    before, after = tokens.in_encoding(price.encoding)
    baseline = price.of(before, output_tokens)
    prompt = baseline - price.of(after, output_tokens)
    return Account(
        cost_usd_nanos=cost_usd_nanos,
        baseline_usd_nanos=baseline,
        baseline_model=baseline_model,
        prompt_usd_nanos=prompt,
        route_usd_nanos=baseline - cost_usd_nanos - prompt,
        input_tokens_before=before,
        input_tokens_after=after,
    )


def account_of_shadow(cost_usd_nanos: int) -> Account:
    """The account of an answer that was bought for comparison only: without Farthing there would be none, so it takes from what the
    routes save.
    """
    return Account(cost_usd_nanos, 0, "", route_usd_nanos=-cost_usd_nanos)


@dataclass(frozen=True, slots=True)
class TokensOfPrompt:
    """Tokens of a prompt: our own counts by encoding, before and after shaping, and what the provider billed."""

    before: Mapping[str, int]
    after: Mapping[str, int]
    billed: int

    def in_encoding(self, encoding: str) -> tuple[int, int]:
        """(before, after): what was billed, and on top of it what shaping took away; our own counts where nothing was billed.

        A provider counts more than the texts (chat templates, tools, images), so its figure is the better base for both.
        """
        if not self.before:
            return self.billed, self.billed
        chosen = encoding if encoding in self.before else min(self.before)
        before, after = self.before[chosen], self.after.get(chosen, self.before[chosen])
        return (self.billed + before - after, self.billed) if self.billed else (before, after)
