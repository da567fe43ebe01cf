"""Sizes holds by what was learned, and learns from what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from farthing_core.money import TOKENS_PER_PRICE, price_of_tokens

from farthing_budget.operations import Sized, Sizing
from farthing_budget.sizing.bins import bin_end, bin_of
from farthing_budget.sizing.learner import Learner, StreamKey, stream_key
from farthing_budget.usage import UsageRecord

_LEVELS = 6
"""How much of a scope's path tells who asks: down to its project. What users ask is pooled."""


class Lesson(NamedTuple):
    """What became of a sized hold: it began (before is None), it grew, or it ended (after is None) with so many output tokens.

    `natural` is whether the answer came to its own end. What ended without a token takes back what its growing had taught.
    """

    scope: str
    before: Sized | None
    after: Sized | None
    output_tokens: int = 0
    natural: bool = False


class Sizer:
    """Says how large a hold is. What it learns, it is told after the batch is committed."""

    def __init__(self, learner: Learner | None = None) -> None:
        self.learner = learner or Learner()

    def first(self, sizing: Sizing, scope: str) -> Sized:
        """The hold with which a request starts: its prompt, and the first bin of its answer."""
        return self._holding(sizing, scope, bin_of(0))

    def more(self, sized: Sized, scope: str, output_tokens: int) -> Sized:
        """The hold that pays for at least so many output tokens, to the end of their bin; the same one when it does already."""
        wanted = min(output_tokens, sized.sizing.output_tokens_max)
        if wanted <= sized.output_tokens_held:
            return sized
        longer = self._holding(sized.sizing, scope, bin_of(wanted))
        if longer.output_tokens_held >= wanted:
            return longer
        # Beyond the last bin the hold doubles; there is no telling where such an answer ends.
        return longer._replace(output_tokens_held=min(2 * wanted, sized.sizing.output_tokens_max))

    def within(self, sized: Sized, *, usd_nanos: int | None, tokens: int | None) -> Sized:
        """The hold with as many more output tokens as so much money and so many tokens pay for; None does not limit."""
        sizing, most = sized.sizing, sized.sizing.output_tokens_max
        if usd_nanos is not None and sizing.output_usd_nanos_per_million_tokens:
            spare = self.usd_nanos(sized) + usd_nanos - sizing.input_usd_nanos
            most = min(most, spare * TOKENS_PER_PRICE // sizing.output_usd_nanos_per_million_tokens)
        if tokens is not None:
            most = min(most, sized.output_tokens_held + tokens)
        return sized._replace(output_tokens_held=max(sized.output_tokens_held, most))

    def usd_nanos(self, sized: Sized) -> int:
        """What a hold comes to, in nanodollars."""
        sizing = sized.sizing
        return sizing.input_usd_nanos + price_of_tokens((sized.output_tokens_held, sizing.output_usd_nanos_per_million_tokens))

    def tokens(self, sized: Sized) -> int:
        """What a hold comes to, in tokens."""
        return sized.sizing.input_tokens + sized.output_tokens_held

    def learn(self, lessons: Iterable[Lesson]) -> None:
        """Remembers what became of holds."""
        for lesson in lessons:
            sized = lesson.before or lesson.after
            assert sized is not None
            key = _key(sized.sizing, lesson.scope)
            if lesson.before is None:
                self.learner.started(key)
                continue
            owned = bin_of(lesson.before.output_tokens_held)
            reached = bin_of(lesson.after.output_tokens_held if lesson.after else lesson.output_tokens)
            if reached != owned:
                self.learner.moved(key, owned, reached)
            if lesson.after is None:
                (self.learner.ended if lesson.natural else self.learner.stopped)(key, reached)

    def _holding(self, sizing: Sizing, scope: str, index: int) -> Sized:
        risk = self.learner.risk(
            _key(sizing, scope),
            index,
            tokens_max=sizing.output_tokens_max,
            price=sizing.output_usd_nanos_per_million_tokens,
        )
        return Sized(sizing, min(bin_end(index), sizing.output_tokens_max), risk)


def lesson_of_end(scope: str, sized: Sized, usage: UsageRecord | None) -> Lesson:
    """What a settlement teaches (None: the hold ended unused). Only answers of the model that the hold was sized for count."""
    lines = [line for line in usage.lines if line.model == sized.sizing.model] if usage else []
    tokens = max((line.output_tokens for line in lines), default=0)
    whole = any(line.outcome in ("accepted", "rejected") and not line.estimated for line in lines)
    return Lesson(scope, sized, None, tokens, natural=whole and 0 < tokens < sized.sizing.output_tokens_max)


def _key(sizing: Sizing, scope: str) -> StreamKey:
    return stream_key(
        scope="/".join(scope.split("/", _LEVELS)[:_LEVELS]),
        model=sizing.model,
        task=sizing.task,
        input_tokens=sizing.input_tokens,
        tokens_max=sizing.output_tokens_max,
    )
