"""What requests used, and the sums people ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX

_SERVED = ("accepted", "cache_")


class Group(IntEnum):
    """By what usage is grouped; the numbers are the contract's."""

    MODEL = 1
    SCOPE = 2
    DAY = 3
    TASK = 4
    PROVIDER = 5


@dataclass(frozen=True, slots=True)
class Saving:
    """What was saved, by cause, in nanodollars."""

    cache_usd_nanos: int = 0
    prompt_usd_nanos: int = 0
    route_usd_nanos: int = 0


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


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One finished request."""

    task: str
    lines: tuple[UsageLine, ...]
    baseline_usd_nanos: int
    saving: Saving

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
            if line.outcome.startswith(_SERVED):
                return index
        return len(self.lines) - 1

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

    def sums(self) -> Iterator[tuple[tuple[str, str], tuple[int, ...]]]:
        """What each line adds to the sums of its (model, provider): requests, attempts, input tokens, output tokens, cost, baseline,
        and what the cache, the prompt and the route saved.
        """
        for _, line, carries in self.attempts():
            once = (
                self.baseline_usd_nanos,
                self.saving.cache_usd_nanos,
                self.saving.prompt_usd_nanos,
                self.saving.route_usd_nanos,
            )
            counted = (int(carries), 1, line.input_tokens, line.output_tokens, line.cost_usd_nanos)
            yield (line.model, line.provider), (*counted, *(once if carries else (0, 0, 0, 0)))


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What sums are asked for: `after` is where the previous page ended."""

    scope: str
    start: datetime
    end: datetime
    groups: tuple[Group, ...]
    page_size: int
    after: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """One row of sums; `keys` are the values of the groups asked for, in their order."""

    keys: tuple[str, ...]
    requests: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_usd_nanos: int
    baseline_usd_nanos: int
    saving: Saving
