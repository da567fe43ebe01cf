"""What requests used: one line an attempt, with where each figure is from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX

_SERVED = ("accepted", "cache_")
CORRECTIONS = frozenset(("refund", "correction"))
"""Outcomes of lines that are no attempts: they only put right what an attempt cost."""
_SHADOW = "shadow_"


class Source(IntEnum):
    """Where a figure is from; the numbers are the contract's."""

    REPORTED = 1
    DERIVED = 2
    ESTIMATED = 3
    MISSING = 4


def serves(outcome: str) -> bool:
    """Whether an attempt that ended so is the one whose answer was delivered."""
    return outcome.startswith(_SERVED)


@dataclass(frozen=True, slots=True)
class Saving:
    """What was saved, by cause, in nanodollars."""

    cache_usd_nanos: int = 0
    prompt_usd_nanos: int = 0
    route_usd_nanos: int = 0

    @property
    def usd_nanos(self) -> int:
        """What was saved in all."""
        return self.cache_usd_nanos + self.prompt_usd_nanos + self.route_usd_nanos


NOTHING_SAVED = Saving()


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One attempt."""

    model: str
    provider: str
    deployment: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd_nanos: int
    outcome: str
    estimated: bool
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    tokens_source: Source = Source.REPORTED
    price_source: str = ""
    service_tier: str = ""
    price_unknown: bool = False

    @property
    def guessed(self) -> bool:
        """Whether its figures are our own estimate."""
        return self.estimated or self.tokens_source in (Source.ESTIMATED, Source.MISSING)


@dataclass(frozen=True, slots=True)
class UsageOrigin:
    """What a settled request was: a later correction of it is reported in the same places."""

    task: str
    service: str
    domain: str
    key_id: str
    tags: tuple[str, ...]
    model: str
    provider: str
    deployment: str


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One finished request."""

    task: str
    lines: tuple[UsageLine, ...]
    baseline_usd_nanos: int
    saving: Saving
    service: str = ""
    domain: str = ""
    key_id: str = ""
    tags: tuple[str, ...] = ()

    @property
    def cost_usd_nanos(self) -> int:
        """What all attempts cost."""
        return sum(line.cost_usd_nanos for line in self.lines)

    @property
    def tokens(self) -> int:
        """The tokens of all attempts."""
        return sum(line.input_tokens + line.output_tokens for line in self.lines)

    @property
    def served(self) -> int:
        """The index of the line whose answer was delivered: it carries the request, its baseline and its saving. The last when none was."""
        for index, line in enumerate(self.lines):
            if serves(line.outcome):
                return index
        return len(self.lines) - 1

    @property
    def origin(self) -> UsageOrigin:
        """What a correction of it is reported as."""
        line = self.lines[self.served]
        of_line = line.model, line.provider, line.deployment
        return UsageOrigin(self.task, self.service, self.domain, self.key_id, self.tags, *of_line)

    def checked(self) -> UsageRecord:
        """This record; raises FieldInvalid for sums that no balance could hold."""
        if self.cost_usd_nanos > NANOS_MAX:
            raise FieldInvalid(field="usage.lines", problem=f"cost more than {NANOS_MAX} nanodollars together")
        if self.tokens > NANOS_MAX:
            raise FieldInvalid(field="usage.lines", problem=f"have more than {NANOS_MAX} tokens together")
        for name in ("cache_usd_nanos", "prompt_usd_nanos", "route_usd_nanos"):
            if abs(getattr(self.saving, name)) > NANOS_MAX:
                raise FieldInvalid(field=f"usage.saving.{name}", problem=f"must be between -{NANOS_MAX} and {NANOS_MAX}")
        return self

    def attempts(self) -> Iterator[tuple[int, UsageLine, bool]]:
        """Every line with its number, and whether it carries the request."""
        served = self.served
        for number, line in enumerate(self.lines):
            yield number, line, number == served

    def figures(self) -> Iterator[tuple[UsageLine, tuple[int, ...]]]:
        """What each line adds to sums: the values of FIGURES. A correction is neither a request nor an attempt; what was bought for
        comparison only is an attempt, and nobody's request.
        """
        for _, line, carries in self.attempts():
            counts = int(line.outcome not in CORRECTIONS)
            cost, saving = line.cost_usd_nanos, self.saving
            once = (
                (self.baseline_usd_nanos, saving.cache_usd_nanos, saving.prompt_usd_nanos, saving.route_usd_nanos)
                if carries
                else (0, 0, 0, 0)
            )
            yield (
                line,
                (
                    counts if carries and not line.outcome.startswith(_SHADOW) else 0,
                    counts,
                    line.input_tokens,
                    line.cached_input_tokens,
                    line.output_tokens,
                    cost,
                    *once,
                    counts if line.guessed else 0,
                    cost if line.guessed or line.price_unknown else 0,
                    cost if line.price_unknown else 0,
                ),
            )


FIGURES = (
    "requests",
    "attempts",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cost_usd_nanos",
    "baseline_usd_nanos",
    "saved_cache_usd_nanos",
    "saved_prompt_usd_nanos",
    "saved_route_usd_nanos",
    "estimated_attempts",
    "estimated_usd_nanos",
    "unpriced_usd_nanos",
)
"""What sums of usage consist of, in the order of `UsageRecord.figures` and of the roll-ups' columns."""


class PaidLine(NamedTuple):
    """What one attempt of a settled request cost, as budgets on a model or a provider paid for it."""

    model: str
    provider: str
    cost_usd_nanos: int
    tokens: int
